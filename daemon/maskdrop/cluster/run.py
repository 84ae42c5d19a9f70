"""A batch on a cluster from beginning to end: what is given out, what comes back, and its manifest."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from queue import Empty, SimpleQueue
from threading import Thread

import pyarrow as pa

from maskdrop.batch.ledger import Outcome
from maskdrop.cluster.attempts import STOPPED
from maskdrop.cluster.breaker import Breaker, Place
from maskdrop.cluster.cargo import Piece, Work, packed, unpacked
from maskdrop.cluster.engine import Cluster, ClusterTrouble
from maskdrop.cluster.inputs import Input, Inputs
from maskdrop.cluster.job import Job
from maskdrop.cluster.manifest import Manifest
from maskdrop.cluster.portions import distinct, sliced
from maskdrop.cluster.record import Record
from maskdrop.cluster.shape import shape_for
from maskdrop.cluster.sharing import that_share_names
from maskdrop.cluster.signals import Signals
from maskdrop.cluster.stores import FolderStore, Store
from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError
from maskdrop.folders import Folders
from maskdrop.inbox.lock import InboxLock
from maskdrop.results.names import tails_of
from maskdrop.supervisor.premises import take_lock

logger = logging.getLogger("maskdrop")

PORTION = 1_000_000
"""Pictures given to Ray at a time, which bounds what the driver keeps in memory of them."""

_FRUITLESS = 3
"""Executions in a row that end in trouble, without an end for a single picture, before the batch gives up."""

_END_S = 60.0
"""Longest wait for an execution that was ended, in seconds."""

_STEP_S = 0.1

_LINE = 500
"""Most characters of an error's message that are reported."""


class BatchTrouble(Exception):
    """The batch ended early; the message says why. Pictures that have their row in the manifest are done, and
    the same command does the rest."""


@dataclass(frozen=True)
class Order:
    """What a batch on a cluster is to do.

    Attributes:
        target: where results go.
        manifest: takes the pictures' rows.
        address: of a cluster; None: RAY_ADDRESS's, or else one of this machine alone.
        skips_done: whether pictures that the manifest has as done are skipped.
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
    """Arrives in the queue when the batch is to end."""


class ClusterBatch:
    """A batch on a cluster, and the owner of what became of its pictures.

    Attributes:
        total: files that are there; None until they are counted.
        seconds: how long it took, once it is over.
        given_up: pictures on their way when the drain was cut short: the next run does them.
        statistics: Ray's own, of each execution.
    """

    def __init__(self, order: Order, progress: Callable[[], None]) -> None:
        self._order, self._progress = order, progress
        self.total: int | None = None
        self.seconds = 0.0
        self.given_up = 0
        self.statistics: list[str] = []
        self._arrivals: SimpleQueue[pa.Table | Exception | _Stop | None] = SimpleQueue()
        self._signals = Signals(self._end_soon)
        self._cluster: Cluster | None = None
        places = {"IN": Place(order.inputs.store, writes=False), "OUT": Place(order.target, writes=True)}
        if order.quarantine is not None:
            places["--quarantine"] = Place(order.quarantine, writes=True)
        self._record = Record(order.manifest, Breaker(places), copies=order.quarantine is not None)
        self.ledger = self._record.ledger

    def run(self) -> None:
        """Do everything, or stop at a signal: pictures that have their row then are done.

        Raises:
            ConfigurationError: it can't run, or can't go on, as configured.
            InboxHeld: another batch works for this outbox.
            BatchTrouble: the cluster can't do it, a place can't be used any more, the manifest can't be read
                or written, or something happened that nobody foresaw.
        """
        began = time.monotonic()
        lock = _lock_at(self._order.target)
        try:
            self._record.read()
            self._work()
        except ConfigurationError:
            raise
        except Exception as error:
            again = "the same command goes on from what has its row in the manifest"
            raise BatchTrouble(f"{_in_a_line(error)}; {again}") from error
        finally:
            self.seconds = time.monotonic() - began
            if lock is not None:
                lock.release()

    def _work(self) -> None:
        with self._signals.heeded():
            self._cluster = cluster = Cluster(self._order.address)
            self._signals.heed()  # again: Ray has installed its own handler of SIGTERM
            try:
                self._go_through(cluster)
            finally:
                self.statistics = cluster.statistics
                if not self.is_urgent:
                    cluster.close()

    def abandon(self) -> None:
        """Clean up what an urgent end of `run` left of the cluster; this process has to end next."""
        if self._cluster is not None:
            self._cluster.abandon()

    def _end_soon(self) -> None:
        """Act on a signal that asks for the end; in any thread."""
        self._order.inputs.stop()
        self._arrivals.put(_Stop())

    def _go_through(self, cluster: Cluster) -> None:
        """Do all inputs, a portion at a time; pictures that came back get their rows, however this ends."""
        given = 0
        try:
            wanted = takewhile(lambda _: not self.end_signal, self._order.inputs)
            for portion in sliced(wanted, PORTION):
                works = self._works(distinct(portion))
                given += len(works)
                self.total = given if len(portion) < PORTION else None
                self._do(works, cluster)
            self.total = given
        finally:
            self._record.close(tidies=not self.is_urgent)

    @property
    def end_signal(self) -> int:
        """Number of the signal that ended the batch early; 0: none."""
        return self._signals.number

    @property
    def is_urgent(self) -> bool:
        """Whether the batch was asked again to end: `run` then leaves the cluster as it is."""
        return self._signals.is_urgent

    @property
    def passed(self) -> Inputs:
        """The inputs, with how many were left alone or unread so far."""
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
            known = self._record.known(one.path) if self._order.skips_done else ""
            works[one.path] = Work(one.path, one.size, known, one.path in shared)
        return works

    def _do(self, left: dict[str, Work], cluster: Cluster) -> None:
        """Give out what is left until nothing is; pictures that the cluster lost are given out again."""
        fruitless = 0
        while left and not self.end_signal:
            before = len(left)
            try:
                self._once(left, cluster)
            except (ClusterTrouble, ConfigurationError) as error:
                if isinstance(error, ConfigurationError) and not self.ledger.counts[Outcome.SAVED]:
                    raise
                fruitless = fruitless + 1 if len(left) == before else 0
                if fruitless == _FRUITLESS:  # pictures were saved, so a machine is at fault, not the settings
                    raise ClusterTrouble(str(error)) from error
                logger.error(
                    "the cluster is in trouble (%s); %d pictures are given out anew", error, len(left)
                )

    def _once(self, left: dict[str, Work], cluster: Cluster) -> None:
        """Run one execution. After a signal, only pictures that are on their way are waited for."""
        begun = len(left)
        cluster.register.start()
        carrier = self._send_out(left, cluster)
        try:
            set_out = self._receive(left, cluster.register.stop)
        finally:
            if not self.is_urgent:
                cluster.end_executions()
            self._receive_late(left, carrier)
        if set_out is not None:
            self.given_up = max(0, set_out - (begun - len(left)))

    def _receive(self, left: dict[str, Work], stop: Callable[[], int]) -> int | None:
        """Take what comes back until everything has or, after a signal, all that was on its way.

        Args:
            stop: lets no more pictures enter the first stage, and returns how many have.

        Returns:
            How many had entered it when a signal came; None: no signal came.
        """
        begun = len(left)
        set_out: int | None = None
        deadline = math.inf
        while set_out is None or begun - len(left) < set_out:
            arrived = self._next(deadline)
            if isinstance(arrived, _Stop):
                if set_out is None:
                    set_out = stop()
                    deadline = time.monotonic() + self._order.settings.drain.drain_timeout_s
                if self.is_urgent:
                    break
            elif isinstance(arrived, pa.Table):
                self._take(arrived, left)
            elif arrived is None:
                break
            else:
                raise arrived
        return set_out

    def _next(self, deadline: float) -> pa.Table | Exception | _Stop | None:
        """What arrives next, None at the deadline. Meanwhile rows are written as they become due."""
        while True:
            due_at = self._record.due_at
            try:
                return self._arrivals.get(timeout=_left_until(min(deadline, due_at)))
            except Empty:
                if time.monotonic() >= deadline:
                    return None
                self._record.write()

    def _receive_late(self, left: dict[str, Work], carrier: Thread) -> None:
        """Take what comes back while the execution ends; unless the end is urgent, wait for it."""
        until = time.monotonic() + _END_S
        while carrier.is_alive() and not self.is_urgent and time.monotonic() < until:
            carrier.join(_STEP_S)
        while not self._arrivals.empty():
            arrived = self._arrivals.get()
            if isinstance(arrived, pa.Table):
                self._take(arrived, left)

    def _send_out(self, left: dict[str, Work], cluster: Cluster) -> Thread:
        """Have the cluster work; what comes back arrives in the queue, and None or an error at last.

        Returns:
            The thread that puts it there, and ends with the execution.
        """
        order, arrivals = self._order, self._arrivals
        shape = shape_for(cluster.nodes(), order.settings, len(left))
        stores = (order.inputs.store, order.target, order.quarantine)
        job = Job(order.settings, *stores, cluster.register, order.weights_sha256)
        blocks = [packed(map(Piece, some)) for some in sliced(left.values(), shape.block)]

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
        """Note the pictures of a table: each once, and none that was not begun."""
        for piece in unpacked(table):
            end = piece.work.end
            assert end is not None, piece.work
            if end.error != STOPPED and left.pop(piece.work.path, None) is not None:
                self._record.note(piece.work)
        self._progress()


def _lock_at(target: Store) -> InboxLock | None:
    """The lock of a folder for results; object storage has none.

    Raises:
        ConfigurationError: no lock file can be made there.
        InboxHeld: another batch has it.
    """
    if not isinstance(target, FolderStore):
        return None
    return take_lock(Folders(target.base, target.base, None, None, keeps=True))


def _left_until(deadline: float) -> float | None:
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())


def _in_a_line(error: Exception) -> str:
    """The error on one line; if a task raised it, without the traceback that Ray puts around it."""
    cause = getattr(error, "cause", None)
    told = cause if isinstance(cause, Exception) else error
    lines = str(told).strip().splitlines() or [""]
    return f"{type(told).__name__}: {lines[0][:_LINE]}".removesuffix(": ")
