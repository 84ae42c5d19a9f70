"""Decoding at a fraction of a JPEG's size for the network: off by default, and what it changes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawing import draw_face, encode
from maskdrop.config import DecodeSettings, ModelSettings
from maskdrop.decoding import BrokenPicture, decode, decode_at_least
from maskdrop.model.parser import Pixels, load_parser
from maskdrop.parts import PART_NAMES
from maskdrop.preprocess import prepare_content
from maskdrop.topology.slots import OwnSlots
from running import FULL, Daemon, Rooms
from test_model import pictures_of

Start = Callable[..., Daemon]
DRAFT = DecodeSettings(draft=True)


def turned(width: int, height: int, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(draw_face(3, width, height), exif=exif, quality=90)


@pytest.mark.parametrize(
    ("width", "height", "drafted"),
    [
        (4096, 2100, (2048, 1050)),
        (4100, 8193, (1025, 2049)),
        (2047, 9000, (2047, 9000)),
        (500, 400, (500, 400)),
    ],
)
def test_no_side_becomes_shorter_than_is_wanted(width: int, height: int, drafted: tuple[int, int]) -> None:
    content = encode(Image.new("RGB", (width, height), (90, 80, 70)))
    picture, size, _ = decode_at_least(content, DRAFT, 1024)
    assert picture.size == drafted
    assert size == (width, height)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_draft_shows_the_picture_upright_and_tells_its_own_size(orientation: int) -> None:
    content = turned(1600, 1200, orientation)
    whole = decode(content, DRAFT)
    draft, size, _ = decode_at_least(content, DRAFT, 256)
    assert size == whole.size == ((1600, 1200) if orientation < 5 else (1200, 1600))
    assert draft.size == (size[0] // 4, size[1] // 4)
    small = np.asarray(whole.resize(draft.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(small - np.asarray(draft)).mean() < 3


def test_drafts_are_made_only_where_configured_and_wanted() -> None:
    content = turned(2048, 2048, 1)
    assert decode_at_least(content, DecodeSettings(), 512)[0].size == (2048, 2048)
    assert decode(content, DRAFT).size == (2048, 2048)
    png = encode(draw_face(3, 2048, 2048), "PNG")
    assert decode_at_least(png, DRAFT, 512)[0].size == (2048, 2048)


def large_ones(faces: list[Path]) -> list[Image.Image]:
    """Of 2,048 x 2,048: faces scaled up, and a drawing with noise in every pixel of that size."""
    size, scaling = (2048, 2048), Image.Resampling.LANCZOS
    scaled = [Image.fromarray(pixels).resize(size, scaling) for pixels in pictures_of(faces[::250], 3)]
    return [*scaled, draw_face(3, *size)]


def test_labels_are_nearly_those_of_whole_pictures(faces: list[Path]) -> None:
    parser = load_parser(ModelSettings(precision="fp32"), "cpu")

    def labels(content: bytes, settings: DecodeSettings) -> Pixels:
        slots = OwnSlots.for_one(512)
        prepare_content(content, "", settings, slots, 0)
        return parser.parse(slots.pictures)

    for picture in large_ones(faces):
        content = encode(picture, quality=90)
        same = labels(content, DRAFT) == labels(content, DecodeSettings())
        assert 0.995 <= same.mean() < 1  # all of them: it was no draft


def test_a_truncated_jpeg_is_broken_as_a_draft_too() -> None:
    content = turned(2048, 2048, 1)
    with pytest.raises(BrokenPicture):
        decode_at_least(content[: len(content) // 2], DRAFT, 512)


def test_results_are_of_full_size_all_the_same(start: Start, rooms: Rooms) -> None:
    settings = FULL + "[decode]\ndraft = true\n[save]\nkeep = {every}\nformat = 'png'\n"
    content = turned(2600, 2100, 6)
    daemon = start(settings=settings.replace("{every}", str(list(PART_NAMES)))).wait_ready()
    rooms.drop("large.jpg", content)
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0
    with Image.open(rooms.outbox / "large.png") as image:
        assert image.size == (2100, 2600)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(decode(content, DecodeSettings())))
