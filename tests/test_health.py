"""The health file and ``maskdrop status``: what they tell, to whom, and when."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broken_files import broken_files
from drawing import face_bytes
from maskdrop.health import (
    Counts,
    Health,
    Latest,
    PlanHealth,
    StageHealth,
    State,
    WorkerHealth,
    write_health,
)
from running import PAIRS, QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]


def status(health: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskdrop", "status", "--health", str(health), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_it_holds_what_is_promised(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=PAIRS).wait_ready()
    for index in range(20):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    rooms.drop("broken.jpg", broken_files()["jpeg-half.jpg"])
    daemon.wait_count("saved", 20)
    health = daemon.wait_count("quarantined", 1)
    assert health["pid"] == daemon.process.pid
    assert health["counts"] == {"accepted": 21, "saved": 20, "quarantined": 1, "retried": 0, "left": 0}
    assert health["in_flight"] == health["backlog"] == 0
    assert set(health["queues"]) == {"preprocess", "infer", "locate", "save", "quarantine", "free_slots"}
    workers = [(worker["stage"], worker["alive"], worker["restarts"]) for worker in health["workers"]]
    assert workers == [("preprocess", True, 0)] * 2 + [("infer", True, 0)] + [("save", True, 0)] * 2
    assert len({worker["pid"] for worker in health["workers"]}) == 5
    assert health["throughput_per_s"] > 0
    assert 0 < health["latency_ms"]["p50"] <= health["latency_ms"]["p99"]
    assert health["device"] == "cpu"
    assert health["model"].startswith("tiny.safetensors sha256:")
    started, updated = (datetime.fromisoformat(health[key]) for key in ("started_at", "updated_at"))
    assert started <= updated <= datetime.now(UTC) + timedelta(seconds=5)


def test_it_is_replaced_every_interval_and_never_seen_in_part(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    times, inodes = set(), set()

    def enough() -> bool:
        inodes.add(rooms.health.stat().st_ino)
        times.add(json.loads(rooms.health.read_bytes())["updated_at"])  # fails on half a file
        return len(times) >= 8

    wait_for(enough, "eight health files")
    assert len(inodes) > 1, "replaced by rename, not written over"
    assert daemon.stop() == 0
    assert not list(rooms.base.glob(".health*")), "no temporary file stays"


def test_each_change_of_state_is_written_at_once(start: Start, rooms: Rooms) -> None:
    settings = QUICK.replace("interval_s = 0.2", "interval_s = 3600")
    daemon = start(settings=settings)
    daemon.wait_health(lambda h: h["state"] == State.STARTING, "state starting")
    daemon.wait_health(lambda h: h["state"] == State.RUNNING, "state running")
    rooms.outbox.rename(rooms.base / "away")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_health(lambda h: h["state"] == State.DEGRADED, "state degraded")
    (rooms.base / "away").rename(rooms.outbox)
    daemon.wait_health(lambda h: h["state"] == State.RUNNING, "recovery")
    (pid,) = daemon.workers("infer")
    os.kill(pid, signal.SIGSTOP)
    rooms.drop("b.jpg", face_bytes(2))
    wait_for(lambda: "b.jpg" in rooms.pictures("inbox"), "the picture")
    rooms.drop("c.jpg", face_bytes(3))
    daemon.terminate()
    daemon.wait_health(lambda h: h["state"] in (State.DRAINING, State.STOPPED), "state draining")
    os.kill(pid, signal.SIGCONT)
    assert daemon.wait_end() == 0
    assert daemon.health()["state"] == State.STOPPED


def test_status_of_a_running_and_of_a_stopped_daemon(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    shown = status(rooms.health)
    assert shown.returncode == 0, shown.stderr
    for part in ("running", f"pid {daemon.process.pid}", "0 saved", "backlog 0", "tiny.safetensors", "infer"):
        assert part in shown.stdout
    machine = status(rooms.health, "--json")
    assert machine.returncode == 0
    assert json.loads(machine.stdout)["state"] == "running"
    assert daemon.stop() == 0
    stopped = status(rooms.health)
    assert stopped.returncode == 1
    assert "stopped (drained)" in stopped.stdout


@pytest.mark.parametrize(
    ("state", "age", "code"),
    [
        ("running", 0, 0),
        ("draining", 0, 0),
        ("degraded", 0, 1),
        ("starting", 0, 1),
        ("stopped", 0, 1),
        ("running", 60, 1),
    ],
)
def test_status_exits_0_only_where_all_is_well(rooms: Rooms, state: str, age: int, code: int) -> None:
    updated = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    health = Health(
        state=State(state),
        reason="a reason",
        pid=4711,
        version="1.0",
        started_at=updated,
        updated_at=updated,
        interval_s=1.0,
        counts=Counts(accepted=3, saved=2, quarantined=1, retried=0, left=0),
        in_flight=0,
        backlog=0,
        queues={"infer": 0},
        stages={"infer": StageHealth(workers=1, ready=1, busy=0.5, waiting=0, ms={"p50": 1.0, "p99": None})},
        plan=PlanHealth(1, 1, 1, threads=2, max_batch=4, slots=12, measured_ms={"infer": None}),
        workers=[WorkerHealth("infer", 4712, alive=True, ready=True, restarts=0)],
        throughput_per_s=1.5,
        latency_ms={"p50": 30.0, "p99": None},
        device="cpu",
        precision="bf16",
        model="m",
        latest=Latest([], []),
    )
    write_health(rooms.health, health)
    shown = status(rooms.health)
    assert shown.returncode == code
    assert "a reason" in shown.stdout
    assert ("STALE" in shown.stdout) == (age > 0)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b'{"state": "running"}', b"\xff\xfe"])
def test_status_of_no_health_file_is_one_clear_line(rooms: Rooms, content: bytes | None) -> None:
    if content is not None:
        rooms.health.write_bytes(content)
    shown = status(rooms.health)
    assert shown.returncode == 1
    assert shown.stdout == ""
    assert shown.stderr.startswith(f"maskdrop: {rooms.health}: ")
    assert shown.stderr.count("\n") == 1


def test_a_health_file_that_cannot_be_written_stops_no_work(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    rooms.health.unlink()
    rooms.health.mkdir()
    daemon.wait_log("the health file")
    rooms.drop("a.jpg", face_bytes(1))
    wait_for(lambda: rooms.pictures("archive") == ["a.jpg"], "the picture saved all the same")
    rooms.health.rmdir()
    daemon.wait_count("saved", 1)
    assert daemon.log.count("can't be written") == 1
