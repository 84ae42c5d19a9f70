"""The health file and ``maskdrop status``: what they tell, to whom, and when."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broken_files import broken_files
from drawing import face_bytes
from maskdrop.config_file import load_settings
from maskdrop.health.file import (
    Counts,
    Health,
    Latest,
    PlanHealth,
    StageHealth,
    State,
    WorkerHealth,
    at_another_time,
    content_of,
    read_health,
    timestamp,
)
from maskdrop.health.totals import Totals
from maskdrop.supervisor.pulse import Pulse
from running import PAIRS, QUICK, Daemon, Rooms, maskdrop
from waiting import wait_for

Start = Callable[..., Daemon]


def status(health: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return maskdrop(["status", "--health", str(health), *arguments])


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
    rooms.health.write_bytes(content_of(a_health(State(state), "a reason", updated)))
    shown = status(rooms.health)
    assert shown.returncode == code
    assert "a reason" in shown.stdout
    assert ("STALE" in shown.stdout) == (age > 0)


def test_a_tilde_that_no_shell_saw_is_home(rooms: Rooms) -> None:
    """As in ``--health=~/health.json``, of which bash makes nothing."""
    updated = datetime.now(UTC).isoformat()
    rooms.health.write_bytes(content_of(a_health(State.RUNNING, "", updated)))
    (rooms.base / "own.toml").write_text("nothing")
    environment = {**os.environ, "HOME": str(rooms.base)}
    shown = maskdrop(["status", f"--health=~/{rooms.health.name}"], env=environment)
    assert (shown.returncode, "running" in shown.stdout) == (0, True)
    assert "is not TOML" in maskdrop(["run", "--config=~/own.toml"], env=environment).stderr
    assert "no such user" not in maskdrop(["status", "--health=~nobody-at-all/h"]).stderr


def a_health(state: State, reason: str, updated: str) -> Health:
    return Health(
        state=state,
        reason=reason,
        pid=4711,
        version="1.0",
        started_at=updated,
        updated_at=updated,
        interval_s=1.0,
        counts=Counts(accepted=3, saved=2, quarantined=1, retried=0, left=0),
        in_flight=0,
        backlog=0,
        queues={"infer": 0, "free_slots": 12},
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


@given(st.text(), st.sampled_from(["", '"updated_at": "', '\\"updated_at": "', "updated_at"]))
def test_a_health_of_another_time_differs_in_the_time_alone(text: str, trap: str) -> None:
    health = a_health(State.RUNNING, text + trap + text, timestamp())
    later = "2031-02-03T04:05:06.789+00:00"
    assert at_another_time(content_of(health), later) == content_of(replace(health, updated_at=later))


def inbox_of(rooms: Rooms) -> dict[str, dict[str, str]]:
    return {"folders": {"inbox": str(rooms.inbox), "outbox": str(rooms.outbox)}}


def at_rest(**changes: Any) -> Health:
    stages = {"infer": StageHealth(1, 1, busy=0.0, waiting=0, ms={"p50": 1.0, "p99": None})}
    health = a_health(State.RUNNING, "", timestamp())
    return replace(health, **{"throughput_per_s": 0.0, "stages": stages, **changes})


def test_what_was_said_last_is_said_anew_while_nothing_happens(rooms: Rooms) -> None:
    metrics = rooms.base / "maskdrop.prom"
    pulse = Pulse(load_settings(None, {**inbox_of(rooms), "metrics": {"file": str(metrics)}}))
    health = at_rest(updated_at="2031-02-03T04:05:06.789+00:00")
    assert pulse.take_turn(100.0, State.RUNNING, "")
    pulse.write(health, Totals({}, {}, {}, {}, {}, {}))
    before, metrics_before = read_health(rooms.health), metrics.read_text()
    assert pulse.renew(100.5), "not due"
    assert read_health(rooms.health) == before
    assert pulse.renew(101.0)
    after = read_health(rooms.health)
    assert after["updated_at"] != before["updated_at"]
    assert after == before | {"updated_at": after["updated_at"]}
    lines = zip(metrics_before.splitlines(), metrics.read_text().splitlines(), strict=True)
    changed = [line for old, line in lines if old != line]
    assert [line.partition("{")[0] for line in changed] == ["maskdrop_last_update_timestamp_seconds"]
    updated = datetime.fromisoformat(after["updated_at"]).timestamp()
    assert float(changed[0].rpartition(" ")[2]) == updated


@pytest.mark.parametrize(
    "changes",
    [
        {"in_flight": 1},
        {"throughput_per_s": 0.1},
        {"state": State.DEGRADED},
        {"state": State.STARTING},
        {"reason": "taking up a new configuration"},
        {"stages": {"infer": StageHealth(1, 1, busy=0.001, waiting=0, ms={})}},
    ],
    ids=lambda changes: str(*changes),
)
def test_what_may_change_by_itself_is_not_said_anew(rooms: Rooms, changes: dict[str, Any]) -> None:
    pulse = Pulse(load_settings(None, inbox_of(rooms)))
    pulse.write(at_rest(**changes), Totals({}, {}, {}, {}, {}, {}))
    content = rooms.health.read_bytes()
    assert not pulse.renew(1e9)
    assert rooms.health.read_bytes() == content


def test_nothing_is_said_anew_after_a_round_of_the_loop(rooms: Rooms) -> None:
    pulse = Pulse(load_settings(None, inbox_of(rooms)))
    assert pulse.take_turn(0.0, State.RUNNING, "")
    pulse.write(at_rest(), Totals({}, {}, {}, {}, {}, {}))
    assert not pulse.take_turn(0.5, State.RUNNING, "")
    assert not pulse.renew(1e9)


def test_an_idle_daemon_says_so_and_a_picture_or_a_death_ends_that(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()

    def is_idle() -> bool:
        before = daemon.health()
        wait_for(lambda: daemon.health()["updated_at"] != before["updated_at"], "another health file")
        after = daemon.health()
        return bool(after == before | {"updated_at": after["updated_at"]})

    wait_for(is_idle, "rest")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    daemon.wait_health(lambda h: not h["throughput_per_s"], "ten seconds without a picture")
    wait_for(is_idle, "rest")
    (pid,) = daemon.workers("save")
    os.kill(pid, signal.SIGKILL)
    daemon.wait_health(lambda h: any(w["restarts"] for w in h["workers"]), "the restart")
    assert daemon.stop() == 0


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
