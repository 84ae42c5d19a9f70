"""Mask maths against plain loops over pixels."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from maskdrop.parts import ARTICLE_PARTS, MIRROR_PAIRS, PALETTE, Part, palette_of
from maskdrop.results.mask import OVERLAY_SHARE, cut_out, kept, over_black, overlay, scale_labels

Pixels = NDArray[np.uint8]

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7))
PARTS = st.sets(st.sampled_from(list(Part)), min_size=1)


@st.composite
def pictures_with_labels(draw: st.DrawFn) -> tuple[Pixels, Pixels]:
    height, width = draw(SIZES)
    picture = draw(arrays.arrays(np.uint8, (height, width, 3)))
    labels = draw(arrays.arrays(np.uint8, (height, width), elements=st.integers(0, 18)))
    return picture, labels


@given(pictures_with_labels(), PARTS)
def test_kept_parts_over_black_and_cut_out(pair: tuple[Pixels, Pixels], parts: set[Part]) -> None:
    picture, labels = pair
    keep = kept(labels, parts)
    face = np.asarray(over_black(picture, labels, parts))
    transparent = np.asarray(cut_out(picture, labels, parts))
    assert face.dtype == transparent.dtype == np.uint8
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            wanted = int(labels[y, x]) in {int(part) for part in parts}
            colour = [int(c) for c in picture[y, x]] if wanted else [0, 0, 0]
            assert keep[y, x] == wanted
            assert face[y, x].tolist() == colour
            assert transparent[y, x].tolist() == [*colour, 255 if wanted else 0]


@given(pictures_with_labels())
def test_overlay(pair: tuple[Pixels, Pixels]) -> None:
    picture, labels = pair
    mixed = overlay(picture, labels)
    assert mixed.dtype == np.uint8
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            for channel in range(3):
                before, tint = int(picture[y, x, channel]), PALETTE[labels[y, x]][channel]
                share = 0.0 if labels[y, x] == Part.BACKGROUND else OVERLAY_SHARE
                assert abs(int(mixed[y, x, channel]) - (before * (1 - share) + tint * share)) <= 0.5


def nearest(index: int, old: int, new: int) -> set[int]:
    """Old positions nearest to a new one; two where its middle falls between them exactly."""
    whole, rest = divmod((2 * index + 1) * old, 2 * new)
    return {whole, whole - 1} if rest == 0 and whole else {whole}


@given(arrays.arrays(np.uint8, SIZES, elements=st.integers(0, 18)), st.integers(1, 20), st.integers(1, 20))
def test_scaled_labels_are_the_nearest_ones(labels: Pixels, width: int, height: int) -> None:
    scaled = scale_labels(labels, width, height)
    assert scaled.shape == (height, width)
    for y in range(height):
        for x in range(width):
            rows, columns = nearest(y, labels.shape[0], height), nearest(x, labels.shape[1], width)
            assert scaled[y, x] in {labels[row, column] for row in rows for column in columns}


def test_an_overlay_is_the_same_in_every_row() -> None:
    """It is made in bands of some rows, the last of which is shorter."""
    random = np.random.default_rng(1)
    picture = random.integers(0, 256, (150, 3, 3), np.uint8)
    labels = random.integers(0, 19, (150, 3), np.uint8)
    whole = overlay(picture, labels)
    for row in range(150):
        assert np.array_equal(overlay(picture[row : row + 1], labels[row : row + 1])[0], whole[row])


def test_parts_are_numbered_named_and_coloured_apart() -> None:
    assert [int(part) for part in Part] == list(range(19))
    assert len({part.label for part in Part}) == len(set(PALETTE)) == len(PALETTE) == 19
    assert ARTICLE_PARTS == ("skin", "left_brow", "right_brow", "nose", "upper_lip", "lower_lip")
    for left, right in MIRROR_PAIRS:
        assert left.label.replace("left", "right") == right.label


def test_a_colour_for_each_class_of_any_network() -> None:
    assert palette_of(19) == PALETTE
    voc = palette_of(21)
    # The first and some later colours as PASCAL VOC's label pictures show them.
    assert voc[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert (voc[15], voc[20]) == ((192, 128, 128), (0, 64, 128))
    assert len(set(palette_of(256))) == 256
