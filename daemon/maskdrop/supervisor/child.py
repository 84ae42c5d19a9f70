"""One worker as the supervisor sees it: its process, its channel, its state."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from enum import Enum
from multiprocessing.connection import Connection
from typing import Any

import torch.multiprocessing

from maskdrop.death import Death, Ending, cause_of_death
from maskdrop.log import LineBuffer
from maskdrop.ticket import Report, Stage, Task
from maskdrop.topology.worker import Workplace, work

_READ_SIZE = 65_536

_SPINS = 1_000
"""How often OpenMP's threads spin while they wait for others before they sleep (GCC's libgomp manual);
its default is 300 times as much. Measured in docs/performance.md: without spinning, a single picture takes
longer on an idle machine; with much of it, on a machine where a decoder needs a core."""


_TASK_BYTES = 128
"""Bytes of a pipe that an inference task takes at most: 99, and room for longer numbers."""

_WIDE_PIPE = 2**20
"""Largest pipe, in bytes, that any user may ask for by default (pipe(7), /proc/sys/fs/pipe-max-size)."""

PROVEN_S = 10.0
"""Seconds after getting ready from which the death of an idle worker no longer counts as a failed start."""


class ChildState(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    READY = "ready"


class Child:
    """A started worker process and the pipes that nobody else reads or writes.

    Each worker has its own pipes, so wherever it dies, it leaves no held lock and no half-read
    message to another worker.
    """

    def __init__(self, workplace: Workplace, now: float) -> None:
        """Start the process."""
        self.stage: Stage = workplace.stage
        self.name = workplace.name
        self.state = ChildState.STARTING
        self.heard_at = now
        """When it started, last reported, got a ticket while it held none, or was dismissed."""
        self.ready_at = now
        """When it reported that it is ready."""
        self._verdict: Death | None = None
        context = torch.multiprocessing.get_context("spawn")
        theirs_tasks, self._tasks = context.Pipe(duplex=False)
        self.reports, theirs_reports = context.Pipe(duplex=False)
        if self.stage is Stage.INFER:
            _widen(self._tasks)
            _widen(self.reports)
        self.most_tasks = fcntl.fcntl(self._tasks, fcntl.F_GETPIPE_SZ) // _TASK_BYTES
        """Inference tasks that fit into its pipe: sending more would block the supervisor."""
        self.stderr, theirs_stderr = context.Pipe(duplex=False)
        theirs = (theirs_tasks, theirs_reports, theirs_stderr)
        self._process = context.Process(
            target=work,
            args=(workplace, *theirs, os.getpid()),
            name=f"maskdrop-{workplace.name}",
            daemon=True,
        )
        with _in_a_folder(), _environment(workplace):
            self._process.start()
        for end in theirs:
            end.close()
        os.set_blocking(self.stderr.fileno(), False)
        self._lines = LineBuffer()
        self.pid: int = self._process.pid or 0
        self.sentinel: int = self._process.sentinel

    def send(self, task: Task) -> None:
        """Give it a task. If the worker has just died, the task is lost; the sentinel tells of the death."""
        with contextlib.suppress(BrokenPipeError):
            self._tasks.send(task)

    def receive(self) -> Report | None:
        """Read the next report, which must be waiting; None after the last one."""
        try:
            report: Report = self.reports.recv()
        except (EOFError, OSError):
            return None
        return report

    def remaining(self) -> list[Report]:
        """Reports that a dead worker sent and nobody has read."""
        reports: list[Report] = []
        with contextlib.suppress(OSError):
            while self.reports.poll(0) and (report := self.receive()) is not None:
                reports.append(report)
        return reports

    def lines(self) -> list[str] | None:
        """Whole lines that it wrote to standard error or output; None after the last ones."""
        try:
            data = os.read(self.stderr.fileno(), _READ_SIZE)
        except BlockingIOError:
            return []
        return self._lines.feed(data) if data else None

    def last_lines(self) -> list[str]:
        """Everything a dead worker wrote and nobody has read."""
        lines: list[str] = []
        while more := self.lines():
            lines += more
        return lines + self._lines.flush()

    def hear(self, now: float) -> None:
        """Count its silence from now on: it reported, got a ticket while it held none, or was dismissed."""
        self.heard_at = now

    def note_ready(self) -> None:
        """Its last report said that it can be given tickets."""
        self.state, self.ready_at = ChildState.READY, self.heard_at

    def kill(self) -> None:
        self._process.kill()

    def end(self, verdict: Death) -> None:
        """Kill it, and record ``verdict`` as what it died of."""
        self._verdict = verdict
        self.kill()

    def forgive(self, seconds: float, now: float) -> None:
        """Ignore so many seconds: they count neither as silence nor towards `PROVEN_S`."""
        self.heard_at = min(now, self.heard_at + seconds)
        self.ready_at = min(now, self.ready_at + seconds)

    def has_proven_itself(self, now: float) -> bool:
        """Whether it was given a picture since it got ready, or has been ready for `PROVEN_S`."""
        at_work = self.heard_at > self.ready_at
        return self.state is ChildState.READY and (at_work or now - self.ready_at >= PROVEN_S)

    @property
    def is_ready(self) -> bool:
        return self.state is ChildState.READY and not self.is_ended

    @property
    def is_ended(self) -> bool:
        """Whether `end` killed it and its death is not yet dealt with."""
        return self._verdict is not None

    def bury(self) -> Death:
        """Collect the dead process, close its pipes and return what it died of."""
        self._process.join()
        code = self._process.exitcode
        pipes: tuple[Connection[Any, Any], ...] = (self._tasks, self.reports, self.stderr)
        for pipe in pipes:
            pipe.close()
        self._process.close()
        return self._verdict or Death(Ending.DIED, cause_of_death(code))


@contextlib.contextmanager
def _in_a_folder() -> Iterator[None]:
    """If the folder that the daemon was started in is gone, be in another one meanwhile: no process can be
    started from a folder that is gone. Go back afterwards, so that relative paths keep their meaning."""
    try:
        os.getcwd()
    except FileNotFoundError:
        gone = os.open(".", os.O_PATH)
        os.chdir("/")
        try:
            yield
        finally:
            os.fchdir(gone)
            os.close(gone)
    else:
        yield


def _widen(pipe: "Connection[Any, Any]") -> None:
    """Make room for the batches that an inference worker holds, and for its reports on them, which take 220
    bytes a picture with sidecars. If the system refuses, the worker holds fewer pictures."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _WIDE_PIPE)


@contextlib.contextmanager
def _environment(workplace: Workplace) -> Iterator[None]:
    """Set thread counts in the environment, where the worker's libraries read them when they load."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    wanted = {**dict.fromkeys(names, str(workplace.most_threads)), "GOMP_SPINCOUNT": str(_SPINS)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
