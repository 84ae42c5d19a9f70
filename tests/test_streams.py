"""Batches on a device of its own, which is kept at work: begun before the last one's labels are taken in."""

import multiprocessing
from collections import Counter
from pathlib import Path
from threading import Event, Thread
from time import sleep
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from counted import Operators
from late_device import LateDevice, LateStreams
from maskdrop.config import ModelSettings, Settings
from maskdrop.folders import prepare_folders
from maskdrop.inbox.lock import InboxLock
from maskdrop.infer import FirstLook, compute, label_all, serve
from maskdrop.model.certainty import summed, summed_later
from maskdrop.model.folded import most_scaled_up
from maskdrop.model.load import load_network
from maskdrop.model.parser import FaceParser, load_parser
from maskdrop.model.shape import InputShape
from maskdrop.model.streams import Streams, TakeIn
from maskdrop.ticket import Infer, Inferred, Ready, Report, Stage, Started, Stop
from maskdrop.topology.slots import OwnSlots, SharedSlots
from maskdrop.topology.worker import Link, Workplace
from waiting import PATIENCE_S, wait_for

SIDE = 256
_PINNED: list[SharedSlots] = []
"""What is pinned for a GPU stays, for as long as this process does."""

PARTS = [slice(0, 2), slice(2, 4), slice(4, 5)]


def telling(done: list[int], part: slice) -> TakeIn[int]:
    numbers = list(range(part.start, part.stop))
    done += numbers
    return lambda: numbers


def test_a_cpu_is_done_with_a_batch_when_it_has_begun() -> None:
    streams, done = Streams(torch.device("cpu"), torch.cpu), list[int]()
    queued = streams.begin(lambda part: telling(done, part), PARTS)
    assert done == [0, 1, 2, 3, 4]
    assert queued.unfinished == []
    assert queued.results() == done


def test_a_batch_is_begun_while_the_device_is_at_the_one_before() -> None:
    """The first ends when the second has; in one stream, or if it were waited for, that would be never."""
    streams, second_is_done = LateStreams(), Event()

    def first_of_all(part: slice) -> TakeIn[int]:
        assert second_is_done.wait(PATIENCE_S)
        return lambda: [1]

    first = streams.begin(first_of_all, [slice(0, 1)])
    assert first.unfinished == [0]
    assert streams.begin(lambda part: lambda: [2], [slice(0, 1)]).results() == [2]
    second_is_done.set()
    assert first.results() == [1]
    assert first.unfinished == []


def test_batches_take_turns_with_two_streams_and_each_stream_keeps_its_order() -> None:
    streams, may_begin, may_go_on, done = LateStreams(), Event(), Event(), list[int]()

    def ask(part: slice) -> TakeIn[int]:
        assert may_begin.wait(PATIENCE_S)
        assert part.start > 0 or may_go_on.wait(PATIENCE_S)
        return telling(done, part)

    queued = streams.begin(ask, PARTS)
    may_begin.set()
    wait_for(lambda: done == [2, 3], "the second part, in the other stream")
    assert queued.unfinished == [0, 1, 2, 3, 4]  # nobody has taken them in
    may_go_on.set()
    assert queued.results() == [0, 1, 2, 3, 4]
    assert done == [2, 3, 0, 1, 4]
    assert len(streams.late.streams) == 2


def test_what_fails_is_told_when_nothing_of_it_can_come_later() -> None:
    streams, may_go_on, done = LateStreams(), Event(), list[int]()

    def ask(part: slice) -> TakeIn[int]:
        if part.start == 0:
            assert may_go_on.wait(PATIENCE_S)
            raise MemoryError("for the first")
        return telling(done, part)

    queued = streams.begin(ask, PARTS)
    may_go_on.set()
    with pytest.raises(MemoryError, match="for the first"):
        queued.results()
    assert sorted(done) == [2, 3, 4]
    assert queued.unfinished == []


def test_who_waits_while_asking_is_done_when_it_has_begun() -> None:
    """Such as ONNX Runtime on a GPU: the labels' copies back are all that is left, and are waited for."""
    late, done = LateDevice(), list[int]()
    streams = Streams(torch.device("meta"), late, at_once=True)

    def ask(part: slice) -> TakeIn[int]:
        late.submit(lambda: sleep(0.2))  # not hope: so that it would be found unfinished
        return telling(done, part)

    queued = streams.begin(ask, PARTS)
    assert queued.unfinished == []
    assert queued.results() == [0, 1, 2, 3, 4]


def test_probabilities_are_summed_alike_where_a_gpu_is_not_to_be_waited_for() -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(64, 64, generator=generator)
    labels = torch.randint(0, 17, (64, 64), generator=generator)
    found, expected = (sums(probabilities, labels, 19) for sums in (summed_later, summed))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert found[:, 1].tolist() == [int((labels == index).sum()) for index in range(19)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("judge", [False, True])
def test_a_batch_on_a_gpu_is_asked_for_and_not_waited_for(tiny_weights: Path, judge: bool) -> None:
    settings = ModelSettings(weights=tiny_weights, input_size=SIDE, precision="fp32")
    parser, slots = load_parser(settings, "cuda:0"), SharedSlots(4, SIDE)
    parser.pin(slots.memory)
    _PINNED.append(slots)
    pictures, labels = list(slots.pictures), list(slots.labels)
    parser.begin(pictures, labels, lambda *_: None, judge=judge).results()  # all is loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        under_way = parser.begin(pictures, labels, lambda *_: None, judge=judge)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    under_way.results()


def test_what_cant_be_asked_for_ends_the_asking() -> None:
    streams, done = Streams(torch.device("cpu"), torch.cpu), list[int]()

    def ask(part: slice) -> TakeIn[int]:
        if part.start == 2:
            raise MemoryError("for the second")
        return telling(done, part)

    queued = streams.begin(ask, PARTS)
    with pytest.raises(MemoryError, match="for the second"):
        queued.results()
    assert done == [0, 1]


class Later(FaceParser):
    """A parser on a device that does everything later, and has no memory for more than so many pictures."""

    def __init__(self, weights: Path, most: int = 99) -> None:
        settings = ModelSettings(weights=weights, input_size=SIDE, precision="fp32")
        super().__init__(load_network(weights), settings, "cpu", "fp32")
        self._on_cpu = False  # batches are labelled as on a GPU
        self._streams = streams = LateStreams()
        self.most, self.may_begin, self.waited = most, Event(), streams.late.waited

    def _label(self, pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
        assert self.may_begin.wait(PATIENCE_S)
        if len(pixels) > self.most:
            raise torch.OutOfMemoryError("too many")
        return super()._label(pixels)


def workplace(base: Path, slots: SharedSlots, device: str = "cpu", max_batch: int = 1) -> Workplace:
    folders = {name: base / name for name in ("inbox", "outbox", "quarantine", "archive")}
    (base / "inbox").mkdir()
    workers, model = {"max_batch": max_batch, "max_wait_ms": 0}, {"input_size": SIDE}
    settings = Settings.model_validate({"folders": folders, "workers": workers, "model": model})
    place = prepare_folders(settings)
    return Workplace(Stage.INFER, "infer-0", settings, place, slots, InboxLock(-1), device=device)


class Inference:
    """An inference worker on such a device, but for the process: tasks go in, reports come out."""

    def __init__(self, parser: FaceParser, base: Path, pictures: int, max_batch: int) -> None:
        self.slots = SharedSlots(pictures, SIDE)
        noise = np.random.default_rng(1).integers(0, 256, self.slots.pictures.shape, np.uint8)
        self.slots.pictures[:], self.slots.labels[:] = noise, 255
        parser.pin(self.slots.memory)
        _PINNED.append(self.slots)
        theirs, self.tasks = multiprocessing.Pipe(duplex=False)
        self.reports, reports = multiprocessing.Pipe(duplex=False)
        for slot in range(pictures):
            self.tasks.send(Infer(100 + slot, slot, company=pictures))
        place = workplace(base, self.slots, max_batch=max_batch)
        self.link = Link(theirs, reports)  # open, even when the thread has ended
        arguments = (place, self.link, parser, FirstLook(place.settings))
        self.thread = Thread(target=label_all, args=arguments, daemon=True)
        self.thread.start()

    def told(self, count: int) -> list[Report]:
        """The next reports."""
        reports = []
        for _ in range(count):
            assert self.reports.poll(PATIENCE_S)
            reports.append(self.reports.recv())
        return reports

    def end(self) -> None:
        self.tasks.send(Stop())
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        assert not self.reports.poll(0)

    def check_labels(self, weights: Path) -> None:
        settings = ModelSettings(weights=weights, input_size=SIDE, precision="fp32")
        wanted = load_parser(settings, "cpu").parse(self.slots.pictures)
        assert float(np.mean(wanted == self.slots.labels)) > 0.999  # batches round otherwise than one picture


def test_an_inference_worker_keeps_its_device_at_work(tiny_weights: Path, tmp_path: Path) -> None:
    """Two batches are begun before the first one is done; the third when that is."""
    parser = Later(tiny_weights)
    worker = Inference(parser, tmp_path, pictures=8, max_batch=3)
    first, second, third = (100, 101, 102), (103, 104, 105), (106, 107)
    assert worker.told(2) == [Started(first), Started(first + second)]
    assert not worker.reports.poll(0)
    parser.may_begin.set()
    reports = worker.told(4)
    worker.end()
    assert [(type(report), report.numbers) for report in reports] == [  # type: ignore[union-attr]
        (Inferred, first),
        (Started, second + third),
        (Inferred, second),
        (Inferred, third),
    ]
    worker.check_labels(tiny_weights)


def test_every_worker_of_such_a_device_is_warm_before_it_is_ready(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that isn't asked what a picture costs, too; or the first pictures would wait for what is loaded."""
    parser, sizes = Later(tiny_weights), list[int]()
    label = parser._label

    def noting(pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
        sizes.append(len(pixels))
        return label(pixels)

    parser._label = noting  # type: ignore[method-assign]
    parser._shape = InputShape(most=3)
    parser.may_begin.set()
    monkeypatch.setattr("maskdrop.infer.load_parser", lambda *_, **__: parser)
    place = workplace(tmp_path, SharedSlots(1, SIDE), "cuda:0", max_batch=3)
    theirs, tasks = multiprocessing.Pipe(duplex=False)
    reports, ours = multiprocessing.Pipe(duplex=False)
    tasks.send(Stop())
    serve(place, Link(theirs, ours))
    (ready,) = [reports.recv() for _ in range(2) if reports.poll(0)]
    assert isinstance(ready, Ready)
    assert ready.cost is None
    assert sizes == [3, 3, 2, 2, 1, 1]  # each that it may be given, the largest first, in both streams


@pytest.mark.parametrize(
    ("most", "count", "given"), [(None, 5, 8), (6, 5, 6), (6, 1, 1), (1, 1, 1), (4, 4, 4)]
)
def test_a_device_that_plans_for_each_size_is_given_few_sizes(
    tiny_weights: Path, most: int | None, count: int, given: int
) -> None:
    parser, slots, sizes = Later(tiny_weights), SharedSlots(count, SIDE), list[int]()
    parser._shape = InputShape(most=most)
    parser.may_begin.set()
    parser._folded.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))  # type: ignore[union-attr]
    slots.pictures[:] = np.random.default_rng(2).integers(0, 256, slots.pictures.shape, np.uint8)
    parser.begin(list(slots.pictures), list(slots.labels), lambda *_: None).results()
    assert sizes == [given]
    settings = ModelSettings(weights=tiny_weights, input_size=SIDE, precision="fp32")
    wanted = load_parser(settings, "cpu").parse(slots.pictures)
    assert float(np.mean(wanted == slots.labels)) > 0.999  # batches round otherwise than one picture


def test_sizes_that_may_come_are_known(tiny_weights: Path) -> None:
    parser = Later(tiny_weights)
    assert parser.sizes_up_to(32) == [1, 2, 4, 8, 16, 32]
    parser._shape = InputShape(most=12)
    assert parser.sizes_up_to(32) == [1, 2, 4, 8, 12]
    for fixed in (InputShape(4, 4), InputShape(4, 4).limited(3), InputShape(4, 4).limited(1)):
        parser._shape = fixed
        assert parser.sizes_up_to(32) == [4]


def test_scores_that_a_gpu_scales_up_at_once_are_no_more_than_it_can_count() -> None:
    """19 classes at 512 x 512, and at the largest size that may be set."""
    assert most_scaled_up(19, 512) == 431
    assert most_scaled_up(19, 4096) == 6
    assert most_scaled_up(2**12, 2**12) == 1


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_a_device_is_waited_for_once_a_batch(tiny_weights: Path, tmp_path: Path, batches: int) -> None:
    """And once when streams are made, for what it was asked before."""
    parser = Later(tiny_weights)
    parser.may_begin.set()
    worker = Inference(parser, tmp_path, pictures=2 * batches, max_batch=2)
    worker.told(2 * batches)
    worker.end()
    assert parser.waited == Counter(device=1, event=batches)


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_goes_to_a_device_by_a_copy_a_picture_and_comes_back_by_another(
    tiny_weights: Path, count: int
) -> None:
    """The other five are there, of the border's four sides and of all the pixels inside it. Nor is it asked
    for anything whose answer Python needs to go on, and would wait for."""
    parser, slots = Later(tiny_weights), SharedSlots(count, SIDE)
    parser.may_begin.set()
    parser._streams = Streams(torch.device("cpu"), torch.cpu)  # which asks in this thread
    with Operators() as operators:
        parser.begin(list(slots.pictures), list(slots.labels), lambda *_: None).results()
    assert operators.counts["copy_"] == 5 + 2 * count
    assert not operators.counts.keys() & {"_local_scalar_dense", "nonzero", "bincount", "masked_select"}


def test_where_its_memory_ends_each_batch_is_done_in_parts(tiny_weights: Path, tmp_path: Path) -> None:
    parser = Later(tiny_weights, most=2)
    worker = Inference(parser, tmp_path, pictures=7, max_batch=4)
    parser.may_begin.set()
    done: list[int] = []
    while len(done) < 7:
        (report,) = worker.told(1)
        done += report.numbers if isinstance(report, Inferred) else ()
    worker.end()
    assert sorted(done) == list(range(100, 107))
    worker.check_labels(tiny_weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_slots_are_pinned_and_batches_on_a_gpu_have_their_labels(tiny_weights: Path, tmp_path: Path) -> None:
    settings = ModelSettings(weights=tiny_weights, input_size=SIDE, precision="fp32")
    parser = load_parser(settings, "cuda:0", max_batch=3)
    parser.probe()
    worker = Inference(parser, tmp_path, pictures=40, max_batch=3)
    assert torch.from_numpy(worker.slots.pictures[7]).is_pinned()
    assert torch.from_numpy(worker.slots.labels[39]).is_pinned()
    assert torch.from_numpy(parser.room(2, SIDE, SIDE)[1]).is_pinned()
    done: list[int] = []
    while len(done) < 40:
        (report,) = worker.told(1)
        done += report.numbers if isinstance(report, Inferred) else ()
    worker.end()
    worker.check_labels(tiny_weights)


def test_an_illegal_access_ends_the_worker(tiny_weights: Path) -> None:
    parser, places = Later(tiny_weights), np.zeros((1, SIDE, SIDE, 3), np.uint8)

    def fail(pixels: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    parser._label = fail  # type: ignore[method-assign]
    slots = OwnSlots(SIDE, places, np.zeros((1, SIDE, SIDE), np.uint8))
    reports: list[Report] = []
    with pytest.raises(RuntimeError, match="illegal memory access"):
        compute([Infer(7, 0)], parser, slots, SimpleNamespace(report=reports.append))
    assert reports == [Started((7,))]
