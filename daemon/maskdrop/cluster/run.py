"""A batch on a cluster from beginning to end: what is given out, what comes back, and its manifest."""

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

import pyarrow as pa

from maskdrop.batch.ledger import Entry, Ledger, Outcome
from maskdrop.cluster.attempts import STOPPED
from maskdrop.cluster.breaker import Breaker, Place, PlaceTrouble
from maskdrop.cluster.cargo import End, Piece, Work, packed, unpacked
from maskdrop.cluster.engine import Cluster, ClusterTrouble
from maskdrop.cluster.inputs import Input, Inputs
from maskdrop.cluster.job import Job
from maskdrop.cluster.manifest import Manifest, Row
from maskdrop.cluster.shape import shape_for
from maskdrop.cluster.sharing import that_share_names
from maskdrop.cluster.stores import FolderStore, Store
from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError
from maskdrop.durable import FolderTrouble
from maskdrop.inbox.lock import InboxLock
from maskdrop.results.names import tails_of

logger = logging.getLogger("maskdrop")

T = TypeVar("T")

PORTION = 1_000_000
"""Pictures that are given to Ray at once: what the driver keeps in memory is of them."""

_FRUITLESS = 3
"""Executions in a row that may end in trouble without a single row."""

_END_S = 60.0
"""Longest wait for an execution that was ended, in seconds."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class BatchTrouble(Exception):
    """The batch ended before its time; the message says why. What has its row in the manifest is done."""


@dataclass(frozen=True)
class Order:
    """What a batch on a cluster is to do.

    Attributes:
        target: where results go.
        manifest: the place in which the manifest's folder is.
        address: of a cluster; None: one of this machine alone.
        skips_done: whether pictures of which the manifest has a row are passed over.
        weights_sha256: of the weights here, which all machines must have; "": not known.
    """

    settings: Settings
    inputs: Inputs
    target: Store
    quarantine: Store | None
    manifest: Manifest
    address: str | None
    skips_done: bool
    weights_sha256: str = ""


class _Stop:
    """Arrives where a signal has come."""


class ClusterBatch:
    """A batch on a cluster, and the owner of what became of its pictures.

    Attributes:
        total: files that are there; None until they are counted.
        seconds: how long it took, once it is over.
        end_signal: number of the signal that ended it before its time; 0: none.
        given_up: pictures that had set out when the drain was cut short: the next run does them.
        statistics: Ray's own, of each execution.
    """

    def __init__(self, order: Order, progress: Callable[[], None]) -> None:
        self._order, self._progress = order, progress
        self.ledger = Ledger()
        self.total: int | None = None
        self.seconds = 0.0
        self.end_signal = 0
        self.given_up = 0
        self.statistics: list[str] = []
        self._arrivals: SimpleQueue[pa.Table | Exception | _Stop | None] = SimpleQueue()
        self._known: dict[str, Row] = {}
        self._replaced: dict[str, set[str]] = {}
        places = {"IN": Place(order.inputs.store, writes=False), "OUT": Place(order.target, writes=True)}
        if order.quarantine is not None:
            places["--quarantine"] = Place(order.quarantine, writes=True)
        self._breaker = Breaker(places)

    def run(self) -> None:
        """Do everything, or stop when a signal comes: what has its row then is done.

        Raises:
            ConfigurationError: it can't run as configured.
            InboxHeld: another batch works for this outbox.
            BatchTrouble: the cluster can't do it, a place can't be used any more, or the manifest can't be
                read or written.
        """
        target, began = self._order.target, time.monotonic()
        lock = InboxLock.take(target.base, kind="outbox") if isinstance(target, FolderStore) else None
        try:
            self._known = self._order.manifest.read()
            self._work()
        except (ClusterTrouble, PlaceTrouble, FolderTrouble, OSError) as error:
            again = "the same command goes on from what has its row in the manifest"
            raise BatchTrouble(f"{type(error).__name__}: {error}; {again}") from error
        finally:
            self.seconds = time.monotonic() - began
            if lock is not None:
                lock.release()

    def _work(self) -> None:
        hung_up = signal.getsignal(signal.SIGHUP)
        heeded = _SIGNALS if hung_up is signal.SIG_IGN else (*_SIGNALS, signal.SIGHUP)  # as under nohup(1)
        before = {number: signal.signal(number, self._stop) for number in heeded}
        try:
            cluster = Cluster(self._order.address)
            for number in heeded:
                signal.signal(number, self._stop)  # once more: Ray has its own idea of SIGTERM
            try:
                self._go_through(cluster)
            finally:
                self.statistics = cluster.statistics
                cluster.close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _go_through(self, cluster: Cluster) -> None:
        """All inputs, a portion at a time; what has come back is in the manifest, however this ends."""
        given = 0
        try:
            wanted = takewhile(lambda _: not self.end_signal, self._order.inputs)
            for portion in _sliced(wanted, PORTION):
                given += len(portion)
                self.total = given if len(portion) < PORTION else None
                self._do(self._works(portion), cluster)
            self.total = given
        finally:
            self._order.manifest.write()
            self._order.manifest.drop(self._replaced)

    @property
    def passed(self) -> Inputs:
        """How far what was named is gone through."""
        return self._order.inputs

    @property
    def done(self) -> int:
        """Pictures that are done with, one way or another."""
        return self.ledger.counts.total()

    @property
    def is_complete(self) -> bool:
        """Whether every picture that is there has its results."""
        counts = self.ledger.counts
        if self.end_signal or self.total is None or self.passed.unread:
            return False
        return counts[Outcome.SAVED] + counts[Outcome.DONE_BEFORE] == self.total

    def _works(self, portion: Sequence[Input]) -> dict[str, Work]:
        shared = that_share_names([one.path for one in portion], tails_of(self._order.settings.save))
        works = {}
        for one in portion:
            row = self._known.get(one.path)
            known = row.sha256 if row is not None and row.is_done and self._order.skips_done else ""
            works[one.path] = Work(one.path, one.size, known, one.path in shared)
        return works

    def _do(self, left: dict[str, Work], cluster: Cluster) -> None:
        """Give out what is left until nothing is; what the cluster lost for good is given out anew."""
        fruitless = 0
        while left and not self.end_signal:
            before = len(left)
            try:
                self._once(left, cluster)
            except (ClusterTrouble, ConfigurationError) as error:
                if isinstance(error, ConfigurationError) and not self.ledger.counts[Outcome.SAVED]:
                    raise
                fruitless = fruitless + 1 if len(left) == before else 0
                if fruitless == _FRUITLESS:  # what was labelled shows that it can: a machine can't any more
                    raise ClusterTrouble(str(error)) from error
                logger.error(
                    "the cluster is in trouble (%s); %d pictures are given out anew", error, len(left)
                )

    def _once(self, left: dict[str, Work], cluster: Cluster) -> None:
        """One execution. Once a signal has come, what has set out is waited for, and nothing else."""
        begun = len(left)
        cluster.register.start()
        carrier = self._send_out(left, cluster)
        try:
            set_out = self._receive(left, cluster)
        finally:
            cluster.end_executions()
            carrier.join(_END_S)
        if set_out is not None:
            self._receive_late(left)
            self.given_up = max(0, set_out - (begun - len(left)))

    def _receive(self, left: dict[str, Work], cluster: Cluster) -> int | None:
        """Take what comes back until everything has, or after a signal, what had set out.

        Returns:
            How many had set out when a signal came; None: none came.
        """
        begun = len(left)
        set_out: int | None = None
        deadline = math.inf
        while set_out is None or begun - len(left) < set_out:
            try:
                arrived = self._arrivals.get(timeout=_left_until(deadline))
            except Empty:
                break
            if isinstance(arrived, _Stop):
                set_out = cluster.register.stop()
                deadline = time.monotonic() + self._order.settings.drain.drain_timeout_s
            elif isinstance(arrived, pa.Table):
                self._take(arrived, left)
            elif arrived is None:
                break
            else:
                raise arrived
        return set_out

    def _receive_late(self, left: dict[str, Work]) -> None:
        """Take what came back while the execution was ended."""
        while not self._arrivals.empty():
            arrived = self._arrivals.get()
            if isinstance(arrived, pa.Table):
                self._take(arrived, left)

    def _send_out(self, left: dict[str, Work], cluster: Cluster) -> Thread:
        """Have the cluster work; what comes back arrives in the queue, None or an error at last.

        Returns:
            What carries it there, until the execution is over.
        """
        order, arrivals = self._order, self._arrivals
        shape = shape_for(cluster.nodes(), order.settings, len(left))
        stores = (order.inputs.store, order.target, order.quarantine)
        job = Job(order.settings, *stores, cluster.register, order.weights_sha256)
        blocks = [packed(map(Piece, some)) for some in _sliced(left.values(), shape.block)]

        def carry() -> None:
            end: Exception | None = None
            try:
                for table in cluster.run(blocks, job, shape):
                    arrivals.put(table)
            except Exception as error:
                end = error
            arrivals.put(end)

        carrier = Thread(target=carry, name="arrivals", daemon=True)
        carrier.start()
        return carrier

    def _take(self, table: pa.Table, left: dict[str, Work]) -> None:
        """Note the pictures of a table; each once, and none that was not begun."""
        for piece in unpacked(table):
            end = piece.work.end
            assert end is not None, piece.work
            if end.error != STOPPED and left.pop(piece.work.path, None) is not None:
                self._note(piece.work, end)
        self._progress()

    def _note(self, work: Work, end: End) -> None:
        """A picture's end: in the ledger, and unless it was there before, in the manifest."""
        row = self._known.get(work.path)
        if end.outcome is Outcome.DONE_BEFORE and row is not None:
            end = End(Outcome.BROKEN, error=row.error, message=row.message) if row.error else end
        else:
            if row is not None:
                self._replaced.setdefault(row.part, set()).add(work.path)
            try:
                self._order.manifest.add(work)
            except FolderTrouble as error:  # its rows are kept, and written with later ones
                logger.error("the manifest can't be written now: %s", error)
        ms = {stage: round(spent, 1) for stage, spent in work.ms.items()}
        ms["total"] = round(sum(work.ms.values()), 1)
        self.ledger.add(
            Entry(work.path, end.outcome, end.results, end.quarantine, end.error, end.message, ms)
        )
        self._breaker.note(end)

    def _stop(self, number: int, frame: object) -> None:
        """The first signal has it drain, a second one ends everything at once."""
        if self.end_signal:
            os._exit(128 + number)
        self.end_signal = number
        self._order.inputs.stop()
        self._arrivals.put(_Stop())


def _left_until(deadline: float) -> float | None:
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())


def _sliced(things: Iterable[T], length: int) -> Iterator[list[T]]:
    """All of them, so many at a time."""
    waiting = iter(things)
    while some := list(islice(waiting, length)):
        yield some
