"""Pictures side by side on a CPU's cores, and batches that follow each other there without a gap."""

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Timer
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from maskdrop.config import ModelSettings, Settings
from maskdrop.infer import Batch, FirstLook, label_all
from maskdrop.model.lanes import InLanes, Lanes
from maskdrop.model.load import load_network
from maskdrop.model.parser import FaceParser, Pixels, load_parser
from maskdrop.model.quantised import can_quantise
from maskdrop.model.under_way import UnderWay
from maskdrop.ticket import Infer, Inferred, Report, Started, Stop, Task
from maskdrop.topology.slots import OwnSlots
from waiting import PATIENCE_S
from weights_for_tests import EMBEDDED

INT8 = pytest.param(
    "int8", marks=pytest.mark.skipif(not can_quantise(), reason="no whole numbers of 8 bits here")
)


@pytest.mark.parametrize("precision", ["fp32", "bf16", INT8])
@pytest.mark.parametrize(("count", "threads"), [(1, 2), (3, 2), (2, 5), (9, 4), (6, 1)])
def test_a_pictures_labels_are_the_same_in_whatever_batch_and_lane(
    tiny_weights: Path, count: int, threads: int, precision: Literal["fp32", "bf16", "int8"]
) -> None:
    pictures = np.random.default_rng(count).integers(0, 256, (count, 512, 512, 3), dtype=np.uint8)
    weights = EMBEDDED if precision == "int8" else tiny_weights  # random ones are too noisy for whole numbers
    wanted = ModelSettings(weights=weights, precision=precision)
    one_by_one, together = load_parser(wanted, "cpu"), load_parser(wanted, "cpu", threads)
    labels = together.parse(pictures)
    judged = np.empty_like(labels)
    together.begin(list(pictures), list(judged), lambda *_: None, judge=True).results()
    for index in range(count):
        np.testing.assert_array_equal(labels[index], one_by_one.parse(pictures[index : index + 1])[0])
    np.testing.assert_array_equal(judged, labels)


def test_a_lane_that_is_done_takes_the_next_picture() -> None:
    done: list[int] = []
    all_others = Event()

    def label(picture: int) -> int:
        if picture == 0:
            assert all_others.wait(PATIENCE_S)  # the other lane does all the rest meanwhile
        done.append(picture)
        if len(done) == 7:
            all_others.set()
        return picture

    assert Lanes(2).begin(label, range(8)).results() == list(range(8))
    assert done[-1] == 0


@pytest.mark.parametrize(
    ("threads", "count", "company", "each"),
    [
        (1, 1, 1, 4),
        (1, 1, 2, 2),
        (1, 1, 9, 1),
        (1, 3, 1, 4),
        (1, 3, 8, 1),
        (2, 1, 1, 4),
        (2, 2, 9, 1),
        (2, 9, 1, 2),
    ],
)
def test_a_picture_that_is_the_only_one_has_the_threads_of_other_workers_too(
    threads: int, count: int, company: int, each: int
) -> None:
    def label(picture: int) -> int:
        return torch.get_num_threads()

    before = torch.get_num_threads()
    assert Lanes(threads, 4).begin(label, range(count), company).results() == [each] * count
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("count", "company", "each"), [(1, 2, 2), (1, 9, 1), (2, 2, 2), (2, 3, 1), (4, 1, 1)]
)
def test_threads_are_shared_with_the_pictures_of_other_stages(count: int, company: int, each: int) -> None:
    def label(picture: int) -> int:
        return torch.get_num_threads()

    assert Lanes(4).begin(label, range(count), company).results() == [each] * count


def test_a_lane_that_fails_is_told_when_all_have_ended() -> None:
    ended = []

    def label(picture: int) -> None:
        if picture == 0:
            raise MemoryError("for the first")
        time.sleep(0.2)  # not hope: so that the first would be told before
        ended.append(picture)

    with pytest.raises(MemoryError, match="for the first"):
        Lanes(3).begin(label, range(3)).results()
    assert sorted(ended) == [1, 2]


def test_a_batch_begins_while_lanes_are_at_the_last_pictures_of_the_one_before() -> None:
    """The first of the first batch ends when the second batch has: without room for that, never."""
    lanes, second_is_done = Lanes(2), Event()

    def label(picture: int) -> int:
        assert picture > 0 or second_is_done.wait(PATIENCE_S)
        return picture

    first = lanes.begin(label, range(4))
    lanes.wait_for_room()
    assert first.unfinished == [0]
    assert lanes.begin(label, range(4, 6)).results() == [4, 5]
    second_is_done.set()
    assert first.results() == [0, 1, 2, 3]
    lanes.wait_for_rest()
    assert first.unfinished == []


def test_two_pictures_that_share_four_threads_leave_no_room() -> None:
    lanes, may_end = Lanes(4), Event()
    under_way = lanes.begin(lambda _: may_end.wait(PATIENCE_S), range(2), company=2)
    Timer(0.2, may_end.set).start()  # not hope: so that room would be found before
    lanes.wait_for_room()
    assert may_end.is_set()
    assert under_way.results() == [True, True]


def test_two_pictures_of_one_thread_each_leave_room_for_others() -> None:
    lanes, may_end = Lanes(4), Event()
    under_way = lanes.begin(lambda _: may_end.wait(PATIENCE_S), range(2), company=4)
    lanes.wait_for_room()
    may_end.set()
    assert under_way.results() == [True, True]


class LooksFor(FirstLook):
    """One that doesn't end until it is told to, at the picture with these labels."""

    def __init__(self, labels: Pixels) -> None:
        super().__init__(Settings.model_validate({"folders": {"inbox": "/i", "outbox": "/o"}}))
        self._labels, self.may_end = labels, Event()

    def finds_small(self, labels: Pixels) -> bool:
        return np.array_equal(labels, self._labels) and self.may_end.wait(PATIENCE_S)


class Told:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def report(self, report: Report, /) -> None:
        self.reports.append(report)


def places_of(count: int, side: int) -> OwnSlots:
    pictures = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return OwnSlots(side, pictures, np.empty((count, side, side), np.uint8))


def test_a_later_batch_may_be_done_first_and_each_has_its_own_labels(tiny_weights: Path) -> None:
    parser = load_parser(ModelSettings(weights=tiny_weights, input_size=256), "cpu", threads=2)
    places = places_of(5, 256)
    expected = parser.parse(places.pictures)
    look, told = LooksFor(expected[0]), Told()
    tasks = [Infer(10 + slot, slot, company=5) for slot in range(5)]
    first = Batch(tasks[:3], parser, places, look)
    parser.wait_for_room()
    assert (first.unfinished, first.is_done) == ((10,), False)
    second = Batch(tasks[3:], parser, places, look)
    second.finish(told)
    assert first.unfinished == (10,)
    look.may_end.set()
    first.finish(told)
    assert [(type(report), report.numbers) for report in told.reports] == [  # type: ignore[union-attr]
        (Inferred, (13, 14)),
        (Inferred, (10, 11, 12)),
    ]
    assert isinstance(told.reports[1], Inferred)
    assert told.reports[1].small == (10,)
    assert first.is_done
    np.testing.assert_array_equal(places.labels, expected)


class Wanting(FaceParser):
    """A parser whose device has no memory for batches of several pictures, nor for one beside them."""

    begun: tuple[InLanes[Any], ...] = ()

    def begin(self, pictures: Sequence[Pixels], *args: Any, **kwargs: Any) -> UnderWay[Any]:
        def fail(_: int) -> Any:
            time.sleep(0.2)  # not hope: so that it is at work when the batch before has failed
            raise MemoryError

        if len(pictures) == 1:
            assert not any(batch.unfinished for batch in self.begun)
            return super().begin(pictures, *args, **kwargs)
        self.begun += (self._lanes.begin(fail, range(len(pictures))),)
        return self.begun[-1]


def test_where_memory_ends_the_next_batch_is_waited_for_and_both_are_done_in_halves(
    tiny_weights: Path,
) -> None:
    settings = ModelSettings(weights=tiny_weights, input_size=256, precision="fp32")
    parser = Wanting(load_network(tiny_weights), settings, "cpu", "fp32", threads=2)
    places, told = places_of(4, 256), Told()
    tasks = [Infer(10 + slot, slot, company=4) for slot in range(4)]
    first, second = Batch(tasks[:2], parser, places), Batch(tasks[2:], parser, places)
    first.finish(told)
    second.finish(told)
    kinds = [(type(report), report.numbers) for report in told.reports]  # type: ignore[union-attr]
    assert kinds == [(kind, (number,)) for number in range(10, 14) for kind in (Started, Inferred)]
    single = load_parser(settings, "cpu")
    np.testing.assert_array_equal(places.labels, single.parse(places.pictures))


class Fed:
    """A link to nobody, with tasks that wait; lets the first picture end once the second batch has begun."""

    def __init__(self, tasks: list[Task], look: LooksFor) -> None:
        self._tasks, self._look = tasks, look
        self.started: list[tuple[int, ...]] = []

    def waiting(self, seconds: float) -> bool:
        return len(self._tasks) > 1

    def receive(self) -> Task:
        return self._tasks.pop(0)

    def report(self, report: Report) -> None:
        if isinstance(report, Started):
            self.started.append(tuple(report.numbers))
            if len(self.started) == 2:
                self._look.may_end.set()


def test_what_is_unfinished_of_the_batch_before_is_told_with_the_next(tiny_weights: Path) -> None:
    """Or a picture of the next one would be held to be alone, and at fault."""
    parser = load_parser(ModelSettings(weights=tiny_weights, input_size=256), "cpu", threads=2)
    slots = places_of(4, 256)
    look = LooksFor(parser.parse(slots.pictures[:1])[0])  # the first isn't done until it may be
    link = Fed([*(Infer(10 + slot, slot, company=4) for slot in range(4)), Stop()], look)
    folders = {"inbox": "/i", "outbox": "/o"}
    settings = Settings.model_validate({"folders": folders, "workers": {"max_batch": 2, "max_wait_ms": 0}})
    workplace: Any = SimpleNamespace(settings=settings, slots=slots)
    label_all(workplace, link, parser, look)  # type: ignore[arg-type]
    first, second = link.started
    assert (first, second[0], second[-2:]) == ((10, 11), 10, (12, 13))
