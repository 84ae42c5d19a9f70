"""`from maskdrop import Parser`: what the daemon does, bit for bit, and the guide's code as it stands."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from drawing import draw_face, face_bytes
from maskdrop import BrokenPicture, ConfigurationError, Parsed, Parser, WeightsError
from maskdrop.parts import PART_NAMES
from picture_kinds import picture_kinds
from running import FULL, Daemon, Rooms

Start = Callable[..., Daemon]

GUIDE = Path(__file__).parent.parent / "docs" / "python.md"
EMBEDDED = Path(__file__).parent.parent / "daemon/maskdrop/weights/faces.safetensors"
EXACT = {"model": {"precision": "fp32"}}


@pytest.fixture(scope="module")
def parser(tiny_weights: Path) -> Parser:
    return Parser(weights=tiny_weights, device="cpu", threads=1, settings=EXACT)


def test_what_others_write_to_standard_error_meanwhile_is_not_lost(
    parser: Parser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is their process, and may have several threads."""
    load = ImageFile.ImageFile.load
    descriptors: list[os.stat_result] = []

    def seen(image: ImageFile.ImageFile) -> object:
        descriptors.append(os.fstat(2))
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", seen)
    path = tmp_path / "a.jpg"
    path.write_bytes(face_bytes(1))
    before = os.fstat(2)
    parser.parse(path)
    assert descriptors
    assert all(os.path.samestat(one, before) for one in descriptors)


def test_labels_and_images_are_the_daemons_bit_for_bit(
    start: Start, rooms: Rooms, faces: list[Path], tmp_path: Path
) -> None:
    """Portraits, a small face that is looked at again, and odd kinds of file, by the embedded weights."""
    pictures = {path.name: path.read_bytes() for path in faces[:2]}
    kinds = picture_kinds()
    pictures |= {
        name: kinds[name].content for name in ("exif-6.jpg", "icc-other.jpg", "alpha.png", "wide.png")
    }
    known = Image.open(EMBEDDED.parent / "known-face.jpg").convert("RGB").resize((200, 200))
    small = Image.new("RGB", (900, 700), (118, 118, 118))
    small.paste(known, (350, 250))
    small.save(tmp_path / "small.png")
    pictures["small.png"] = (tmp_path / "small.png").read_bytes()
    everything = '[save]\noutputs = ["labels", "face", "cutout", "overlay"]\nformat = "png"\n'
    settings = FULL.replace('"off"', '"auto"').replace("[workers]", "[workers]\nmax_batch = 1") + everything
    daemon = start(
        "--weights", str(EMBEDDED), settings=settings + "[model]\nprecision = 'fp32'\n"
    ).wait_ready()
    for name, content in pictures.items():
        rooms.drop(f"{name}/{name}", content)
    daemon.wait_count("saved", len(pictures))
    assert daemon.stop() == 0
    assert "locate" in next(line for line in daemon.log.splitlines() if "saved small.png/" in line)
    same = Parser(weights=EMBEDDED, device="cpu", threads=1, settings=EXACT)
    for name in pictures:
        stem = Path(name).stem
        parsed = same.parse(rooms.archive / name / name)
        for output, tail in {
            "labels": ".labels",
            "face": "",
            "cutout": ".cutout",
            "overlay": ".overlay",
        }.items():
            with Image.open(rooms.outbox / name / f"{stem}{tail}.png") as image:
                assert np.array_equal(np.asarray(parsed.image(output)), np.asarray(image)), (name, output)  # type: ignore[arg-type]
                if output == "labels":
                    assert np.array_equal(parsed.labels, np.asarray(image))
    assert set(np.unique(same.parse(tmp_path / "small.png").labels)) >= {0, 1, 10, 17}


def test_paths_images_and_arrays_give_the_same(parser: Parser, tmp_path: Path) -> None:
    image = draw_face(3, 90, 120)
    path = tmp_path / "face.png"
    image.save(path)
    pixels = np.asarray(image)
    opaque = np.dstack([pixels, np.full((120, 90), 255, dtype=np.uint8)])
    first = parser.parse(path)
    for other in (str(path), image, pixels, opaque, image.convert("RGBA")):
        parsed = parser.parse(other)
        assert np.array_equal(parsed.labels, first.labels)
        assert np.array_equal(parsed.picture, pixels)
    assert (first.labels.shape, first.classes) == ((120, 90), PART_NAMES)
    assert first.labels.dtype == np.uint8
    grey = np.asarray(image.convert("L"))
    assert np.array_equal(parser.parse(grey).picture, np.dstack([grey] * 3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["TIFF", "JPEG", "PNG", "WEBP"])
def test_an_image_from_a_file_is_turned_as_the_file_is(
    parser: Parser, tmp_path: Path, form: str, orientation: int
) -> None:
    path, exif = tmp_path / f"face.{form.lower()}", Image.Exif()
    exif[0x0112] = orientation
    draw_face(3, 90, 120).save(path, form, exif=exif)
    wanted = parser.parse(path).picture
    for is_loaded in (False, True):
        with Image.open(path) as image:
            if is_loaded:
                image.load()
            assert np.array_equal(parser.parse(image).picture, wanted)


def test_the_transparent_colour_of_an_image_is_that_of_its_file_and_it_stays_as_it_is(
    parser: Parser, tmp_path: Path
) -> None:
    path = tmp_path / "grey.png"
    Image.new("L", (8, 8), 15).save(path, bits=4, transparency=15)  # a depth that Pillow widens
    wanted = parser.parse(path).picture
    with Image.open(path) as image:
        before = dict(image.info)
        assert np.array_equal(parser.parse(image).picture, wanted)
        assert image.info == before


def test_as_many_pixels_as_are_set_are_taken_and_the_limit_of_others_stays(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    path = tmp_path / "face.png"
    draw_face(3, 90, 120).save(path)
    few = {"model": {"input_size": 64}, "decode": {"max_pixels": 6_000}}
    with pytest.raises(BrokenPicture, match="90 x 120 pixels are more than"):
        Parser(weights=tiny_weights, settings=few).parse(path)
    many = {**few, "decode": {"max_pixels": 20_000}}
    assert Parser(weights=tiny_weights, settings=many).parse(path).labels.shape == (120, 90)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_masks_and_images(parser: Parser) -> None:
    parsed: Parsed = parser.parse(draw_face(5, 100, 80))
    masks = parsed.masks()
    assert len(masks) > 1
    assert np.sum([mask.astype(int) for mask in masks.values()], axis=0).max() == 1
    for name, mask in masks.items():
        assert np.array_equal(mask, parsed.labels == PART_NAMES.index(name))
        assert np.array_equal(parsed.mask(name), mask)
    assert np.array_equal(parsed.mask(), np.isin(parsed.labels, [1, 2, 3, 10, 12, 13]))
    assert np.array_equal(np.asarray(parsed.image()), parsed.picture * parsed.mask()[:, :, None])
    with pytest.raises(ValueError, match="'chin' is no class; choose from background, skin"):
        parsed.mask("chin")


def test_what_is_wrong_is_told(parser: Parser, tmp_path: Path, tiny_weights: Path) -> None:
    broken = tmp_path / "half.jpg"
    broken.write_bytes(face_bytes(1)[:2000])
    with pytest.raises(BrokenPicture, match="truncated"):
        parser.parse(broken)
    with pytest.raises(FileNotFoundError):
        parser.parse(tmp_path / "none.jpg")
    for array in (np.zeros((3, 3), np.float32), np.zeros((3, 3, 2), np.uint8), np.zeros((0, 3, 3), np.uint8)):
        with pytest.raises(BrokenPicture, match="is no picture; give uint8"):
            parser.parse(array)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no class; choose from"):
        Parser(weights=tiny_weights, settings={"save": {"keep": ["chin"]}})
    with pytest.raises(WeightsError, match=r"none\.pth"):
        Parser(weights=tmp_path / "none.pth")
    tight = Parser(weights=tiny_weights, device="cpu", threads=1, settings={"decode": {"max_bytes": 10}})
    with pytest.raises(BrokenPicture, match=r"decode\.max_bytes = 10"):
        tight.parse(broken)


def test_importing_maskdrop_is_cheap() -> None:
    program = (
        "import sys, maskdrop; print(maskdrop.__version__, 'Parser' in dir(maskdrop), "
        "[n for n in ('torch', 'numpy', 'PIL', 'pydantic', 'typer') if n in sys.modules], "
        "hasattr(maskdrop, 'Nothing'))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\S+ True \[\] False\n", answer.stdout)


def test_the_guides_code_runs_as_it_stands(tmp_path: Path) -> None:
    """In one interpreter, one block after the other, with the embedded weights."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    with Image.open(EMBEDDED.parent / "known-face.jpg") as image:
        image.convert("RGB").resize((160, 160)).save(tmp_path / "face.jpg")
    program = tmp_path / "guide.py"
    program.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("faces.safetensors ")
    assert "an array of float32" in lines[1]
    assert "'chin'" in lines[2]
    with Image.open(tmp_path / "cut.png") as cut:
        assert cut.mode == "RGBA"
        assert 0 < np.asarray(cut)[:, :, 3].mean() < 255


@pytest.fixture
def narrow(tiny_weights: Path) -> Parser:
    """Of the size of the pictures that it is given."""
    settings: dict[str, dict[str, Any]] = {
        "model": {"precision": "fp32", "input_size": 64},
        "face": {"locate": "off"},
    }
    return Parser(weights=tiny_weights, device="cpu", threads=1, settings=settings)


def test_what_was_parsed_stays_as_it_is(narrow: Parser) -> None:
    first = narrow.parse(draw_face(1, 64, 64))
    labels, picture = first.labels.copy(), first.picture.copy()
    narrow.parse(draw_face(2, 64, 64))
    assert np.array_equal(first.labels, labels)
    assert np.array_equal(first.picture, picture)


def test_threads_get_their_own_labels(narrow: Parser) -> None:
    images = [draw_face(seed, 90, 120) for seed in range(24)]
    alone = [narrow.parse(image).labels for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda image: narrow.parse(image).labels, images))
    assert all(map(np.array_equal, alone, together))


def test_what_was_parsed_is_the_callers_own(narrow: Parser) -> None:
    pixels = np.asarray(draw_face(1, 64, 64)).copy()
    for given in (pixels, draw_face(1, 64, 64)):
        parsed = narrow.parse(given)
        parsed.picture[~parsed.mask()] = 0
        assert parsed.labels.flags.writeable
    assert np.array_equal(pixels, np.asarray(draw_face(1, 64, 64)))
