"""Where faces are in a label map, and which part of the picture to look at again. Pure, on arrays.

The network knows aligned portraits. Where faces are small, its first labels are coarse, but
good enough to show where the faces are; the second look is at a part of the picture that shows
each face as a portrait does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from maskdrop.parts import CORE_PARTS, FACE_PARTS
from maskdrop.ticket import Region

Pixels = NDArray[np.uint8]

PORTRAIT_CORE_HEIGHT, PORTRAIT_CORE_WIDTH = 0.364, 0.300
"""Extent of the core in an aligned portrait, as a share of its side: median height, and a width
that most stay below. Measured on every fourth training face, 5 % to 95 % of the core's pixels."""

PORTRAIT_CORE_BELOW = 0.088
"""How far the core's middle lies below a portrait's, as a share of its side; measured likewise."""

SMALL = 0.6
"""A face whose portrait would fill less than this share of the picture is small."""

FILLS = 0.9
"""A portrait that fills more than this share of the picture counts as the whole picture."""

_LEAST_SHARE = 1e-4
"""Fewer core pixels than this share of all are no face: 5 x 5 pixels of 512 x 512."""

_LEAST_OF_CORE = (
    (("left_brow", "right_brow", "left_eye", "right_eye"), 0.04),
    (("nose",), 0.08),
    (("mouth", "upper_lip", "lower_lip"), 0.04),
)
"""The least share of a face's core that each group of parts has: cloth that passes for skin in the
first labels has spots of some parts, but hardly of all. 241 of 243 training faces have them all."""

_TRIMMED = (0.05, 0.95)

_NEIGHBOURS = np.ones((3, 3), dtype=np.int64)
"""Pixels that touch at a corner belong together."""


@dataclass(frozen=True)
class Face:
    """A face in a label map: middle and extent of its core, as shares of width and height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def side(self) -> float:
        """How much of the picture the face's portrait would fill, in a square picture."""
        return max(self.height / PORTRAIT_CORE_HEIGHT, self.width / PORTRAIT_CORE_WIDTH)


def face_boxes(labels: Pixels, classes: Sequence[str]) -> list[Region]:
    """The smallest rectangle around each face, skin and all, in a label map's pixels; the largest first.

    Args:
        labels: uint8 (height, width).
        classes: names of the labels.
    """
    found = _pieces(labels, classes)
    boxes = [Region(across.start, down.start, across.stop, down.stop) for down, across, _ in found]
    return sorted(boxes, key=lambda box: -box.width * box.height)


def find_faces(labels: Pixels, classes: Sequence[str]) -> list[Face]:
    """Faces in a label map, the largest first.

    Args:
        labels: uint8 (height, width).
        classes: names of the labels.
    """
    faces = []
    for down, across, inside in _pieces(labels, classes):
        top, bottom = (quantiles(inside.sum(axis=1), _TRIMMED) + down.start + (0, 1)) / labels.shape[0]
        left, right = (quantiles(inside.sum(axis=0), _TRIMMED) + across.start + (0, 1)) / labels.shape[1]
        faces.append(Face((left + right) / 2, (top + bottom) / 2, right - left, bottom - top))
    return sorted(faces, key=lambda face: -face.side)


def _pieces(labels: Pixels, classes: Sequence[str]) -> Iterator[tuple[slice, slice, NDArray[np.bool_]]]:
    """Each connected piece of face parts that is a face: rows and columns of the smallest rectangle around
    it, and which of the rectangle's pixels are the face's core.
    """
    from scipy import ndimage  # here: most workers never need it, and it takes as long as all other imports

    core = _table(classes, CORE_PARTS)[labels]
    pieces, _ = ndimage.label(_table(classes, FACE_PARTS)[labels], structure=_NEIGHBOURS)
    sizes = np.bincount(pieces[core])  # by number; most are specks
    windows = ndimage.find_objects(pieces)
    for number in np.flatnonzero(sizes >= _LEAST_SHARE * labels.size):
        window = windows[number - 1]
        inside = (pieces[window] == number) & core[window]
        if _is_face(np.bincount(labels[window][inside], minlength=256), classes):
            yield *window, inside


def _is_face(counts: NDArray[np.int64], classes: Sequence[str]) -> bool:
    """Whether core pixels, counted by label, are those of a face."""
    for names, least in _LEAST_OF_CORE:
        if counts[_table(classes, names)].sum() < least * counts.sum():
            return False
    return True


def quantiles(counts: NDArray[np.int64], shares: tuple[float, ...]) -> NDArray[np.float64]:
    """`numpy.quantile` of the numbers 0, 1, …, each occurring ``counts`` times, and at least one of them."""
    ends = counts.cumsum()
    position = np.array(shares) * (ends[-1] - 1)
    before = np.floor(position)
    low = np.searchsorted(ends, before, side="right")
    high = np.searchsorted(ends, np.minimum(before + 1, ends[-1] - 1), side="right")
    between: NDArray[np.float64] = low + (high - low) * (position - before)
    return between


def deserves_second_look(faces: Sequence[Face], always: bool) -> bool:
    """Whether a picture with these faces is looked at again: if the largest is small or, with ``always``,
    unless it fills the picture.
    """
    return bool(faces) and faces[0].side < (FILLS if always else SMALL)


def regions_of(faces: Sequence[Face], width: int, height: int, most: int) -> tuple[Region, ...]:
    """The portrait of each of the largest faces.

    Args:
        width, height: of the upright picture, in pixels.
    """
    return tuple(_region_of(face, width, height) for face in faces[:most])


def _region_of(face: Face, width: int, height: int) -> Region:
    tall, wide = face.height * height / PORTRAIT_CORE_HEIGHT, face.width * width / PORTRAIT_CORE_WIDTH
    side = max(2.0, tall, wide)
    left, right = _fit(face.x * width, side, width)
    top, bottom = _fit(face.y * height - PORTRAIT_CORE_BELOW * side, side, height)
    return Region(left, top, right, bottom)


def _fit(middle: float, side: float, limit: int) -> tuple[int, int]:
    """A span of ``side`` pixels around a middle, shifted into the picture, or all of the picture."""
    length = min(limit, max(1, round(side)))
    start = min(max(0, round(middle - length / 2)), limit - length)
    return start, start + length


def _table(classes: Sequence[str], names: Sequence[str]) -> NDArray[np.bool_]:
    return _table_of(tuple(classes), tuple(names))


@lru_cache(maxsize=16)
def _table_of(classes: tuple[str, ...], names: tuple[str, ...]) -> NDArray[np.bool_]:
    """Whether each label is one of these names'."""
    table = np.zeros(256, dtype=np.bool_)
    table[[label for label, name in enumerate(classes) if name in names]] = True
    table.setflags(write=False)  # shared by all callers
    return table
