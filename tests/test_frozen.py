"""A daemon that was stopped as a whole, whatever it was at, doesn't take its workers for hung."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drawing import face_bytes
from running import QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]

PATIENCE_S = 4.0

WAITS = {"x86_64": ("232", "281"), "aarch64": ("22",)}
"""Numbers of epoll_wait(2) and epoll_pwait(2), by machine."""


def stop_at_something(pid: int, meanwhile: Callable[[], object]) -> None:
    """Stop a process while it does anything but wait; what happens meanwhile gives it something to do."""
    waits = WAITS.get(os.uname().machine)
    if waits is None:
        pytest.skip("another machine's system calls")

    for _ in range(5_000):  # without a rest between: its worker is waited for meanwhile
        meanwhile()
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: state_of(pid) == "T", "it to be stopped")
        try:
            call = Path(f"/proc/{pid}/syscall").read_text().split()[0]
        except PermissionError as error:
            os.kill(pid, signal.SIGCONT)
            pytest.skip(f"what a process does can't be seen here: {error}")
        if call not in waits:
            return
        os.kill(pid, signal.SIGCONT)
    pytest.fail("no moment at which it did something")


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_stopped_while_it_does_something_it_gives_its_workers_their_full_time_again(
    start: Start, rooms: Rooms
) -> None:
    settings = QUICK.replace("[workers]", f"[workers]\nstage_timeout_s = {PATIENCE_S:g}")
    daemon = start(settings=settings).wait_ready()
    (infer,) = daemon.workers("infer")
    os.kill(infer, signal.SIGSTOP)
    names = iter(range(10_000))
    dropped: list[str] = []

    def drop() -> None:
        dropped.append(f"{next(names)}.jpg")
        rooms.drop(dropped[-1], face_bytes(1))

    drop()
    daemon.wait_health(lambda health: health["in_flight"] > 0, "a picture in flight")
    stop_at_something(daemon.process.pid, drop)
    stopped = time.monotonic()
    wait_for(lambda: time.monotonic() - stopped > PATIENCE_S + 1, "a time that is too long for a worker")
    before = daemon.health()["updated_at"]
    daemon.process.send_signal(signal.SIGCONT)
    daemon.wait_health(lambda health: health["updated_at"] != before, "a look at its workers")
    os.kill(infer, signal.SIGCONT)
    daemon.wait_count("saved", len(dropped))
    assert [worker["restarts"] for worker in daemon.health()["workers"]] == [0] * 3
    assert daemon.stop() == 0
