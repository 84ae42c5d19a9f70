"""Second stage: from pixels to labels, in batches as large as the moment offers."""

import logging
import time
import warnings
from typing import Protocol

import numpy as np
import torch

from maskdrop.config import Settings
from maskdrop.cost import cost_of
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.locate import deserves_second_look, find_faces
from maskdrop.model.check import known_picture
from maskdrop.model.errors import WeightsError
from maskdrop.model.memory import free_memory, is_want_of_memory
from maskdrop.model.parser import Certainty, FaceParser, Pixels, load_parser
from maskdrop.sidecar import judged
from maskdrop.ticket import MESSAGE_LIMIT, Cost, Infer, Inferred, Judged, Ready, Report, Started, Stop, Unfit
from maskdrop.topology.slots import Places
from maskdrop.topology.worker import Link, Workplace

logger = logging.getLogger("maskdrop")

MEASURED_BATCHES = 2
"""Batches of which the faster one tells what a picture costs: the start waits for them."""


class Listener(Protocol):
    """Whoever is told how far a batch is."""

    def report(self, report: Report, /) -> None: ...


def serve(workplace: Workplace, link: Link) -> None:
    """Label pictures until told to stop."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(workplace.threads)
    settings = workplace.settings
    max_batch = int(settings.workers.max_batch)
    try:
        parser = load_parser(settings.model, workplace.device, workplace.threads, max_batch)
        parser.probe()
    except WeightsError as error:
        link.report(Unfit(str(error)[:MESSAGE_LIMIT]))
        return
    look = FirstLook(settings)
    look.finds_small(workplace.slots.labels[0])  # so that no picture waits for its imports
    info = parser.info
    cost = measure(parser, workplace) if workplace.measures else None
    link.report(Ready(info.device, f"{info.weights} sha256:{info.sha256[:12]}", info.precision, cost))
    judge = "json" in settings.save.outputs
    while batch := gather(link, max_batch, settings.workers.max_wait_ms / 1000):
        compute(batch, parser, workplace.slots, link, look, judge)


def measure(parser: FaceParser, workplace: Workplace) -> Cost | None:
    """What a known portrait costs this stage when all of the device is at work; None: there is too
    little memory to find out."""
    side = workplace.settings.model.input_size
    count = workplace.threads if workplace.device == "cpu" else int(workplace.settings.workers.max_batch)
    batch = np.repeat(known_picture(side)[np.newaxis], count, axis=0)
    try:
        return cost_of(lambda: parser.parse(batch), pictures=count, turns=MEASURED_BATCHES)
    except (RuntimeError, MemoryError) as error:
        if not is_want_of_memory(error):
            raise
    free_memory()
    return None


def gather(link: Link, max_batch: int, max_wait: float) -> list[Infer]:
    """The next batch: waits for a first task, then ``max_wait`` seconds at most for others.

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
        """Looks at every fourth pixel of labels, uint8 (side, side)."""
        if not self._wanted:
            return False
        return deserves_second_look(find_faces(labels[::4, ::4], self._classes), self._always)


def compute(
    batch: list[Infer],
    parser: FaceParser,
    slots: Places,
    link: Listener,
    look: FirstLook | None = None,
    judge: bool = False,
) -> None:
    """Label the pictures of a batch in their slots.

    A batch too large for the device's memory is done in halves. A single picture that is
    too large ends the worker, as any other fault of the device does: the supervisor starts
    a new one and counts the attempts.

    Raises:
        MemoryError: there is no memory for one picture.
    """
    numbers = tuple(task.number for task in batch)
    link.report(Started(numbers))
    began = time.monotonic()
    try:
        small, judgements = label(batch, parser, slots, look, judge)
        crash_point(CrashPoint.LABELS_WRITTEN)
    except (RuntimeError, MemoryError) as error:
        if not is_want_of_memory(error):
            raise
        if len(batch) == 1:
            raise MemoryError(f"one picture is too much for {parser.info.device}: {error}") from error
        logger.warning("no memory on %s for %d pictures at once; halving", parser.info.device, len(batch))
    else:
        link.report(Inferred(numbers, (time.monotonic() - began) * 1000, small, judgements))
        return
    free_memory()  # out of the handler: until there the error's traceback holds the tensors
    middle = len(batch) // 2
    for half in (batch[:middle], batch[middle:]):
        compute(half, parser, slots, link, look, judge)


def label(
    batch: list[Infer], parser: FaceParser, slots: Places, look: FirstLook | None = None, judge: bool = False
) -> tuple[tuple[int, ...], tuple[Judged, ...]]:
    """Fill the label maps of a batch: of whole pictures, or of the views of their faces.

    Returns:
        Numbers of the whole pictures that deserve a second look, and how sure the network is of each
        picture, or nothing unless that is asked for.
    """
    whole = [task for task in batch if not task.views]
    views = [(task, view) for task in batch for view in range(task.views)]

    def take(part: slice) -> Pixels:
        pictures = _in_slots(slots, [task.slot for task in whole[part]])
        behind = views[max(0, part.start - len(whole)) : max(0, part.stop - len(whole))]
        if not behind:
            return pictures
        of_views = slots.view_pictures[[task.slot for task, _ in behind], [view for _, view in behind]]
        return np.concatenate([pictures, of_views]) if len(pictures) else of_views

    def finish(at: int, labels: Pixels, certainty: Certainty | None) -> tuple[bool, Certainty | None]:
        """Whether it is small is found out here, where pictures are labelled side by side."""
        if at >= len(whole):
            task, view = views[at - len(whole)]
            slots.view_labels[task.slot, view] = labels
            return False, certainty
        slots.labels[whole[at].slot] = labels
        return look is not None and look.finds_small(labels), certainty

    company = max(task.company for task in batch)
    done = parser.parse_each(len(whole) + len(views), take, finish, company, judge)
    small = tuple(
        task.number for task, (is_small, _) in zip(whole, done[: len(whole)], strict=True) if is_small
    )
    certainties = [certainty for _, certainty in done if certainty is not None]
    return small, _judgements(batch, parser.info.sha256, certainties) if judge else ()


def _in_slots(slots: Places, numbers: list[int]) -> Pixels:
    """The pictures there; no copy is made where one slot follows the other."""
    first, count = numbers[0] if numbers else 0, len(numbers)
    if numbers == list(range(first, first + count)):
        return slots.pictures[first : first + count]
    return slots.pictures[numbers]


def _judgements(batch: list[Infer], model: str, certainties: list[Certainty]) -> tuple[Judged, ...]:
    """One for each picture; that of its views is taken together."""
    owners = [at for at, task in enumerate(batch) if not task.views]
    owners += [at for at, task in enumerate(batch) for _ in range(task.views)]
    sums = np.zeros((len(batch), *certainties[0].shape))
    np.add.at(sums, owners, np.stack(certainties))
    return tuple(judged(model, one) for one in sums)
