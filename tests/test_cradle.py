"""That a worker which tests fork is what it would be if it had been executed."""

import os
import re
import signal
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cradle import NAME
from drawing import face_bytes
from running import Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]

STAGES = ("preprocess", "infer", "save")


def given(pid: int) -> tuple[list[str], Counter[int], int, Path]:
    """Umask, signals that are blocked and ignored, kinds of open files, parent and folder of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"^(?:Umask|SigBlk|SigIgn):\t.*$", status, re.MULTILINE)
    kinds = Counter(stat.S_IFMT(file.stat().st_mode) for file in Path(f"/proc/{pid}/fd").iterdir())
    return masks, kinds, psutil.Process(pid).ppid(), Path(f"/proc/{pid}/cwd").readlink()


def is_executed(pid: int) -> bool:
    return "spawn_main" in " ".join(psutil.Process(pid).cmdline())


def replaced(daemon: Daemon, stage: str, pid: int) -> int:
    """The worker that was started in place of this one."""
    (other,) = wait_for(lambda: set(daemon.workers(stage)) - {pid}, f"a new {stage} worker")
    return other


@pytest.mark.skipif("MASKDROP_EXEC" in os.environ, reason="MASKDROP_EXEC is set: nothing is forked")
def test_a_forked_worker_is_given_what_an_executed_one_is(start: Start, rooms: Rooms) -> None:
    daemon = start(umask=0o027).wait_ready()
    forked = {stage: daemon.workers(stage)[0] for stage in STAGES}
    assert not any(map(is_executed, forked.values()))
    before = {stage: given(pid) for stage, pid in forked.items()}
    (cradle,) = (c for c in psutil.Process(daemon.process.pid).children() if c.name() == NAME)
    cradle.kill()
    for pid in forked.values():
        os.kill(pid, signal.SIGKILL)
    executed = {stage: replaced(daemon, stage, pid) for stage, pid in forked.items()}
    daemon.wait_ready()
    assert all(map(is_executed, executed.values()))
    assert {stage: given(pid) for stage, pid in executed.items()} == before
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0
