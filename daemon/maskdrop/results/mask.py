"""Mask maths: from pixels and a label map to each kind of result. Pure."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdrop.parts import PALETTE, Colour, Part
from maskdrop.ticket import Region

Pixels = NDArray[np.uint8]

OVERLAY_SHARE = 0.5
"""How much of an overlay's colour is the label's; the rest is the picture's."""


def kept(labels: Pixels, wanted: Iterable[int]) -> NDArray[np.bool_]:
    """Where the label is one of the wanted ones.

    Args:
        labels: uint8 (height, width).
        wanted: label numbers to keep.

    Returns:
        bool (height, width).
    """
    table = np.zeros(256, dtype=np.bool_)
    table[[int(label) for label in wanted]] = True
    return table.take(labels)


def over_black(picture: Pixels, labels: Pixels, wanted: Iterable[int]) -> Image.Image:
    """The picture where its label is one of the wanted ones, black elsewhere.

    Args:
        picture: uint8 (height, width, 3).
        labels: uint8 (height, width).
        wanted: label numbers to keep.

    Returns:
        RGB, of the picture's size.
    """
    # Pillow blackens unwanted pixels in half the time that numpy takes to copy wanted ones.
    image = Image.fromarray(picture)
    image.paste(0, (0, 0, *image.size), _where(labels, set(range(256)) - {int(label) for label in wanted}))
    return image


def cut_out(picture: Pixels, labels: Pixels, wanted: Iterable[int]) -> Image.Image:
    """The same with an alpha channel, opaque where the picture is kept: RGBA.

    Transparent pixels are black, so that nothing masked away is in the file.
    """
    numbers = {int(label) for label in wanted}
    image = over_black(picture, labels, numbers)
    image.putalpha(_where(labels, numbers).convert("L"))
    return image


def _where(labels: Pixels, numbers: Collection[int]) -> Image.Image:
    """A one-bit image, 1 where the label is one of these, 0 elsewhere."""
    return Image.fromarray(labels).point([255 * (number in numbers) for number in range(256)], "1")


_BAND = 64
"""Rows mixed at a time: mixing takes eight times their memory, in floats."""


def overlay(picture: Pixels, labels: Pixels, palette: Sequence[Colour] = PALETTE) -> Pixels:
    """The picture tinted with each label's colour, background untouched.

    Args:
        picture: uint8 (height, width, 3), RGB.
        labels: uint8 (height, width).
        palette: a colour for each label.

    Returns:
        uint8 (height, width, 3), RGB.
    """
    colours = np.zeros((256, 3), dtype=np.float32)
    colours[: len(palette)] = palette
    mixed = np.empty_like(picture)
    for top in range(0, len(picture), _BAND):
        band = slice(top, top + _BAND)
        there = labels[band]
        share = np.where(there == Part.BACKGROUND, 0.0, OVERLAY_SHARE).astype(np.float32)[:, :, np.newaxis]
        mixed[band] = np.rint(picture[band] * (1 - share) + colours[there] * share)
    return mixed


def scale_labels(labels: Pixels, width: int, height: int) -> Pixels:
    """The label map at another size, by nearest neighbour: labels can't be mixed.

    Args:
        labels: uint8 (h, w).

    Returns:
        uint8 (height, width).
    """
    if labels.shape == (height, width):
        return labels
    scaled = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(scaled)


def joined(views: Sequence[Pixels], regions: Sequence[Region], width: int, height: int) -> Pixels:
    """One label map from the regions' own, background elsewhere. Where regions overlap, a part wins over
    background, and a later region over an earlier one.

    Args:
        views: the regions' label maps, uint8 (side, side) each.
        regions: one for each view, in pixels of the width x height that is wanted.

    Returns:
        uint8 (height, width).
    """
    whole = np.zeros((height, width), dtype=np.uint8)
    for view, region in zip(views, regions, strict=True):
        part = scale_labels(view, region.width, region.height)
        place = whole[region.top : region.bottom, region.left : region.right]
        np.copyto(place, part, where=part != 0)
    return whole


def at_scale(region: Region, across: float, down: float) -> Region:
    """The region in the picture scaled by ``across`` and ``down``; at least a pixel large."""
    left, top = int(region.left * across), int(region.top * down)
    right = max(left + 1, round(region.right * across))
    return Region(left, top, right, max(top + 1, round(region.bottom * down)))
