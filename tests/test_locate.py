"""The second look at small faces: where they are found, what is cut, and what comes out in the end."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from drawing import encode
from maskdrop.config import MODEL_SIDE, ModelSettings
from maskdrop.locate import deserves_second_look, find_faces, quantiles, regions_of
from maskdrop.model.known import known_labels, known_picture
from maskdrop.model.parser import load_parser
from maskdrop.parts import PART_NAMES, Part
from maskdrop.results.mask import at_scale, joined
from maskdrop.ticket import Region
from running import FULL, Daemon, Rooms

Start = Callable[..., Daemon]
Pixels = NDArray[np.uint8]

EMBEDDED = str(Path(__file__).parent.parent / "daemon/maskdrop/weights/faces.safetensors")
LOOKING = FULL.replace('locate = "off"', 'locate = "auto"')


def portrait(side: int) -> Image.Image:
    return Image.fromarray(known_picture(MODEL_SIDE)).resize((side, side), Image.Resampling.LANCZOS)


def wall(width: int, height: int) -> Image.Image:
    """A calm background: a grey that runs from dark to light."""
    ramp = np.linspace(90, 150, width, dtype=np.uint8)
    return Image.fromarray(np.repeat(np.tile(ramp, (height, 1))[:, :, None], 3, axis=2))


def placed(
    places: list[tuple[int, int, int]], width: int, height: int
) -> tuple[Image.Image, list[tuple[int, int, int]]]:
    """The known portrait at places (left, top, side) on a wall."""
    picture = wall(width, height)
    for left, top, side in places:
        picture.paste(portrait(side), (left, top))
    return picture, places


def label_map(places: list[tuple[int, int, int]], width: int, height: int) -> Pixels:
    """The known labels at those places."""
    labels = np.zeros((height, width), dtype=np.uint8)
    for left, top, side in places:
        labels[top : top + side, left : left + side] = known_labels(side)
    return labels


# Finding.


def test_a_portrait_is_one_face_of_its_own_size() -> None:
    (face,) = find_faces(known_labels(512), PART_NAMES)
    assert 0.75 < face.side < 1.25
    assert abs(face.x - 0.5) < 0.1
    assert not deserves_second_look([face], always=False)


@pytest.mark.parametrize("side", [60, 100, 150, 200])
def test_a_small_face_is_found_and_its_region_is_its_portrait(side: int) -> None:
    labels = label_map([(300, 250, side)], 512, 512)
    faces = find_faces(labels, PART_NAMES)
    assert len(faces) == 1
    assert deserves_second_look(faces, always=False)
    (region,) = regions_of(faces, 1024, 1024, 6)
    left, top, right, bottom = (2 * n for n in (300, 250, 300 + side, 250 + side))
    overlap = max(0, min(right, region.right) - max(left, region.left)) * max(
        0, min(bottom, region.bottom) - max(top, region.top)
    )
    union = (right - left) * (bottom - top) + region.width * region.height - overlap
    assert overlap / union > 0.6
    assert abs(region.width - region.height) <= 1


def test_several_faces_the_largest_first_and_no_more_than_wanted() -> None:
    places = [(10, 10, 100), (200, 30, 160), (380, 300, 120), (20, 300, 80)]
    faces = find_faces(label_map(places, 512, 512), PART_NAMES)
    assert len(faces) == 4
    assert [face.side for face in faces] == sorted((face.side for face in faces), reverse=True)
    regions = regions_of(faces, 512, 512, 2)
    assert len(regions) == 2
    assert regions[0].width >= regions[1].width


def test_skin_alone_and_specks_are_no_faces() -> None:
    labels = np.zeros((512, 512), dtype=np.uint8)
    labels[100:300, 100:300] = Part.SKIN
    assert find_faces(labels, PART_NAMES) == []
    labels[150:200, 150:200] = Part.NOSE  # one part is no face either
    assert find_faces(labels, PART_NAMES) == []
    labels[400:403, 400:403] = Part.NOSE
    labels[403, 400] = Part.UPPER_LIP
    assert find_faces(labels, PART_NAMES) == []


@given(
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(60, 112)), min_size=1, max_size=3
    ),
)
def test_regions_lie_in_the_picture(width: int, height: int, places: list[tuple[int, int, int]]) -> None:
    faces = find_faces(label_map(places, 512, 512), PART_NAMES)
    for region in regions_of(faces, width, height, 6):
        assert 0 <= region.left < region.right <= width
        assert 0 <= region.top < region.bottom <= height
        for across, down in ((0.1, 0.1), (512 / width, 512 / height)):
            scaled = at_scale(region, across, down)
            assert scaled.width >= 1
            assert scaled.height >= 1


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=40).filter(any),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_quantiles_of_counts_are_those_of_the_numbers(counts: list[int], shares: list[float]) -> None:
    numbers = np.repeat(np.arange(len(counts)), counts)
    found = quantiles(np.array(counts), tuple(shares))
    np.testing.assert_allclose(found, np.quantile(numbers, shares), rtol=0, atol=1e-9)


def test_joined_views_against_a_plain_reference() -> None:
    chance = np.random.default_rng(4)
    views = [chance.integers(0, 3, (16, 16), dtype=np.uint8) for _ in range(2)]
    regions = [Region(2, 3, 18, 19), Region(10, 8, 26, 24)]
    whole = joined(views, regions, 30, 28)
    for y in range(28):
        for x in range(30):
            wanted = 0
            for view, region in zip(views, regions, strict=True):
                if region.left <= x < region.right and region.top <= y < region.bottom:
                    wanted = int(view[y - region.top, x - region.left]) or wanted
            assert whole[y, x] == wanted


# Through the daemon, with the embedded weights.


def likeness(labels: Pixels, places: list[tuple[int, int, int]]) -> float:
    """Mean IoU of skin, nose and lips over the places, against the known labels."""
    wanted = label_map(places, labels.shape[1], labels.shape[0])
    parts = [[Part.SKIN], [Part.NOSE], [Part.UPPER_LIP, Part.LOWER_LIP]]
    scores = []
    for part in parts:
        found, known = np.isin(labels, part), np.isin(wanted, part)
        scores.append((found & known).sum() / (found | known).sum())
    return float(np.mean(scores))


def test_a_small_face_and_a_group_come_out_as_portraits_do(start: Start, rooms: Rooms) -> None:
    alone, alone_at = placed([(800, 420, 420)], 1600, 1200)
    group, group_at = placed([(60, 150, 420), (560, 180, 400), (1060, 140, 440)], 1600, 700)
    big, _ = placed([(0, 0, 900)], 900, 900)
    settings = LOOKING + "[save]\noutputs = ['labels', 'model']\nformat = 'png'\n"
    daemon = start("--weights", EMBEDDED, settings=settings).wait_ready()
    for name, picture in (("alone", alone), ("group", group), ("big", big)):
        rooms.drop(f"{name}.png", encode(picture, "PNG"))
    daemon.wait_count("saved", 3)
    assert daemon.stop() == 0
    lines = {
        name: line
        for line in daemon.log.splitlines()
        for name in ("alone", "group", "big")
        if f"saved {name}" in line
    }
    assert "infer again" in lines["alone"]
    assert "infer again" in lines["group"]
    assert "infer again" not in lines["big"], "a portrait costs no second look"
    for name, places in (("alone", alone_at), ("group", group_at)):
        with Image.open(rooms.outbox / f"{name}.labels.png") as image:
            labels = np.asarray(image)
        assert likeness(labels, places) > 0.7
        outside = label_map(places, labels.shape[1], labels.shape[0]) == 0
        assert (labels[outside] == 0).mean() > 0.9
        with Image.open(rooms.outbox / f"{name}.model.png") as image:
            assert image.size == (512, 512)
            assert 0 < (np.asarray(image).max(axis=2) > 0).mean() < 0.5


def test_the_second_look_sees_more(start: Start, rooms: Rooms) -> None:
    picture, places = placed([(500, 350, 300)], 1200, 900)
    scores = {}
    for mode in ("off", "auto"):
        settings = FULL.replace('locate = "off"', f'locate = "{mode}"') + "[save]\noutputs = ['labels']\n"
        daemon = start("--weights", EMBEDDED, settings=settings).wait_ready()
        rooms.drop(f"{mode}.png", encode(picture, "PNG"))
        daemon.wait_count("saved", 1)
        assert daemon.stop() == 0
        with Image.open(rooms.outbox / f"{mode}.labels.png") as image:
            scores[mode] = likeness(np.asarray(image), places)
    assert scores["auto"] > scores["off"] + 0.05


def test_on_looks_again_at_whatever_does_not_fill_the_picture(start: Start, rooms: Rooms) -> None:
    picture, _ = placed([(60, 60, 400)], 500, 500)
    settings = FULL.replace('locate = "off"', 'locate = "on"')
    daemon = start("--weights", EMBEDDED, settings=settings).wait_ready()
    rooms.drop("a.png", encode(picture, "PNG"))
    rooms.drop("empty.png", encode(wall(300, 300), "PNG"))
    daemon.wait_count("saved", 2)
    assert daemon.stop() == 0
    assert "infer again" in next(line for line in daemon.log.splitlines() if "saved a.png" in line)
    assert "infer again" not in next(line for line in daemon.log.splitlines() if "saved empty.png" in line)


def test_views_are_labelled_like_whole_pictures() -> None:
    """The same pixels give the same labels, whether they are a picture or a view, and in any batch."""
    from maskdrop.infer import Batch
    from maskdrop.ticket import Infer
    from maskdrop.topology.slots import SharedSlots

    parser = load_parser(ModelSettings(precision="fp32"), "cpu", max_batch=2)
    slots = SharedSlots(2, 512, 2)
    picture = known_picture(512)
    slots.pictures[0] = slots.view_pictures[1, 0] = picture
    slots.view_pictures[1, 1] = picture[:, ::-1]
    Batch([Infer(1, 0), Infer(2, 1, 2)], parser, slots).labelled()
    assert (slots.view_labels[1, 0] == slots.labels[0]).mean() > 0.999
    assert (slots.view_labels[1, 1] != slots.labels[0]).mean() > 0.01
    assert not slots.labels[1].any()
