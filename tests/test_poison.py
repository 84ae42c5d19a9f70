"""Pictures that kill or hang their worker, workers that hang, and the end of memory."""

import contextlib
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest

from cradle import started_by
from drawing import face_bytes
from maskdrop.crash_points import CRASH_AT, CrashPoint
from maskdrop.model.weights import Card, save_weights
from running import FULL, PAIRS, QUICK, Daemon, Rooms
from waiting import wait_for
from weights_for_tests import tiny_network

Start = Callable[..., Daemon]

NAMES = ["0-poison.jpg", "1.jpg", "2.jpg", "3.jpg"]


def quick_with(workers: str, settings: str = FULL) -> str:
    return settings.replace("[workers]", "[workers]\n" + workers)


def one_batch(attempts: int, timeout: float) -> str:
    """Settings with which four pictures are one batch, in their order: it waits until it is full."""
    return quick_with(
        f"slots = 4\nmax_batch = 4\nmax_wait_ms = 1000\nmax_attempts = {attempts}\n"
        f"stage_timeout_s = {timeout}"
    )


def drop_batch(rooms: Rooms) -> None:
    for index, name in enumerate(NAMES):
        rooms.drop(name, face_bytes(index))


def reason_of(rooms: Rooms, name: str) -> dict[str, object]:
    content: dict[str, object] = json.loads((rooms.quarantine / f"{name}.reason.json").read_text())
    return content


def test_a_picture_that_kills_its_batch_is_found_alone_and_the_others_are_saved(
    start: Start, rooms: Rooms, tmp_path: Path
) -> None:
    """The inference worker really dies by SIGKILL in mid-batch, then at the first picture alone."""
    markers = [tmp_path / f"died-{index}" for index in range(2)]
    points = os.pathsep.join(f"{CrashPoint.LABELS_WRITTEN.value}@{marker}" for marker in markers)
    environment = {**os.environ, CRASH_AT: points}
    daemon = start(settings=one_batch(attempts=2, timeout=120), env=environment).wait_ready()
    drop_batch(rooms)
    daemon.wait_count("saved", 3)
    daemon.wait_count("quarantined", 1)
    assert all(marker.exists() for marker in markers)
    assert daemon.health()["counts"]["retried"] == len(NAMES) + 1
    deaths = [line for line in daemon.log.splitlines() if "died of signal 9 (SIGKILL)" in line]
    assert [line.partition("it held ")[2] for line in deaths] == [", ".join(NAMES), NAMES[0]]
    assert rooms.pictures("archive") == rooms.pictures("outbox") == NAMES[1:]
    reason = reason_of(rooms, NAMES[0])
    assert (reason["stage"], reason["error"], reason["attempts"]) == ("infer", "WorkerDied", 2)
    assert "signal 9 (SIGKILL)" in str(reason["message"])
    assert daemon.stop() == 0


@pytest.fixture(scope="module")
def slow_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network so wide that a picture takes it a while."""
    path = tmp_path_factory.mktemp("weights") / "slow.safetensors"
    save_weights(path, tiny_network(width=1.0), Card(width=1.0, source="random, for tests"))
    return path


def stop_in_mid_batch(daemon: Daemon, before: set[int]) -> int:
    """SIGSTOP to the inference worker while it computes; its process number."""

    def ready() -> list[int]:
        workers = daemon.health()["workers"]
        return [w["pid"] for w in workers if w["stage"] == "infer" and w["ready"] and w["pid"] not in before]

    (pid,) = wait_for(ready, "a ready worker")
    process = psutil.Process(pid)
    used = process.cpu_times().user
    wait_for(lambda: process.cpu_times().user > used + 0.05, "a worker at work")
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_picture_that_hangs_its_batch_is_found_alone_and_the_others_are_saved(
    start: Start, rooms: Rooms, slow_weights: Path
) -> None:
    """The inference worker is really stopped in mid-batch, and again at the first picture alone."""
    settings = one_batch(attempts=2, timeout=6) + "[model]\nprecision = 'fp32'\n"
    daemon = start("--weights", str(slow_weights), settings=settings).wait_ready()
    drop_batch(rooms)
    first = stop_in_mid_batch(daemon, set())
    hung = "was hung and killed: nothing heard for 6 s (workers.stage_timeout_s); it held "
    daemon.wait_log(hung + ", ".join(NAMES))
    stop_in_mid_batch(daemon, {first})
    daemon.wait_log(hung + NAMES[0] + "\n")
    daemon.wait_count("saved", 3)
    daemon.wait_count("quarantined", 1)
    assert rooms.pictures("archive") == rooms.pictures("outbox") == NAMES[1:]
    reason = reason_of(rooms, NAMES[0])
    assert (reason["stage"], reason["error"], reason["attempts"]) == ("infer", "StageTimeout", 2)
    assert "nothing heard for 6 s (workers.stage_timeout_s)" in str(reason["message"])
    assert daemon.stop() == 0


def test_what_is_taken_for_a_reason_can_be_anything(start: Start, rooms: Rooms) -> None:
    """Such as a file that was broken, and has the name of another one's reason."""
    daemon = start(settings=quick_with("max_attempts = 2", QUICK)).wait_ready()
    rooms.drop("a.jpg.reason.json", b"[" * 20_000)
    daemon.wait_count("quarantined", 1)
    rooms.drop("a.jpg", b"no picture")
    daemon.wait_count("quarantined", 2)
    assert [worker["restarts"] for worker in daemon.health()["workers"]] == [0] * 3
    assert daemon.stop() == 0


def test_a_picture_that_cant_be_quarantined_either_is_left_and_others_go_on(
    start: Start, rooms: Rooms, tmp_path: Path
) -> None:
    """Its save worker really dies each time, between two steps of putting it there."""
    markers = [tmp_path / f"died-{index}" for index in range(2)]
    points = os.pathsep.join(f"{CrashPoint.REASON_SYNCED.value}@{marker}" for marker in markers)
    settings = quick_with("max_attempts = 2", QUICK.replace("rescan_s = 2", "rescan_s = 86400"))
    daemon = start(settings=settings, env={**os.environ, CRASH_AT: points}).wait_ready()
    rooms.drop("bad.jpg", b"no picture")
    daemon.wait_log("left bad.jpg: worker save-0 died of signal 9 (SIGKILL), when it was to be quarantined")
    wait_for((rooms.inbox / "bad.jpg").exists, "the picture under its own name, though it was claimed")
    rooms.drop("good.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.health()["counts"]["left"] == 1
    assert daemon.stop() == 0
    assert rooms.pictures("inbox") == ["bad.jpg"]


def test_workers_stopped_before_they_began_are_found_and_replaced(start: Start, rooms: Rooms) -> None:
    settings = quick_with("max_attempts = 1000\nstage_timeout_s = 4", PAIRS)
    for stage in ("preprocess", "save"):
        settings = settings.replace(f"{stage} = 2", f"{stage} = 1")
    daemon = start(settings=settings).wait_ready()
    stopped = [daemon.workers(stage)[0] for stage in ("preprocess", "infer", "save")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    for index in range(12):
        rooms.drop(f"{index:02}.jpg", face_bytes(index))
    for pid in stopped:
        daemon.wait_log(f"(pid {pid}) was hung and killed")
    daemon.wait_count("saved", 12)
    assert rooms.pictures("outbox") == rooms.pictures("archive") == [f"{i:02}.jpg" for i in range(12)]
    assert daemon.stop() == 0


def test_an_idle_worker_is_never_late(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=quick_with("stage_timeout_s = 0.5")).wait_ready()
    first = datetime.fromisoformat(daemon.health()["updated_at"])

    def later(health: dict[str, str]) -> bool:
        return datetime.fromisoformat(health["updated_at"]) - first > timedelta(seconds=2)

    daemon.wait_health(later, "a health file two seconds on")
    assert [worker["restarts"] for worker in daemon.health()["workers"]] == [0] * 3


@contextlib.contextmanager
def little_memory(daemon: Daemon, limit: int) -> Iterator[None]:
    """Every process the daemon starts meanwhile may map so many bytes."""
    known, over = {process.pid for process in daemon.processes()}, Event()

    def watch() -> None:
        while not over.wait(0.002):
            for child in started_by(daemon.process.pid):
                if child.pid not in known:
                    known.add(child.pid)
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.rlimit(resource.RLIMIT_AS, (limit, limit))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_want_of_memory_is_an_attempt_before_it_is_the_pictures_fault(start: Start, rooms: Rooms) -> None:
    settings = quick_with("max_attempts = 2")
    daemon = start(settings=settings).wait_ready()
    (pid,) = daemon.workers("preprocess")
    process = psutil.Process(pid)
    limit = process.memory_info().vms + 64 * 2**20
    large = face_bytes(1, "PNG", 6000, 6000)  # 108 MB of pixels
    process.rlimit(resource.RLIMIT_AS, (limit, limit))
    rooms.drop("once.png", large)  # the next worker has all the memory it wants
    daemon.wait_count("saved", 1)
    assert f"(pid {pid}) died of want of memory (exit code 71); it held once.png" in daemon.log
    assert rooms.pictures("quarantine") == []
    (pid,) = daemon.workers("preprocess")
    os.kill(pid, signal.SIGKILL)  # it keeps the memory it had; its successor has none
    daemon.wait_health(lambda h: all(w["ready"] and w["pid"] != pid for w in h["workers"]), "another worker")
    with little_memory(daemon, limit):
        (pid,) = daemon.workers("preprocess")
        psutil.Process(pid).rlimit(resource.RLIMIT_AS, (limit, limit))
        rooms.drop("always.png", large + b"another one")
        daemon.wait_count("quarantined", 1)
    reason = reason_of(rooms, "always.png")
    assert (reason["stage"], reason["error"], reason["attempts"]) == ("preprocess", "WorkerDied", 2)
    assert "want of memory" in str(reason["message"])
    rooms.drop("small.jpg", face_bytes(2))
    daemon.wait_count("saved", 2)
    assert daemon.stop() == 0
