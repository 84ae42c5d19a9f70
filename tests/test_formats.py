"""What becomes of each kind of picture: one daemon that masks nothing away, so results are what it saw."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskdrop.parts import Part
from maskdrop.results.metadata import srgb_profile
from picture_kinds import picture_kinds
from running import QUICK, Daemon, Rooms

Start = Callable[..., Daemon]

FORMATS_PAGE = Path(__file__).parent.parent / "docs" / "formats.md"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_every_kind_of_picture_becomes_what_the_page_says(start: Start, rooms: Rooms) -> None:
    kinds = picture_kinds()
    for name, kind in kinds.items():
        rooms.drop(f"{name}/{name}", kind.content)  # a folder each: many have the same stem
    everything = [part.label for part in Part]
    settings = QUICK + f"[save]\nformat = 'png'\nkeep = {everything}\n"
    daemon = start(settings=settings).wait_ready()
    daemon.wait_health(
        lambda h: h["counts"]["saved"] + h["counts"]["quarantined"] >= len(kinds), "all of them"
    )
    assert daemon.stop() == 0
    assert rooms.pictures("quarantine") == []
    wrong = {}
    for name, kind in kinds.items():
        (result,) = (rooms.outbox / name).iterdir()
        with Image.open(result) as image:
            assert image.mode == "RGB"
            pixels = np.asarray(image).astype(int)
            assert "transparency" not in image.info
            with Image.open(io.BytesIO(kind.content)) as original:
                has_profile = "icc_profile" in original.info
            assert has_profile or not name.startswith("icc-")
            assert image.info.get("icc_profile") == (srgb_profile() if has_profile else None)
        if pixels.shape != kind.expected.shape:
            wrong[name] = f"{pixels.shape} for {kind.expected.shape}"
        elif (off := float(np.abs(pixels - kind.expected).mean())) > kind.tolerance:
            wrong[name] = f"off by {off:.2f}"
    assert wrong == {}


def test_the_page_has_a_row_for_each_kind() -> None:
    named = set(
        re.findall(
            r"`([a-z0-9-]+\.(?:jpg|png|webp|gif|tif|bmp|avif))`", FORMATS_PAGE.read_text(encoding="utf-8")
        )
    )
    assert named == set(picture_kinds())
