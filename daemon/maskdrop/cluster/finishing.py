"""Last stage on a cluster: results rendered and published, broken pictures copied."""

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from maskdrop.batch.ledger import Outcome
from maskdrop.cluster.attempts import attempted, ended_after
from maskdrop.cluster.broken import put_broken
from maskdrop.cluster.cargo import End, Piece, Pixels, Work, left_for, packed, unpacked
from maskdrop.cluster.job import Job
from maskdrop.cluster.stores import NOWHERE
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.decoding import BrokenPicture, set_up_decoding
from maskdrop.durable import FolderTrouble
from maskdrop.leave_alone import LeaveAlone, UnfitName
from maskdrop.machine.heap import keep_memory
from maskdrop.preprocess import locate_in, prepare_content
from maskdrop.results.render import Renderer
from maskdrop.ticket import MESSAGE_LIMIT, Absence, Fault, Save, Stage, Ticket, cut
from maskdrop.topology.slots import OwnSlots

T = TypeVar("T")

PATIENCE_S = 30.0
"""Seconds that a block waits in all for a place that can't take results: a full disk, a lost network."""

_STEP_S = 1.0

_NO_COPY = "; it has no copy, since "

BESIDE = 16
"""Pictures of a block whose results are written at the same time, where writing costs requests."""


def finish_block(table: pa.Table, job: Job, looks_closer: bool) -> pa.Table:
    """Write the results of a block's pictures, and copies of broken ones.

    Args:
        looks_closer: whether pictures with small faces get views of these instead, to be labelled once more.
    """
    keep_memory()
    set_up_decoding()
    finisher = _Finisher(job, looks_closer)
    pieces = attempted(unpacked(table), Stage.SAVE, job.attempts, job.most_attempts, finisher.finish_all)
    return packed(map(finisher.end_blamed, pieces))


class _Finisher:
    def __init__(self, job: Job, looks_closer: bool) -> None:
        self._job, self._looks_closer = job, looks_closer
        self._side = job.settings.model.input_size
        self._patient_until = math.inf

    def finish_all(self, pieces: list[Piece]) -> list[Piece]:
        """Finish all pictures; where writing costs requests, write some while the next ones are rendered."""
        if not self._job.target.is_remote or len(pieces) < 2:
            return [self._in_time(partial(self._finish, piece)) for piece in pieces]
        done: list[Piece] = []
        under_way: deque[Future[Piece]] = deque()
        with ThreadPoolExecutor(BESIDE, "writing") as pool:
            for piece in pieces:
                under_way.append(pool.submit(self._in_time(partial(self._begun, piece))))
                if len(under_way) > BESIDE:
                    done.append(self._in_time(under_way.popleft().result))
            done += [self._in_time(future.result) for future in under_way]
        return done

    def end_blamed(self, piece: Piece) -> Piece:
        """End a picture at which this stage died: without a copy, since copying may have been the cause."""
        work, fault = piece.work, piece.work.fault
        if work.end is not None or fault is None:
            return piece
        message = fault.message
        if self._job.quarantine is not None:
            message = _without_copy(message, "the process died at it each time")
        return Piece(replace(work, end=End(Outcome.BROKEN, error=fault.error, message=message)))

    def _in_time(self, act: Callable[[], T]) -> T:
        with ended_after(self._job.longest + PATIENCE_S):
            return act()

    def _finish(self, piece: Piece) -> Piece:
        return self._begun(piece)()

    def _begun(self, piece: Piece) -> Callable[[], Piece]:
        """Do everything for a picture except writing, which the returned function does."""
        work = piece.work
        if work.end is not None:
            return lambda: piece
        try:
            if work.fault is None:
                try:
                    closer = self._looked_closer(piece)
                    return self._saved(piece) if closer is None else lambda: closer
                except BrokenPicture as error:
                    fault = Fault(Stage.SAVE, error.error, cut(error))
                    work = replace(work, fault=fault)
        except (LeaveAlone, MemoryError) as error:
            left = left_for(work, error)
            return lambda: left
        return partial(_ended, work, lambda: replace(work, end=self._quarantined(work)))

    def _looked_closer(self, piece: Piece) -> Piece | None:
        """The piece with views of its faces, if it is to be labelled once more."""
        if not (self._looks_closer and piece.work.is_small):
            return None
        began = time.monotonic()
        side, views = self._side, np.empty((self._job.settings.views, self._side, self._side, 3), np.uint8)
        places = OwnSlots(side, labels=_given(piece.labels)[np.newaxis], view_pictures=views[np.newaxis])
        regions = locate_in(partial(self._original, piece), self._job.settings, places, 0)
        if not regions:
            return None
        views = views[: len(regions)]
        work = replace(piece.work, regions=regions, ms=_spent(piece.work, "locate", began))
        return Piece(work, views, content=piece.content)

    def _saved(self, piece: Piece) -> Callable[[], Piece]:
        """Render a picture's results; the returned function writes them."""
        began = time.monotonic()
        work, facts = piece.work, piece.work.facts
        assert facts is not None
        read = partial(self._original, piece)
        ticket = Ticket(0, work.path, NOWHERE)
        task = Save(ticket, 0, facts, work.regions, work.judged, work.ms)
        renderer = Renderer(self._job.settings, self._places(piece, read))
        labels = renderer.own_labels(task)
        results = renderer.render(task, read, labels)
        classes, rendered = self._classes(labels), time.monotonic() - began

        def publish() -> Work:
            began = time.monotonic() - rendered
            names = self._patiently(
                lambda: self._job.target.publish(work.path, work.sha256, results, work.is_shared)
            )
            crash_point(CrashPoint.RESULTS_PUBLISHED)
            end = End(Outcome.SAVED, names, classes)
            return replace(work, ms=_spent(work, Stage.SAVE.value, began), end=end)

        return partial(_ended, work, publish)

    def _places(self, piece: Piece, read: Callable[[], bytes]) -> OwnSlots:
        """A slot with what has come along with a picture. After a second look, its pixels haven't: they are
        decoded again if a result needs them."""
        facts, side, labels = piece.work.facts, self._side, _given(piece.labels)[np.newaxis]
        if not piece.work.regions:
            return (
                OwnSlots(side, labels=labels)
                if piece.pixels is None
                else OwnSlots(side, piece.pixels[np.newaxis], labels)
            )
        places = OwnSlots(side, np.empty((1, side, side, 3), np.uint8), view_labels=labels)
        if facts is not None and Renderer(self._job.settings, places).shows_slot(facts):
            prepare_content(read(), facts.sha256, self._job.settings.decode, places, 0)
        return places

    def _quarantined(self, work: Work) -> End:
        assert work.fault is not None
        name, fault, message = "", work.fault, work.fault.message
        if self._job.quarantine is not None:
            target, settings = self._job.quarantine, self._job.settings.folders
            try:
                name = self._patiently(lambda: put_broken(self._job.source, target, work, settings))
            except UnfitName as error:
                message = _without_copy(message, str(error))
        return End(Outcome.BROKEN, quarantine=name, error=fault.error, message=message)

    def _original(self, piece: Piece) -> bytes:
        """The content of the original, the same that was decoded.

        Raises:
            LeaveAlone: it is gone, has changed, or can't be read.
            BrokenPicture: it is empty or too large by now.
        """
        if piece.content is not None:
            return piece.content
        content = self._job.source.read(piece.work.path, self._job.settings.decode.max_bytes)
        if hashlib.sha256(content).hexdigest() != piece.work.sha256:
            raise LeaveAlone(Absence.CHANGED, "changed while it was processed")
        return content

    def _classes(self, labels: Pixels) -> tuple[str, ...]:
        counts = Image.fromarray(labels).histogram()  # takes a fifth of np.unique's time
        return tuple(self._job.settings.model.classes[number] for number in np.flatnonzero(counts))

    def _patiently(self, write: Callable[[], T]) -> T:
        """Retry until the write succeeds, or the block's patience runs out, counted from its first failure.

        Raises:
            FolderTrouble: it couldn't be written.
        """
        while True:
            began = time.monotonic()
            try:
                return write()
            except FolderTrouble:
                self._patient_until = min(self._patient_until, began + PATIENCE_S)
                if time.monotonic() + _STEP_S >= self._patient_until:
                    raise
                time.sleep(_STEP_S)


def _ended(work: Work, write: Callable[[], Work]) -> Piece:
    """The picture as written, or left if it can't be."""
    try:
        return Piece(write())
    except (LeaveAlone, FolderTrouble, MemoryError) as error:
        return left_for(work, error)


def _without_copy(message: str, why: str) -> str:
    """A broken picture's message, cut so that the reason why there is no copy fits behind it."""
    told = cut(_NO_COPY + why)
    return message[: MESSAGE_LIMIT - len(told)] + told


def _given(labels: Pixels | None) -> Pixels:
    assert labels is not None
    return labels


def _spent(work: Work, stage: str, began: float) -> dict[str, float]:
    return {**work.ms, stage: (time.monotonic() - began) * 1000}
