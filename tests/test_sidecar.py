"""The JSON beside a picture's results, and what results keep of its metadata; by the real daemon."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms

from drawing import draw_face, encode, face_bytes
from maskdrop import __version__
from maskdrop.config import Metadata, ModelSettings
from maskdrop.infer import _judgements
from maskdrop.model.parser import load_parser
from maskdrop.parts import FACE_PARTS, PART_NAMES
from maskdrop.results.metadata import Carried, exif_for
from maskdrop.results.provenance import source_of
from maskdrop.ticket import Infer
from running import FULL, Daemon, Rooms

Start = Callable[..., Daemon]

WEIGHTS = Path(__file__).parent.parent / "daemon/maskdrop/weights"
EMBEDDED = WEIGHTS / "faces.safetensors"
EXACT = FULL + "[model]\nprecision = 'fp32'\n"


def told(rooms: Rooms, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((rooms.outbox / name).read_bytes())
    return content


def known_face(side: int) -> Image.Image:
    with Image.open(WEIGHTS / "known-face.jpg") as image:
        return image.convert("RGB").resize((side, side))


def test_the_sidecar_tells_what_the_labels_say(start: Start, rooms: Rooms) -> None:
    """A portrait and a picture of two small faces, which are looked at again."""
    settings = (
        EXACT.replace('"off"', '"auto"')
        + "[save]\noutputs = ['labels', 'json']\nsuffix = { json = '.told' }\n"
    )
    pair = Image.new("RGB", (1100, 700), (118, 118, 118))
    pair.paste(known_face(300), (50, 250))
    pair.paste(known_face(220), (700, 100))
    contents = {
        "pair.png": encode(pair, "PNG"),
        "one.png": encode(known_face(400), "PNG"),
        "a/no.jpg": face_bytes(1),
    }
    daemon = start("--weights", str(EMBEDDED), settings=settings).wait_ready()
    for name, content in contents.items():
        rooms.drop(name, content)
    daemon.wait_count("saved", 3)
    assert daemon.stop() == 0
    for name, content in contents.items():
        stem = name.rpartition(".")[0]
        sidecar = told(rooms, f"{stem}.told.json")
        with Image.open(rooms.outbox / f"{stem}.labels.png") as image:
            labels = np.asarray(image)
        assert (sidecar["picture"], sidecar["maskdrop"]) == (name, __version__)
        assert sidecar["sha256"] == hashlib.sha256(content).hexdigest()
        assert sidecar["model"] == {"sha256": hashlib.sha256(EMBEDDED.read_bytes()).hexdigest()}
        assert (sidecar["height"], sidecar["width"]) == labels.shape
        counts = {PART_NAMES[n]: int((labels == n).sum()) for n in np.unique(labels)}
        assert {key: entry["pixels"] for key, entry in sidecar["classes"].items()} == counts
        for entry in sidecar["classes"].values():
            assert abs(entry["share"] - entry["pixels"] / labels.size) < 1e-6
            assert entry["confidence"] is None or 1 / 19 <= entry["confidence"] <= 1
        assert 1 / 19 <= sidecar["confidence"] <= 1
        assert {"settle", "preprocess", "infer"} <= set(sidecar["ms"])
        assert all(spent >= 0 for spent in sidecar["ms"].values())

    one, labels = told(rooms, "one.told.json"), np.asarray(Image.open(rooms.outbox / "one.labels.png"))
    rows, columns = np.nonzero(np.isin(labels, [PART_NAMES.index(name) for name in FACE_PARTS]))
    face = one["face"]
    assert one["faces"] == [face]
    assert one["views"] == []
    inside = (face["top"] <= rows) & (rows < face["top"] + face["height"])
    inside &= (face["left"] <= columns) & (columns < face["left"] + face["width"])
    assert inside.mean() > 0.97
    assert face["top"] in rows[inside]
    assert face["left"] + face["width"] - 1 in columns[inside]

    two = told(rooms, "pair.told.json")
    assert len(two["faces"]) == len(two["views"]) == 2
    assert {"locate", "infer again"} <= set(two["ms"])
    for box, (left, top, side) in zip(two["faces"], ((50, 250, 300), (700, 100, 220)), strict=True):
        assert left <= box["left"] + box["width"] / 2 <= left + side
        assert top <= box["top"] + box["height"] / 2 <= top + side
    assert told(rooms, "a/no.told.json")["picture"] == "a/no.jpg"


def test_confidence_is_the_mean_probability_of_the_labels(
    start: Start, rooms: Rooms, tiny_weights: Path
) -> None:
    """Compared with all probabilities, computed plainly. Nothing but JSON is written here."""
    daemon = start(settings=EXACT + "[save]\noutputs = ['json']\n").wait_ready()
    images = [draw_face(seed, 512, 512) for seed in range(5)]
    for index, image in enumerate(images):
        rooms.drop(f"{index}.png", encode(image, "PNG"))
    daemon.wait_count("saved", len(images))
    assert daemon.stop() == 0
    assert rooms.pictures("outbox") == [f"{index}.json" for index in range(len(images))]
    parser = load_parser(ModelSettings(weights=tiny_weights, precision="fp32"), "cpu")
    for index, image in enumerate(images):
        scores = parser._scores(torch.from_numpy(np.array(image)[np.newaxis]))[0]
        best, labels = torch.softmax(scores.double(), dim=0).max(dim=0)
        sidecar = told(rooms, f"{index}.json")
        assert abs(sidecar["confidence"] - float(best.mean())) < 2e-4
        for name, entry in sidecar["classes"].items():
            expected = float(best[labels == PART_NAMES.index(name)].mean())
            assert abs(entry["confidence"] - expected) < 2e-3, name


def test_a_sidecar_replaces_its_own_pictures_only(start: Start, rooms: Rooms) -> None:
    settings = FULL + "[folders]\nafter = 'delete'\n[save]\noutputs = ['face', 'json']\n"
    (rooms.outbox / "b.json").write_text('{"sha256": "somebody else\'s"}')
    daemon = start(settings=settings).wait_ready()
    first, second = face_bytes(1), face_bytes(2, "PNG")
    for name, content in (("a.jpg", first), ("a.png", second), ("b.jpg", first), ("a.jpg", first)):
        saved = daemon.health()["counts"]["saved"]
        rooms.drop(name, content)
        daemon.wait_count("saved", saved + 1)
    marks = [f"~{hashlib.sha256(content).hexdigest()[:8]}" for content in (second, first)]
    names = [
        f"a{marks[0]}.jpg",
        f"a{marks[0]}.json",
        "a.jpg",
        "a.json",
        f"b{marks[1]}.jpg",
        "b.json",
        f"b{marks[1]}.json",
    ]
    assert rooms.pictures("outbox") == sorted(names)
    assert told(rooms, "a.json")["sha256"] == hashlib.sha256(first).hexdigest()
    assert told(rooms, f"a{marks[0]}.json")["sha256"] == hashlib.sha256(second).hexdigest()
    assert told(rooms, "b.json") == {"sha256": "somebody else's"}


def rich_exif() -> Image.Exif:
    """As a telephone writes it: with a place, a maker's note and a thumbnail."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110], exif[0x0131] = 6, "Maker", "Model 1", "Firmware 7"
    exif[0x013B], exif[0x8298], exif[0x0132] = "Ada", "(c) Ada", "2024:05:06 07:08:09"
    exif[0x8769] = {
        0x829A: 0.01,
        0x9003: "2024:05:06 07:08:09",
        0x927C: b"secret " * 40,
        0xA002: 4000,
        0x9286: b"note",
    }
    exif[0x8825] = {1: "N", 2: (52.0, 30.0, 0.0), 3: "E", 4: (13.0, 24.0, 0.0)}
    return exif


def display_p3() -> bytes:
    """A profile that is not sRGB's: LAB will do, for it is told by its description."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()


def test_exif_and_profile_are_kept_and_places_only_if_asked(start: Start, rooms: Rooms) -> None:
    picture = encode(draw_face(3, 200, 120), exif=rich_exif(), icc_profile=display_p3(), quality=95)
    plain = encode(draw_face(4), "PNG")
    digest = hashlib.sha256(picture).hexdigest()
    outputs = "outputs = ['face', 'model', 'cutout', 'labels']\n"
    for round_, (metadata, form) in enumerate(((None, "jpeg"), (["gps"], "webp"))):
        chosen = "" if metadata is None else f"metadata = {metadata}\n"
        daemon = start(settings=FULL + f"[save]\n{outputs}format = '{form}'\n{chosen}").wait_ready()
        rooms.drop(f"{round_}/p.jpg", picture)
        rooms.drop(f"{round_}/plain.png", plain)
        daemon.wait_count("saved", 2)
        assert daemon.stop() == 0
        results = {
            path.name.partition(".")[0] + path.suffixes[0]: path
            for path in (rooms.outbox / str(round_)).iterdir()
        }
        wanted = {"exif", "icc"} if metadata is None else set(metadata)
        assert len(results) == 8
        for key, path in results.items():
            with Image.open(path) as image:
                exif, info = image.getexif(), image.info
            is_plain, is_labels = key.startswith("plain"), key.endswith(".labels")
            keeps = set() if is_plain or is_labels else wanted
            if not is_plain:
                assert exif[0x010D] == f"sha256:{digest}"
            assert exif[0x0131] == f"maskdrop {__version__}"
            assert exif.get(0x010F) == ("Maker" if "exif" in keeps else None), path
            camera = exif.get_ifd(0x8769)
            assert set(camera) == ({0x829A, 0x9003, 0x9286, 0xA001} if "exif" in keeps else set()), path
            assert bool(exif.get_ifd(0x8825)) == ("gps" in keeps), path
            assert 0x0112 not in exif
            assert b"secret" not in path.read_bytes()
            assert ("icc_profile" in info) == ("icc" in keeps), path
            if "icc" in keeps:
                profile = ImageCms.ImageCmsProfile(io.BytesIO(info["icc_profile"])).profile
                assert "sRGB" in str(profile.profile_description)
            if "gps" in keeps:
                assert exif.get_ifd(0x8825)[2] == (52.0, 30.0, 0.0)


def test_metadata_that_can_not_be_written_is_left_out_and_provenance_stays() -> None:
    def read(content: bytes) -> Image.Exif:
        exif = Image.Exif()
        exif.load(content)
        return exif

    everything: tuple[Metadata, ...] = ("exif", "icc", "gps")
    long = Carried({0x010F: "Maker"}, {0x9286: bytes(70_000)}, {1: "N"})
    exif = read(exif_for(long, everything, "00"))
    assert (exif[0x010D], exif[0x010F]) == ("sha256:00", "Maker")
    assert exif.get_ifd(0x8825) == {1: "N"}
    assert not exif.get_ifd(0x8769)
    odd = Carried({0x010F: object()}, {}, {1: object()})
    assert dict(read(exif_for(odd, everything, "00"))).keys() == {0x010D, 0x0131}
    endless = Carried({0x010E: "x" * 70_000})
    assert dict(read(exif_for(endless, everything, "00"))).keys() == {0x010D, 0x0131}
    assert dict(read(exif_for(long, (), "00"))).keys() == {0x010D, 0x0131}


def test_a_sidecar_planted_in_the_outbox_is_nobodys_result(tmp_path: Path) -> None:
    planted = {
        "deep.json": b"[" * 200_000,
        "list.json": b'["sha256", "maskdrop"]',
        "number.json": b"1" * 10_000,
        "half.json": b'{"maskdrop": "0.1.0", "sha256": "ab',
        "long.json": b" " * 2**20 + b'{"maskdrop": "0.1.0", "sha256": "ab"}',
        "foreign.json": b'{"sha256": "ab"}',
        "bytes.json": b"\xff\xfe\x00",
    }
    for name, content in planted.items():
        (tmp_path / name).write_bytes(content)
        assert source_of(tmp_path / name) is None, name
    (tmp_path / "link.json").symlink_to("ours.json")
    (tmp_path / "ours.json").write_bytes(b'{"maskdrop": "0.1.0", "sha256": "ab"}')
    assert source_of(tmp_path / "link.json") is None
    assert source_of(tmp_path / "ours.json") == "ab"


def test_confidences_go_to_their_own_pictures_in_a_mixed_batch() -> None:
    """Whole pictures come first in the network's batch, then views."""

    def sure(mean: float) -> Any:
        return np.array([[mean * 10, 10.0], [0.0, 0.0]])

    batch = [Infer(1, 0, views=2), Infer(2, 1)]
    told = _judgements(batch, "0" * 64, [sure(0.9), sure(0.2), sure(0.4)])
    assert [each and round(each.confidence, 6) for each in told] == [0.3, 0.9]
