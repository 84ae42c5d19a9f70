"""The pictures that benchmarks work on: real faces, as they are or scaled up."""

import os
import shutil
import sys
from pathlib import Path

from PIL import Image

NATIVE = 512
"""Pixels per side of the faces as they are."""

_DISTINCT = 8
"""How many pictures of a larger size differ: they are costly to make, and cost the stages about the same."""


def faces() -> list[Path]:
    """Photographs of faces, in the order of their names.

    Raises:
        SystemExit: there are none; the message says where to put them.
    """
    beside = Path(__file__).parent.parent.parent / "shared" / "faces"
    folder = Path(os.environ.get("MASKDROP_FACES", beside)) / "images"
    found = sorted(folder.glob("*.jpg"))
    if not found:
        sys.exit(f"no photographs of faces in {folder}; set MASKDROP_FACES to a folder that has images/*.jpg")
    return found


def fill(folder: Path, count: int, side: int = NATIVE) -> Path:
    """Make a folder of ``count`` JPEGs of side x side pixels; faces repeat where there are too few.

    Returns:
        The folder, which must not exist before.
    """
    folder.mkdir(parents=True)
    originals = faces()
    if side != NATIVE:
        originals = [
            _scaled(path, folder.parent / f".{side}-{path.name}", side) for path in originals[:_DISTINCT]
        ]
    for number in range(count):
        shutil.copyfile(originals[number % len(originals)], folder / f"{number:06}.jpg")
    return folder


def _scaled(path: Path, target: Path, side: int) -> Path:
    if not target.exists():
        with Image.open(path) as image:
            image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS).save(target, quality=90)
    return target
