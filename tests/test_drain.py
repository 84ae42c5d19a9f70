"""Ending: SIGTERM, SIGINT, a second signal, a timeout, a full backlog."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from drawing import face_bytes
from maskdrop.supervisor.signals import ONE_REQUEST_S, Signals
from running import EXECUTED, FULL, QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]


def test_the_first_process_of_a_container_ends_when_it_is_told_before_it_has_begun(
    rooms: Rooms, tiny_weights: Path
) -> None:
    """The kernel gives it no signal that it has no answer to."""
    inside = ["unshare", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode != 0:
        pytest.skip("no namespace for processes can be made here")
    words = [
        "run",
        "--inbox",
        str(rooms.inbox),
        "--outbox",
        str(rooms.outbox),
        "--weights",
        str(tiny_weights),
    ]
    process = subprocess.Popen([*inside, sys.executable, "-m", "maskdrop", *words], stderr=subprocess.PIPE)

    def has_ended() -> bool:
        for first in psutil.Process(process.pid).children() if process.poll() is None else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                first.terminate()
        return process.poll() is not None

    wait_for(has_ended, "its end")
    assert process.returncode == 0
    assert process.communicate()[1] == b""


def test_sigterm_in_the_middle_loses_nothing_and_the_next_start_goes_on(start: Start, rooms: Rooms) -> None:
    contents = {f"{index:03}.jpg": face_bytes(index) for index in range(300)}
    for name, content in contents.items():
        rooms.drop(name, content)
    first = start().wait_ready()
    first.wait_count("saved", 40)
    assert first.stop() == 0
    saved, archived, left = rooms.pictures("outbox"), rooms.pictures("archive"), rooms.pictures("inbox")
    assert saved == archived
    assert sorted(archived + left) == sorted(contents)
    assert len(left) > 100
    assert first.log.count("saved 0") + first.log.count("saved 1") + first.log.count("saved 2") == len(saved)

    second = start(settings=FULL + "[model]\ninput_size = 96\n").wait_ready()
    second.wait_count("saved", len(left))
    assert second.stop() == 0
    assert rooms.pictures("outbox") == rooms.pictures("archive") == sorted(contents)
    assert {name: (rooms.archive / name).read_bytes() for name in contents} == contents


def test_a_drain_finishes_only_what_holds_a_slot(start: Start, rooms: Rooms) -> None:
    settings = QUICK.replace("[workers]", "[workers]\nslots = 6\nmax_batch = 2")
    for index in range(500):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon = start(settings=settings).wait_ready()
    daemon.wait_count("saved", 10)
    assert daemon.health()["in_flight"] <= 6
    daemon.terminate()
    daemon.wait_health(lambda h: h["state"] in ("draining", "stopped"), "state draining")
    accepted = daemon.health()["counts"]["accepted"]
    assert daemon.wait_end() == 0
    health = daemon.health()
    assert health["state"] == "stopped"
    assert health["reason"] == "drained"
    assert health["in_flight"] == 0
    assert health["counts"]["accepted"] == health["counts"]["saved"] == accepted
    assert len(rooms.pictures("inbox")) == 500 - accepted


def test_idle_sigint_ends_at_once_and_all_processes_with_it(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    processes = daemon.processes()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait_end() == 0
    assert psutil.wait_procs(processes, timeout=20)[1] == []


def test_sigterm_to_the_whole_group_drains_too(start: Start, rooms: Rooms) -> None:
    daemon = start(start_new_session=True).wait_ready()
    for index in range(60):
        rooms.drop(f"{index:02}.jpg", face_bytes(index))
    daemon.wait_count("saved", 3)
    os.killpg(daemon.process.pid, signal.SIGTERM)
    assert daemon.wait_end() == 0
    assert rooms.pictures("outbox") == rooms.pictures("archive")
    assert len(rooms.pictures("archive") + rooms.pictures("inbox")) == 60
    assert "died" not in daemon.log


def test_signals_that_ask_for_no_end_end_nothing(start: Start, rooms: Rooms) -> None:
    """A terminal's hang-up, which goes to the whole group, and what a lease that is broken sends."""
    daemon = start(start_new_session=True).wait_ready()
    before = [worker["pid"] for worker in daemon.health()["workers"]]
    os.killpg(daemon.process.pid, signal.SIGHUP)
    daemon.process.send_signal(signal.SIGIO)
    daemon.wait_log("configuration read again")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert "died" not in daemon.log
    assert [worker["pid"] for worker in daemon.health()["workers"]] == before
    assert daemon.stop() == 0


def stuck_daemon(start: Start, rooms: Rooms, settings: str = QUICK) -> Daemon:
    """A daemon whose inference worker is stopped while pictures are in flight."""
    daemon = start(settings=settings).wait_ready()
    (pid,) = daemon.workers("infer")
    os.kill(pid, signal.SIGSTOP)
    for index in range(5):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon.wait_health(lambda h: h["in_flight"] == 5, "pictures in flight")
    return daemon


def test_the_same_signal_twice_at_once_is_one_request() -> None:
    """As timeout(1) ends what it runs: the process, and then its group."""
    signals = Signals()
    for number in (signal.SIGTERM, signal.SIGTERM):
        signals.handle_term(number, None)
    assert signals.term_count == 1
    signals.handle_term(signal.SIGINT, None)
    assert signals.term_count == 2
    time.sleep(ONE_REQUEST_S)  # not hope: sooner it would be the same request
    signals.handle_term(signal.SIGINT, None)
    assert signals.term_count == 3


def test_a_second_signal_ends_at_once(start: Start, rooms: Rooms) -> None:
    daemon = stuck_daemon(start, rooms)
    processes = daemon.processes()
    daemon.terminate()
    daemon.wait_health(lambda h: h["state"] == "draining", "state draining")
    time.sleep(ONE_REQUEST_S)  # not hope: sooner it would be the same request
    daemon.terminate()
    assert daemon.wait_end() == 1
    assert psutil.wait_procs(processes, timeout=20)[1] == []
    assert len(rooms.pictures("inbox")) == 5
    assert daemon.health()["reason"] == "drain cut short"
    second = start().wait_ready()
    second.wait_count("saved", 5)


@pytest.mark.parametrize("timeout", ["0", "1.5"])
def test_the_drain_timeout_ends_what_is_stuck(start: Start, rooms: Rooms, timeout: str) -> None:
    daemon = stuck_daemon(start, rooms, QUICK + f"[drain]\ndrain_timeout_s = {timeout}\n")
    assert daemon.stop() == 1
    assert "drain.drain_timeout_s is over" in daemon.log
    assert len(rooms.pictures("inbox")) == 5


@pytest.mark.parametrize("timeout", ["0", "0.5"])
def test_the_drain_timeout_with_nothing_in_flight_is_a_drain_all_the_same(
    start: Start, rooms: Rooms, timeout: str
) -> None:
    """However long an idle worker takes to end."""
    daemon = start(settings=QUICK + f"[drain]\ndrain_timeout_s = {timeout}\n").wait_ready()
    processes = daemon.processes()
    (save,) = daemon.workers("save")
    os.kill(save, signal.SIGSTOP)
    assert daemon.stop() == 0
    assert psutil.wait_procs(processes, timeout=20)[1] == []
    assert daemon.health()["reason"] == "drained"
    assert "ending at once" not in daemon.log


def test_a_worker_that_is_still_starting_is_not_waited_for(start: Start, rooms: Rooms) -> None:
    """It may take minutes: to read libraries from a slow disk, or to build what TensorRT runs."""
    daemon = start(env=EXECUTED)
    daemon.wait_health(lambda h: h["state"] == "starting" and daemon.workers("infer"), "a worker that starts")
    (infer,) = daemon.workers("infer")
    os.kill(infer, signal.SIGSTOP)
    assert daemon.stop() == 0
    assert "drain_timeout_s" not in daemon.log


def test_a_signal_during_the_start_ends_cleanly(start: Start, rooms: Rooms) -> None:
    rooms.drop("a.jpg", face_bytes(1))
    daemon = start()
    daemon.wait_health(lambda h: h["state"] == "starting", "state starting")
    assert daemon.stop() == 0
    assert len(rooms.pictures("inbox") + rooms.pictures("archive")) == 1
