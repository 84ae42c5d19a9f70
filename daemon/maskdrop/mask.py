"""Mask maths: from pixels and a label map to each kind of result. Pure, on arrays."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdrop.parts import PALETTE, Colour, Part

Pixels = NDArray[np.uint8]

_PIXEL = np.dtype("V3")

OVERLAY_SHARE = 0.5
"""How much of an overlay's colour is the label's, the rest being the picture's."""


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


def over_black(picture: Pixels, keep: NDArray[np.bool_]) -> Pixels:
    """The picture where it is kept, black elsewhere.

    Args:
        picture: uint8 (height, width, 3).
        keep: bool (height, width).

    Returns:
        uint8 (height, width, 3).
    """
    # As items of three bytes, which are copied or not: ten times as quick as a product of each channel.
    whole = np.ascontiguousarray(picture).view(_PIXEL)[:, :, 0]
    masked = np.zeros_like(whole)
    np.copyto(masked, whole, where=keep)
    return masked.view(np.uint8).reshape(picture.shape)


def cut_out(picture: Pixels, keep: NDArray[np.bool_]) -> Pixels:
    """The picture with an alpha channel, opaque where it is kept: uint8 (height, width, 4).

    Colours under full transparency are black, so that nothing masked away is in the file.
    """
    alpha = keep.astype(np.uint8) * np.uint8(255)
    return np.dstack([over_black(picture, keep), alpha])


def overlay(picture: Pixels, labels: Pixels, palette: Sequence[Colour] = PALETTE) -> Pixels:
    """The picture tinted with each label's colour, background untouched: uint8 (height, width, 3)."""
    colours = np.zeros((256, 3), dtype=np.float32)
    colours[: len(palette)] = palette
    share = np.where(labels == Part.BACKGROUND, 0.0, OVERLAY_SHARE).astype(np.float32)[:, :, np.newaxis]
    mixed = picture * (1 - share) + colours[labels] * share
    return np.rint(mixed).astype(np.uint8)


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
