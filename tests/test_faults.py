"""Workers that die, at any instant, idle or at work: nothing is lost and nobody is stuck."""

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from drawing import face_bytes
from maskdrop.inbox.lock import LOCK_NAME
from running import EXECUTED, PAIRS, QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]

STAGES = ("preprocess", "infer", "save")
KILLS = 20


def quick_with(workers: str) -> str:
    return PAIRS.replace("[workers]", "[workers]\n" + workers)


def kill_one(daemon: Daemon, stage: str, chance: random.Random, killed: set[int]) -> int | None:
    """SIGKILL to a random living worker of a stage; its process number, or None if there was none.

    ``killed`` holds those killed before, which the health file may still name.
    """
    pids = [pid for pid in daemon.workers(stage) if pid not in killed]
    if not pids:
        return None
    pid = chance.choice(pids)
    os.kill(pid, signal.SIGKILL)
    killed.add(pid)
    return pid


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_work_at_random_instants(start: Start, rooms: Rooms, stage: str) -> None:
    seed = int(os.environ.get("MASKDROP_SEED", str(time.time_ns() % 10**6)))
    print(f"seed {seed}; give it again with MASKDROP_SEED")
    chance = random.Random(seed)
    settings = quick_with("max_attempts = 1000")
    if stage == "infer":  # so that a batch begins before the one before it has ended
        settings = settings.replace("inference_threads = 1", "inference_threads = 2\nmax_batch = 2")
    daemon = start(settings=settings).wait_ready()
    contents: dict[str, bytes] = {}
    killed: set[int] = set()
    saved = 0
    while len(killed) < KILLS:
        for _ in range(6):
            name = f"{len(contents):04}.jpg"
            contents[name] = face_bytes(len(contents))
            rooms.drop(name, contents[name])
        daemon.wait_count("saved", saved + 1)  # so it is at work again, not starting
        time.sleep(chance.uniform(0, 0.3))  # the random instant
        saved = daemon.health()["counts"]["saved"]
        kill_one(daemon, stage, chance, killed)
    daemon.wait_health(lambda h: h["in_flight"] == 0 and h["backlog"] == 0, "an empty inbox", 150)
    daemon.wait_count("saved", len(contents))
    health = daemon.wait_health(
        lambda h: sum(worker["restarts"] for worker in h["workers"]) == KILLS, "a successor for each"
    )
    assert daemon.stop() == 0
    assert rooms.pictures("quarantine") == rooms.pictures("inbox") == []
    assert rooms.pictures("outbox") == sorted(contents)
    assert {name: (rooms.archive / name).read_bytes() for name in rooms.pictures("archive")} == contents
    assert health["counts"]["saved"] == len(contents)


def test_killed_while_idle_is_seen_logged_and_replaced(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=PAIRS).wait_ready()
    killed: set[int] = set()
    for stage in STAGES:
        for _ in range(KILLS // 4):
            before = set(daemon.workers(stage))
            victim = kill_one(daemon, stage, random.Random(1), killed)
            assert victim is not None
            daemon.wait_log(f"(pid {victim}) died of signal 9 (SIGKILL)")
            daemon.wait_health(
                lambda h, s=stage, v=victim, b=before: len(set(daemon.workers(s)) - {v}) == len(b),
                "a worker in its place",
            )
    for index in range(10):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon.wait_count("saved", 10)
    daemon.wait_health(lambda h: h["state"] == "running", "state running")
    assert daemon.stop() == 0


def test_a_supervisor_slower_than_the_stage_timeout_blames_no_worker(start: Start, rooms: Rooms) -> None:
    """Each round of its loop takes longer than a worker may be silent, as an inbox on a disk that hangs
    would make it."""
    odd, slow = rooms.base / "odd", rooms.base / "slow"
    odd.mkdir()
    (odd / "sitecustomize.py").write_text(
        f"""
import sys, time
from pathlib import Path

if "run" in sys.orig_argv:
    from maskdrop.inbox.intake import Intake

    advance = Intake.advance

    def slowly(self, now):
        advance(self, now)
        time.sleep(4 if Path({str(slow)!r}).exists() else 0)

    Intake.advance = slowly
"""
    )
    paths = os.pathsep.join([str(odd), os.environ.get("PYTHONPATH", "")])
    settings = quick_with("stage_timeout_s = 3\nmax_attempts = 1")
    daemon = start(settings=settings, env={**os.environ, "PYTHONPATH": paths}).wait_ready()
    slow.touch()
    for index in range(3):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon.wait_count("saved", 3)
    slow.unlink()
    assert daemon.stop() == 0
    assert "was hung and killed" not in daemon.log


def test_a_reload_finds_no_other_folders_where_the_one_it_was_started_in_is_gone(
    start: Start, rooms: Rooms
) -> None:
    """Relative paths have no meaning any more, and get no other one."""
    gone = rooms.base / "gone"
    gone.mkdir()
    daemon = start("--archive", "../archive", settings=QUICK, cwd=gone, env=EXECUTED).wait_ready()
    gone.rmdir()
    (saver,) = daemon.workers("save")
    os.kill(saver, signal.SIGKILL)
    daemon.wait_health(lambda health: daemon.workers("save") not in ([saver], []), "another saver")
    (rooms.base / "maskdrop.toml").write_text(QUICK + "[save]\nquality = 60\n")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log("not taken: folders.archive = ../archive: is relative, and the folder that maskdrop was")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0
    assert rooms.pictures("archive") == ["a.jpg"]


def test_workers_are_replaced_where_the_folder_it_was_started_in_is_gone(start: Start, rooms: Rooms) -> None:
    gone = rooms.base / "gone"
    gone.mkdir()
    daemon = start(settings=QUICK, cwd=gone, env=EXECUTED).wait_ready()
    gone.rmdir()
    for stage in STAGES:
        (pid,) = daemon.workers(stage)
        os.kill(pid, signal.SIGKILL)
    daemon.wait_health(lambda h: sum(worker["restarts"] for worker in h["workers"]) == 3, "successors")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def test_all_workers_killed_at_once(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=quick_with("max_attempts = 1000"), env=EXECUTED).wait_ready()
    for index in range(40):
        rooms.drop(f"{index:02}.jpg", face_bytes(index))
    daemon.wait_count("saved", 1)
    for stage in STAGES:
        for pid in daemon.workers(stage):
            os.kill(pid, signal.SIGKILL)
    daemon.wait_count("saved", 40)
    assert daemon.stop() == 0
    assert rooms.pictures("outbox") == rooms.pictures("archive") == [f"{i:02}.jpg" for i in range(40)]


def test_the_supervisor_killed_takes_its_workers_along_and_the_next_start_goes_on(
    start: Start, rooms: Rooms
) -> None:
    first = start(settings=PAIRS).wait_ready()
    for index in range(60):
        rooms.drop(f"{index:02}.jpg", face_bytes(index))
    first.wait_count("saved", 5)
    workers = first.processes()[1:]
    for stage in STAGES:
        pid = first.workers(stage)[0]
        assert str(rooms.inbox / LOCK_NAME) in map(os.readlink, Path(f"/proc/{pid}/fd").iterdir())
        os.kill(pid, signal.SIGSTOP)  # it can't see that its pipe is closed
    first.process.kill()
    first.process.wait()
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    done, left = rooms.pictures("archive"), rooms.pictures("inbox")
    assert sorted(done + left) == [f"{i:02}.jpg" for i in range(60)]
    second = start(settings=PAIRS).wait_ready()
    second.wait_health(lambda h: h["counts"]["saved"] == len(left), "the rest saved")
    assert second.stop() == 0
    assert rooms.pictures("outbox") == rooms.pictures("archive") == [f"{i:02}.jpg" for i in range(60)]


def test_a_picture_that_kills_its_worker_is_quarantined_alone(start: Start, rooms: Rooms) -> None:
    """The picture's worker is killed whenever it is at it, which is what a decoder bug would do."""
    daemon = start(settings=quick_with("max_attempts = 3")).wait_ready()
    for index in range(20):
        rooms.drop(f"good-{index}.jpg", face_bytes(index))
    daemon.wait_count("saved", 20)
    rooms.drop("poison.png", face_bytes(1, "PNG", 7000, 7000))  # takes a while to decode
    for attempt in range(1, 4):
        daemon.wait_health(lambda h: h["in_flight"] == 1, "the picture in flight")

        def worker_at_it() -> int | None:
            for pid in daemon.workers("preprocess"):
                with contextlib.suppress(psutil.NoSuchProcess):  # told of, but dead
                    if psutil.Process(pid).memory_full_info().uss > 150 * 2**20:
                        return pid
            return None

        pid = wait_for(worker_at_it, "a worker that decodes")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        daemon.wait_log("it held poison.png", times=attempt)
    daemon.wait_count("quarantined", 1)
    reason = json.loads((rooms.quarantine / "poison.png.reason.json").read_text())
    assert (reason["error"], reason["attempts"], reason["stage"]) == ("WorkerDied", 3, "preprocess")
    assert "signal 9 (SIGKILL)" in reason["message"]
    rooms.drop("after.jpg", face_bytes(3))
    daemon.wait_count("saved", 21)
    assert daemon.stop() == 0


def test_a_worker_that_cannot_start_degrades_the_daemon(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=PAIRS, env=EXECUTED)  # whose workers take their time to start
    killed: set[int] = set()
    for _ in range(3):
        health = daemon.wait_health(
            lambda h: any(w["stage"] == "infer" and w["alive"] for w in h["workers"]), "a started worker"
        )
        if health["state"] == "running":
            break
        kill_one(daemon, "infer", random.Random(1), killed)
        daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
    assert "infer-0, while starting, died of signal 9 (SIGKILL)" in daemon.health()["reason"]
    daemon.wait_ready()
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
