"""Workers that can't start: the daemon is degraded, says why, and recovers by itself."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from drawing import face_bytes
from running import QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]


def test_weights_spoilt_after_the_start_degrade_until_they_are_mended(
    start: Start, rooms: Rooms, tiny_weights: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    whole = tiny_weights.read_bytes()
    weights.write_bytes(whole)
    daemon = start("--weights", str(weights)).wait_ready()
    rooms.drop("before.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)

    def kill_and_wait(words: str) -> None:
        """Kill the inference worker; its successor can't start, and the health file says why."""
        (pid,) = daemon.workers("infer")
        os.kill(pid, signal.SIGKILL)
        health = daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
        assert health["reason"].startswith("worker infer-0, while starting, can't work: ")
        assert str(weights) in health["reason"]
        assert words in health["reason"]

    weights.unlink()
    kill_and_wait("No such file or directory; name a readable weights file")
    rooms.drop("meanwhile.jpg", face_bytes(2))
    daemon.wait_log("can't work", times=2)  # tried again, in vain
    weights.write_bytes(whole)
    daemon.wait_ready()
    daemon.wait_count("saved", 2)

    os.truncate(weights, len(whole) // 2)
    kill_and_wait("neither safetensors nor a checkpoint")
    weights.write_bytes(whole)
    daemon.wait_ready()
    rooms.drop("after.jpg", face_bytes(3))
    daemon.wait_count("saved", 3)
    assert daemon.stop() == 0
    assert rooms.pictures("archive") == ["after.jpg", "before.jpg", "meanwhile.jpg"]


def test_weights_that_never_worked_end_the_daemon(start: Start, tiny_weights: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(tiny_weights.read_bytes()[:1000])
    daemon = start("--weights", str(weights))
    assert daemon.wait_end() == 78
    assert "neither safetensors nor a checkpoint" in daemon.log


def test_a_worker_that_dies_idle_as_soon_as_it_is_ready_is_started_ever_later(
    start: Start, rooms: Rooms
) -> None:
    daemon = start(settings=QUICK).wait_ready()

    def kill_once_ready(killed: int) -> int:
        """Kill the next preprocess worker when it is ready."""
        health = daemon.wait_health(
            lambda h: any(
                w["stage"] == "preprocess" and w["ready"] and w["pid"] != killed for w in h["workers"]
            ),
            "a preprocess worker that is ready",
        )
        (pid,) = [worker["pid"] for worker in health["workers"] if worker["stage"] == "preprocess"]
        os.kill(pid, signal.SIGKILL)
        return int(pid)

    killed = 0
    for _ in range(3):
        killed = kill_once_ready(killed)
    health = daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
    assert health["reason"] == "worker preprocess-0, soon after it was ready, died of signal 9 (SIGKILL)"
    waiting = daemon.wait_health(
        lambda h: any(w["stage"] == "preprocess" and not w["alive"] for w in h["workers"]),
        "a place that waits for its worker",
    )
    assert waiting["state"] == "degraded"
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    daemon.wait_ready()
    assert daemon.stop() == 0


def test_a_worker_that_the_system_has_no_room_for_is_started_later(start: Start, rooms: Rooms) -> None:
    """No descriptor is left for its pipes, nor for anything else: the daemon says so, and lives on."""
    daemon = start(settings=QUICK).wait_ready()
    pid = daemon.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    (victim,) = daemon.workers("preprocess")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    os.kill(victim, signal.SIGKILL)
    daemon.wait_log("worker preprocess-0 can't be started: Too many open files")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    wait_for(lambda: daemon.workers("preprocess") not in ([], [victim]), "another worker")
    daemon.wait_ready()
    rooms.drop("after.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0
