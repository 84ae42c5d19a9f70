"""The contact sheet: one PNG with everything that is shown of each picture in a strip."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE = 128
"""Pixels of a tile's side, its margin included."""

_MARGIN, _LINE, _TEXT = 4, 18, 12
_MOST_PIXELS = 60_000_000


class ContactSheet:
    """Strips of tiles under a name each, filled in from left to right and top to bottom."""

    def __init__(self, strips: int, tiles: int) -> None:
        """Make a white sheet, about as wide as it is high.

        Args:
            strips: pictures.
            tiles: images of each at most.
        """
        self._tiles = max(1, tiles)
        wide, high = self._tiles * TILE, TILE + _LINE
        fitting = max(1, min(strips, _MOST_PIXELS // (wide * high)))
        self._columns = max(1, round((fitting * high / wide) ** 0.5))
        rows = -(-fitting // self._columns)
        self.image = Image.new("RGB", (self._columns * wide, rows * high), "white")
        self._left, self._next = fitting, 0

    def add(self, name: str, images: Sequence[Image.Image]) -> None:
        """Fill in the next strip; do nothing if the sheet is full."""
        if self._next == self._left:
            return
        row, column = divmod(self._next, self._columns)
        left, top = column * self._tiles * TILE, row * (TILE + _LINE)
        self._next += 1
        for number, image in enumerate(images[: self._tiles]):
            tile = _on_chequers(image)
            across, down = (TILE - tile.width) // 2, (TILE - tile.height) // 2
            self.image.paste(tile, (left + number * TILE + across, top + _LINE + down))
        draw = ImageDraw.Draw(self.image)
        font = ImageFont.load_default(_TEXT)
        draw.text((left + _MARGIN, top + 2), _cut(name, draw, font, self._tiles * TILE), "black", font)


def _cut(
    name: str, draw: ImageDraw.ImageDraw, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int
) -> str:
    """As much of a name's end as fits."""
    name = name[-400:]
    while name and draw.textlength(name, font) > width - 2 * _MARGIN:
        name = "…" + name[2:]
    return name


def _on_chequers(image: Image.Image) -> Image.Image:
    """A tile's image, on the pattern that stands for transparency."""
    small = image.copy()
    small.thumbnail((TILE - 2 * _MARGIN, TILE - 2 * _MARGIN), Image.Resampling.LANCZOS)
    picture = small.convert("RGBA")
    rows, columns = np.indices((picture.height, picture.width)) // 8
    shade = np.where((rows + columns) % 2 == 0, 235, 205).astype(np.uint8)
    ground = Image.fromarray(np.repeat(shade[:, :, np.newaxis], 3, axis=2))
    ground.paste(picture, mask=picture)
    return ground
