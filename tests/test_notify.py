"""What a service manager is told: a real socket takes its place, and hears a real daemon."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from cradle import started_by
from drawing import face_bytes
from maskdrop.events import Event
from maskdrop.supervisor.notices import END_S
from maskdrop.supervisor.vigil import Vigil
from maskdrop.systemd import journal_fields
from maskdrop.ticket import Stage
from running import QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]
pytest.importorskip(
    "systemd.daemon", reason="systemd-python is not installed (libsystemd-dev, maskdrop[systemd])"
)


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        # Read all the time, as systemd does: a socket that nobody reads takes ten messages.
        threading.Thread(target=self._read, daemon=True).start()

    def environment(self, watchdog_s: float = 3.0) -> dict[str, str]:
        times = {"WATCHDOG_USEC": str(int(watchdog_s * 1e6))}
        return {**os.environ, "NOTIFY_SOCKET": str(self.path), **times}

    def listen(self) -> list[dict[str, str]]:
        """Everything heard so far."""
        return list(self.heard)

    def _read(self) -> None:
        while message := self._socket.recv(65_536).decode():
            self.heard.append(dict(line.split("=", 1) for line in message.splitlines()))

    def wait(self, key: str, value: str, since: int = 0) -> int:
        """Wait until a message with this line came; its place among those heard."""

        def place() -> int | None:
            found = [
                i for i, m in enumerate(self.listen()) if i >= since and key in m and m[key].startswith(value)
            ]
            return found[0] + 1 if found else None

        found = wait_for(place, f"{key}={value} heard")
        assert found
        return found - 1

    def close(self) -> None:
        self._socket.sendto(b"", str(self.path))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def test_ready_status_watchdog_reload_and_stop_are_told(start: Start, rooms: Rooms, manager: Manager) -> None:
    daemon = start(settings=QUICK, env=manager.environment())
    ready = manager.wait("READY", "1")
    assert daemon.health()["state"] == "running"
    assert manager.heard[ready]["STATUS"] == "running, 0.0 pictures/s, backlog 0"
    assert all("READY" not in message for message in manager.heard[:ready])
    assert any("EXTEND_TIMEOUT_USEC" in message for message in manager.heard[:ready])
    fed = manager.wait("WATCHDOG", "1", ready)
    manager.wait("WATCHDOG", "1", fed + 1)

    for index in range(120):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon.wait_count("saved", 10)
    manager.wait("STATUS", "running, ", ready + 1)

    before = time.monotonic_ns() // 1000
    (rooms.base / "maskdrop.toml").write_text(QUICK + "[save]\nquality = 60\n")
    daemon.process.send_signal(signal.SIGHUP)
    reloading = manager.wait("RELOADING", "1", ready)
    assert before <= int(manager.heard[reloading]["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    again = manager.wait("READY", "1", reloading)
    (rooms.base / "maskdrop.toml").write_text("[nothing]\n")
    daemon.process.send_signal(signal.SIGHUP)
    manager.wait("READY", "1", manager.wait("RELOADING", "1", again))

    for index in range(200, 300):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon.wait_health(lambda h: h["in_flight"] > 8, "pictures in flight")
    daemon.terminate()
    stopping = manager.wait("STOPPING", "1", again)
    extended = manager.wait("EXTEND_TIMEOUT_USEC", "", stopping)
    assert 5_000_000 <= int(manager.heard[extended]["EXTEND_TIMEOUT_USEC"]) <= 10_000_000
    manager.wait("STATUS", "draining", stopping)
    assert daemon.wait_end() == 0
    manager.wait("STATUS", "stopped", stopping)


def begun_slowly(daemon: Daemon, manager: Manager, since: int, others: set[int]) -> int:
    """Stop each worker that the daemon starts until it has asked for time twice, and then let them go on: as
    if these prepared for minutes. The place of what it says when they are ready.

    Args:
        since: how much had been heard before.
        others: its processes of before.
    """
    known = set(others)
    stopped: list[psutil.Process] = []

    def asked_twice() -> bool:
        for child in started_by(daemon.process.pid):
            if child.pid not in known:
                known.add(child.pid)
                child.suspend()
                stopped.append(child)
        return sum("EXTEND_TIMEOUT_USEC" in message for message in manager.heard[since:]) >= 2

    wait_for(asked_twice, "time asked for twice")
    assert not any("READY" in message for message in manager.heard[since:])
    for child in stopped:
        child.resume()
    return manager.wait("READY", "1", since)


def test_a_start_that_takes_long_asks_for_more_time_until_it_is_over(
    start: Start, rooms: Rooms, manager: Manager
) -> None:
    daemon = start(settings=QUICK, env=manager.environment())
    ready = begun_slowly(daemon, manager, 0, set())
    (rooms.base / "maskdrop.toml").write_text(QUICK + "channels_last = false\n")
    since, others = len(manager.heard), {process.pid for process in daemon.processes()}
    assert not any("EXTEND_TIMEOUT_USEC" in message for message in manager.heard[ready:since])
    daemon.process.send_signal(signal.SIGHUP)
    begun_slowly(daemon, manager, since, others)
    assert daemon.stop() == 0


def test_a_degraded_daemon_is_ready_after_a_reload_however_seldom_its_health_file_is_written(
    start: Start, rooms: Rooms, manager: Manager
) -> None:
    """It is degraded before and after, for the same reason: it may set too few watches."""
    settings = QUICK.replace("interval_s = 0.2", "interval_s = 3600")
    unshare = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    prefix = [*unshare, 'echo 4 > /proc/sys/user/max_inotify_watches && exec "$@"', "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespace with a limit of its own can be made here")
    for number in range(8):
        (rooms.inbox / str(number)).mkdir()
    daemon = start(prefix=prefix, settings=settings, env=manager.environment())
    ready = manager.wait("READY", "1")
    assert "max_user_watches" in daemon.health()["reason"]
    (rooms.base / "maskdrop.toml").write_text(settings + "[save]\nquality = 60\n")
    daemon.process.send_signal(signal.SIGHUP)
    manager.wait("READY", "1", manager.wait("RELOADING", "1", ready))
    assert "max_user_watches" in daemon.health()["reason"]
    assert daemon.stop() == 0


def test_however_seldom_the_health_file_is_written_nothing_that_is_waited_for_is_late(
    start: Start, rooms: Rooms, manager: Manager
) -> None:
    settings = QUICK.replace("interval_s = 0.2", "interval_s = 3600") + "[drain]\ndrain_timeout_s = 6\n"
    daemon = start(settings=settings, env=manager.environment())
    ready = manager.wait("READY", "1")
    for content in (settings, "[nothing]\n"):
        (rooms.base / "maskdrop.toml").write_text(content)
        daemon.process.send_signal(signal.SIGHUP)
        ready = manager.wait("READY", "1", manager.wait("RELOADING", "1", ready))
    (infer,) = daemon.workers("infer")
    os.kill(infer, signal.SIGSTOP)
    rooms.drop("a.jpg", face_bytes(1))

    def holds_it() -> bool:
        daemon.process.send_signal(signal.SIGHUP)  # the answer to which comes with a health file
        return bool(daemon.health()["in_flight"])

    wait_for(holds_it, "a picture in hand")
    daemon.terminate()
    assert daemon.wait_end() == 1
    since = manager.heard[manager.wait("STOPPING", "1", ready) :]
    asked = [int(m["EXTEND_TIMEOUT_USEC"]) / 1e6 for m in since if "EXTEND_TIMEOUT_USEC" in m]
    assert asked[0] == 10
    assert len(asked) == 2
    assert END_S <= asked[1] <= END_S + 1  # what is left of the drain, and the time to end after it


def test_a_daemon_that_is_busy_for_long_is_fed(start: Start, rooms: Rooms, manager: Manager) -> None:
    """For longer than the times after which a stage that says nothing is given up."""
    settings = QUICK.replace("[workers]", "[workers]\nslots = 4\nstage_timeout_s = 4\nstart_timeout_s = 1000")
    daemon = start(settings=settings, env=manager.environment()).wait_ready()
    (rooms.base / "maskdrop.toml").write_text(settings.replace("1000", "3"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log("the configuration is taken up: 0 workers")
    first = datetime.fromisoformat(daemon.health()["updated_at"])
    content, names = face_bytes(1, width=64, height=64), iter(range(1_000_000))
    dropped = 0

    def is_long_after(health: dict[str, Any]) -> bool:
        nonlocal dropped
        while dropped < health["counts"]["accepted"] + 200:
            dropped += 1
            rooms.drop(f"{next(names)}.jpg", content)
        return datetime.fromisoformat(health["updated_at"]) - first > timedelta(seconds=10)

    daemon.wait_health(is_long_after, "many pictures later")
    manager.wait("WATCHDOG", "1", len(manager.heard))
    assert "no answer from" not in daemon.log


def test_a_stage_without_progress_stops_the_feeding(start: Start, rooms: Rooms, manager: Manager) -> None:
    timeouts = "preprocess = 1\nstage_timeout_s = 1\nstart_timeout_s = 1000"
    settings = QUICK.replace("preprocess = 1", timeouts)
    # Executed, so that a worker takes long enough to start to be stopped before it is ready.
    environment = manager.environment(watchdog_s=1.0) | {"MASKDROP_EXEC": "1"}
    daemon = start(settings=settings, env=environment).wait_ready()
    known = {process.pid for process in daemon.processes()}
    (rooms.base / "maskdrop.toml").write_text(settings.replace("1000", "2"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log("the configuration is taken up: 0 workers")
    stopped = psutil.Process(daemon.workers("preprocess")[0])
    rooms.drop("a.jpg", face_bytes(1))
    stopped.suspend()

    def stop_the_next() -> bool:
        for process in daemon.processes():
            if process.pid not in known:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
        return "no answer from preprocess: the watchdog is not fed any more" in daemon.log

    wait_for(stop_the_next, "the feeding to stop")
    wait_for(
        lambda: stop_the_next() and "not ready after 2 s (workers.start_timeout_s)" in daemon.log,
        "a worker that never gets ready to be killed",
    )
    silent_from = len(manager.listen())
    (rooms.base / "maskdrop.toml").write_text(settings)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log("the configuration is taken up", times=2)
    for pid in daemon.workers("preprocess"):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).resume()
    daemon.wait_count("saved", 1)
    manager.wait("WATCHDOG", "1", silent_from)
    assert daemon.stop() == 0


def test_without_the_binding_a_listening_service_manager_is_a_clear_fault(
    rooms: Rooms, manager: Manager
) -> None:
    program = (
        "import sys; sys.modules['systemd'] = None\nfrom maskdrop.__main__ import main\n"
        f"sys.argv = ['maskdrop', 'run', '--inbox', {str(rooms.inbox)!r}, "
        f"'--outbox', {str(rooms.outbox)!r}]\nmain()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=manager.environment(),
        check=False,
    )
    assert ended.returncode == 78
    assert "systemd-python is not installed; install libsystemd-dev and maskdrop[systemd]" in ended.stderr


def test_a_manager_that_is_not_there_any_more_ends_nothing(
    start: Start, rooms: Rooms, manager: Manager
) -> None:
    """Nor one that never was: a shell's own variable, from a service that is long gone."""
    daemon = start(settings=QUICK, env=manager.environment()).wait_ready()
    away = manager.path.rename(rooms.base / "away")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    daemon.wait_log(f"NOTIFY_SOCKET is {manager.path}, and nobody listens there")
    assert daemon.stop() == 0
    second = start(settings=QUICK, env=manager.environment()).wait_ready()
    assert second.stop() == 0
    assert second.log.count("nobody listens there") == 2  # once each
    away.rename(manager.path)


def test_a_stage_is_silent_only_while_it_has_work() -> None:
    vigil = Vigil(stage_timeout_s=10, start_timeout_s=20, now=0)
    assert vigil.silent(set(), 1000) == []
    assert vigil.silent({Stage.SAVE}, 1029) == []
    assert vigil.silent({Stage.SAVE}, 1031) == [Stage.SAVE]
    vigil.note_answer(Stage.SAVE, 1031)
    assert vigil.silent({Stage.SAVE, Stage.INFER}, 1060) == []
    assert vigil.silent({Stage.SAVE, Stage.INFER}, 1062) == [Stage.INFER, Stage.SAVE]
    vigil.forgive(40, 1062)
    assert vigil.silent(set(Stage), 1092) == []
    vigil.forgive(2, 1095)
    assert vigil.silent(set(Stage), 1094) == []
    assert vigil.silent(set(Stage), 1095) == list(Stage)


def test_fields_get_names_that_the_journal_takes() -> None:
    fields = {
        "event": "saved",
        "picture": "a b.jpg",
        "outputs": ["x", "y"],
        "ms": {"infer again": 2.5, "total": 9.0},
    }
    assert journal_fields(fields) == {
        "MESSAGE_ID": Event.SAVED.value,
        "MASKDROP_EVENT": "saved",
        "MASKDROP_PICTURE": "a b.jpg",
        "MASKDROP_OUTPUTS": "x\ny",
        "MASKDROP_MS_INFER_AGAIN": "2.5",
        "MASKDROP_MS": "9.0",
    }


def test_the_catalogue_explains_every_kind_of_event() -> None:
    catalogue = (Path(__file__).parent.parent / "systemd" / "maskdrop.catalog").read_text()
    told = [line.split()[1] for line in catalogue.splitlines() if line.startswith("-- ")]
    assert sorted(told) == sorted(event.value for event in Event)
