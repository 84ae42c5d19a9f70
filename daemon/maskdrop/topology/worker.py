"""What a worker process does from its first instruction: its frame, the same for every stage."""

import ctypes
import faulthandler
import importlib
import logging
import os
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from maskdrop.config import Settings
from maskdrop.exit_codes import EX_OUT_OF_MEMORY
from maskdrop.folders import Folders
from maskdrop.inbox.lock import InboxLock
from maskdrop.lasting import lasting_imports, leave
from maskdrop.log import WorkerFormatter
from maskdrop.machine.heap import REST_S, give_memory_back
from maskdrop.ticket import Report, Stage, Task
from maskdrop.topology.slots import SharedSlots

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Workplace:
    """All that a worker is given when it starts.

    Attributes:
        threads: how many compute in it at the same time.
        most_threads: how many it may use for a picture that is the only one in the daemon.
        measures: whether it is to find out what a picture costs before it is ready.
    """

    stage: Stage
    name: str
    settings: Settings
    folders: Folders
    slots: SharedSlots
    lock: InboxLock
    threads: int = 1
    most_threads: int = 1
    device: str = "cpu"
    measures: bool = False

    def is_like(self, other: "Workplace") -> bool:
        """Whether a worker at this workplace could as well go on at the other one."""
        return (
            (self.stage, self.name, self.threads, self.most_threads, self.device)
            == (other.stage, other.name, other.threads, other.most_threads, other.device)
            and self.slots is other.slots
            and self.lock is other.lock
            and settings_of(self.stage, self.settings) == settings_of(other.stage, other.settings)
        )


def settings_of(stage: Stage, settings: Settings) -> tuple[object, ...]:
    """The settings that the workers of a stage go by: while these are the same, the workers may stay."""
    common = (settings.folders, settings.model, settings.face, settings.log.level)
    match stage:
        case Stage.PREPROCESS:
            return (*common, settings.decode)
        case Stage.INFER:
            workers = settings.workers
            return (*common, workers.max_batch, workers.max_wait_ms, settings.save.wants_certainty)
        case Stage.SAVE:
            return (*common, settings.decode, settings.save)


class Link:
    """A worker's end of its channel: tasks come in, reports go out."""

    def __init__(self, tasks: "Connection[Any, Task]", reports: "Connection[Report, Any]") -> None:
        self._tasks = tasks
        self._reports = reports

    def receive(self) -> Task | None:
        """The next task, waiting for it; None once the supervisor is gone."""
        try:
            task: Task = self._tasks.recv()
        except EOFError:
            return None
        return task

    def receive_after_rest(self) -> Task | None:
        """The next task, or None, as `receive`. For workers that keep freed memory: if nothing comes for
        `REST_S`, the memory is given back."""
        if not self.waiting(REST_S):
            give_memory_back()
        return self.receive()

    def waiting(self, seconds: float) -> bool:
        """Whether a task comes within so many seconds."""
        return self._tasks.poll(seconds)

    def report(self, report: Report) -> None:
        self._reports.send(report)


def work(workplace: Workplace, tasks: Any, reports: Any, stderr: Any, supervisor: int) -> None:
    """Run one worker until it is told to stop or the supervisor is gone."""
    _die_with(supervisor)
    # A terminal's Ctrl-C and systemd's SIGTERM reach the whole group; the supervisor decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.dup2(stderr.fileno(), sys.stdout.fileno())
    os.dup2(stderr.fileno(), sys.stderr.fileno())
    stderr.close()
    faulthandler.enable(os.dup(sys.stderr.fileno()))  # heard even within quiet_libraries
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(WorkerFormatter())
    logging.basicConfig(level=workplace.settings.log.level.upper(), handlers=[handler])
    # Stages are imported by name so that only the inference worker pays for importing torch.
    with lasting_imports():
        stage = importlib.import_module(f"maskdrop.{workplace.stage.value}")
    try:
        stage.serve(workplace, Link(tasks, reports))
    except BrokenPipeError:
        logging.getLogger("maskdrop").debug("the supervisor is gone")
    except MemoryError as error:
        # Whoever's fault it is, a fresh process has the best chance; the supervisor counts the attempts.
        logging.getLogger("maskdrop").error("no memory for what is in hand: %s", error)
        leave(EX_OUT_OF_MEMORY)
    leave(0)


def _die_with(supervisor: int) -> None:
    """Have the kernel kill this process when the supervisor dies (prctl(2), PR_SET_PDEATHSIG).

    Otherwise a worker could go on with a picture that a new daemon has begun again.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        sys.exit("the supervisor died while this worker started")
