"""Second stage: from pixels to labels, in batches as large as the moment offers."""

import logging
import time
import warnings
from typing import Protocol

import numpy as np
import torch

from maskdrop.config import Settings
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.locate import deserves_second_look, find_faces
from maskdrop.model.errors import WeightsError
from maskdrop.model.memory import free_memory, is_want_of_memory
from maskdrop.model.parser import Certainty, FaceParser, Pixels, load_parser
from maskdrop.rehearsal import Rehearsal
from maskdrop.results.sidecar import judged
from maskdrop.ticket import Infer, Inferred, Judged, Ready, Report, Started, Stop, Unfit, cut
from maskdrop.topology.slots import Slots
from maskdrop.topology.worker import Link, Workplace

logger = logging.getLogger("maskdrop")


class Listener(Protocol):
    """Takes reports of how far a batch is."""

    def report(self, report: Report, /) -> None: ...


def serve(workplace: Workplace, link: Link) -> None:
    """Label pictures until told to stop.

    Raises:
        MemoryError: the device has no memory left for the network.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(workplace.most_threads)  # so that weights are laid out for that many, too
    settings = workplace.settings
    max_batch = int(settings.workers.max_batch)
    try:
        threads = (workplace.threads, workplace.most_threads)
        parser = load_parser(settings.model, workplace.device, *threads, max_batch=max_batch)
        parser.probe()
    except WeightsError as error:
        link.report(Unfit(cut(error)))
        return
    except RuntimeError as error:
        if not is_want_of_memory(error):
            raise
        raise MemoryError(f"the network finds none on {workplace.device}: {error}") from error
    parser.pin(workplace.slots.memory)
    torch.set_num_threads(workplace.threads)
    look = FirstLook(settings)
    look.finds_small(workplace.slots.labels[0])  # so that no picture waits for its imports
    info = parser.info
    rehearsal = Rehearsal(parser, settings.model.input_size, look.finds_small, _judges(settings))
    if workplace.device != "cpu":
        rehearsal.warm_up(max_batch)
    cost = rehearsal.measure(workplace.threads, max_batch) if workplace.measures else None
    link.report(Ready(info.device, f"{info.weights} sha256:{info.sha256[:12]}", info.precision, cost))
    label_all(workplace, link, parser, look)


def label_all(workplace: Workplace, link: Link, parser: FaceParser, look: "FirstLook") -> None:
    """Label pictures as they come. While some of a CPU's cores are at the last pictures of a batch, the
    others begin with the next; no more than two batches are ever under way."""
    settings = workplace.settings
    max_batch, max_wait = int(settings.workers.max_batch), settings.workers.max_wait_ms / 1000
    judge = _judges(settings)
    last: Batch | None = None
    while True:
        if last is not None and (last.is_done or not link.waiting(0)):
            last.finish(link)
            last = None
        tasks = gather(link, max_batch, 0 if last else max_wait)
        if not tasks:
            return
        unfinished = last.unfinished if last else ()
        link.report(Started((*unfinished, *(task.number for task in tasks))))
        batch = Batch(tasks, parser, workplace.slots, look, judge)
        if last is not None:
            last.finish(link)
        parser.wait_for_room()
        last = batch


def _judges(settings: Settings) -> bool:
    """Whether any output says how sure the network is."""
    return settings.save.wants_certainty


def gather(link: Link, max_batch: int, max_wait: float) -> list[Infer]:
    """The next batch: waits for a first task, then ``max_wait`` seconds at most for more.

    Returns:
        1 to ``max_batch`` tasks, or none when there is nothing more to do.
    """
    batch: list[Infer] = []
    deadline = 0.0
    while len(batch) < max_batch:
        if batch and not link.waiting(max(0.0, deadline - time.monotonic())):
            break
        task = link.receive()
        if not isinstance(task, Infer):
            assert task is None or isinstance(task, Stop), task
            return []  # Stop comes only when nothing is in hand; None: the supervisor is gone
        if not batch:
            deadline = time.monotonic() + max_wait
        batch.append(task)
    return batch


class FirstLook:
    """Tells from a picture's first labels whether its faces are so small that they deserve a second look."""

    def __init__(self, settings: Settings) -> None:
        self._classes = settings.model.classes
        self._wanted = settings.views > 0
        self._always = settings.face.locate == "on"

    def finds_small(self, labels: Pixels) -> bool:
        """Whether labels, uint8 (side, side), deserve it, judged by every fourth row and column."""
        if not self._wanted:
            return False
        return deserves_second_look(find_faces(labels[::4, ::4], self._classes), self._always)


class Batch:
    """Pictures that are being labelled in their slots: whole ones, or the views of their faces."""

    def __init__(
        self,
        tasks: list[Infer],
        parser: FaceParser,
        slots: Slots,
        look: FirstLook | None = None,
        judge: bool = False,
    ) -> None:
        """Begin to label; for what this waits, see `FaceParser.begin`."""
        self._tasks, self._parser, self._slots, self._look, self._judge = tasks, parser, slots, look, judge
        self._whole = [task for task in tasks if not task.views]
        views = [(task, view) for task in tasks for view in range(task.views)]
        self._owners = [*self._whole, *(task for task, _ in views)]
        pictures = [slots.pictures[task.slot] for task in self._whole]
        pictures += [slots.view_pictures[task.slot, view] for task, view in views]
        self._labels = [slots.labels[task.slot] for task in self._whole]
        self._labels += [slots.view_labels[task.slot, view] for task, view in views]
        self._began = time.monotonic()
        company = max(task.company for task in tasks)
        self._under_way = parser.begin(pictures, self._labels, self._finish_one, company, judge)

    @property
    def unfinished(self) -> tuple[int, ...]:
        """Numbers of the pictures that are still worked on."""
        return tuple({self._owners[at].number: None for at in self._under_way.unfinished})

    @property
    def is_done(self) -> bool:
        return not self._under_way.unfinished

    def labelled(self) -> tuple[tuple[int, ...], tuple[Judged, ...]]:
        """Wait until the label maps are filled.

        Returns:
            Numbers of the whole pictures that deserve a second look, and how sure the network is of each
            picture; empty unless that is asked for.
        """
        done = self._under_way.results()
        firsts = zip(self._whole, done[: len(self._whole)], strict=True)
        small = tuple(task.number for task, (is_small, _) in firsts if is_small)
        if not self._judge:
            return small, ()
        certainties = [certainty for _, certainty in done if certainty is not None]
        return small, _judgements(self._tasks, self._parser.info.sha256, certainties)

    def finish(self, listener: Listener) -> None:
        """Wait until the label maps are filled, and report it.

        A batch too large for the device's memory is done in halves. A single picture that is
        too large ends the worker, as any other fault of the device does: the supervisor starts
        a new one and counts the attempts.

        Raises:
            MemoryError: there is no memory for one picture.
        """
        tasks, device = self._tasks, self._parser.info.device
        try:
            small, judgements = self.labelled()
            crash_point(CrashPoint.LABELS_WRITTEN)
        except (RuntimeError, MemoryError) as error:
            if not is_want_of_memory(error):
                raise
            if len(tasks) == 1:
                raise MemoryError(f"one picture is too much for {device}: {error}") from error
            logger.warning("no memory on %s for %d pictures at once; halving", device, len(tasks))
        else:
            numbers = tuple(task.number for task in tasks)
            milliseconds = (time.monotonic() - self._began) * 1000
            listener.report(Inferred(numbers, milliseconds, small, judgements))
            return
        self._parser.wait_for_rest()  # for the next batch, which takes memory too
        del self._under_way  # its error's traceback holds tensors
        free_memory()
        middle = len(tasks) // 2
        for half in (tasks[:middle], tasks[middle:]):
            compute(half, self._parser, self._slots, listener, self._look, self._judge)

    def _finish_one(self, at: int, certainty: Certainty | None) -> tuple[bool, Certainty | None]:
        """Look for small faces, here because several pictures are finished side by side."""
        is_whole = at < len(self._whole)
        is_small = is_whole and self._look is not None and self._look.finds_small(self._labels[at])
        return is_small, certainty


def compute(
    tasks: list[Infer],
    parser: FaceParser,
    slots: Slots,
    listener: Listener,
    look: FirstLook | None = None,
    judge: bool = False,
) -> None:
    """Label a batch from beginning to end, with nothing else under way.

    Raises:
        MemoryError: there is no memory for one picture.
    """
    listener.report(Started(tuple(task.number for task in tasks)))
    Batch(tasks, parser, slots, look, judge).finish(listener)


def _judgements(batch: list[Infer], model: str, certainties: list[Certainty]) -> tuple[Judged, ...]:
    """One for each picture; a picture's views are taken together."""
    owners = [at for at, task in enumerate(batch) if not task.views]
    owners += [at for at, task in enumerate(batch) for _ in range(task.views)]
    sums = np.zeros((len(batch), *certainties[0].shape))
    np.add.at(sums, owners, np.stack(certainties))
    return tuple(judged(model, one) for one in sums)
