"""A process dies at each place where a picture's state changes; a restart goes on, and the audit finds
every picture at exactly one place, done once."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psutil
import pytest

from broken_files import broken_files
from chaos.auditor import Auditor, Entry, Findings, Places
from drawing import face_bytes
from maskdrop.crash_points import CRASH_AT, CrashPoint
from running import QUICK, Daemon, Rooms
from waiting import PATIENCE_S, wait_for

SETTINGS = QUICK.replace("[workers]", "[workers]\nmax_attempts = 1000") + (
    "[save]\noutputs = ['face', 'labels', 'json']\n"
)
ONLY_BROKEN = {CrashPoint.REASON_SYNCED, CrashPoint.REASON_WRITTEN, CrashPoint.QUARANTINED}
GOOD_AND_BROKEN = {
    CrashPoint.TICKET_ACCEPTED,
    CrashPoint.ORIGINAL_READ,
    CrashPoint.REPORT_DUE,
    CrashPoint.REPORT_TAKEN,
}
SUPERVISORS = {CrashPoint.LOCK_TAKEN, CrashPoint.TICKET_ACCEPTED, CrashPoint.REPORT_TAKEN}


def kinds(point: CrashPoint) -> list[str]:
    """Pictures that come to this point."""
    if point in GOOD_AND_BROKEN:
        return ["good", "broken"]
    return ["broken"] if point in ONLY_BROKEN else ["good"]


CASES = [pytest.param(p, kind, id=f"{p.value}-{kind}") for p in CrashPoint for kind in kinds(p)]
OF_WORKERS = [case for case in CASES if case.values[0] not in SUPERVISORS]


class Stand:
    """One daemon with all points wired, none armed, started again after each death; one audit of it all."""

    def __init__(self, base: Path, weights: Path) -> None:
        self.rooms = Rooms.make(base)
        self._weights = weights
        self._armed = base / "armed"
        self._armed.mkdir()
        self._numbers = count(1)
        self._daemon: Daemon | None = None
        rooms = self.rooms
        tails = (".jpg", ".labels.png", ".json")
        self._auditor = Auditor(Places(rooms.inbox, rooms.outbox, rooms.archive, rooms.quarantine, tails))
        self._markers = {
            (point, kind, way): self._armed / f"{point.value}-{kind}-{way}" / "marker"
            for point in CrashPoint
            for kind in kinds(point)
            for way in ("alone", "all")
        }
        entries = [f"{point.value}@{marker}" for (point, _, _), marker in self._markers.items()]
        self._environment = {**os.environ, CRASH_AT: os.pathsep.join(entries)}

    def start(self) -> Daemon:
        self._daemon = Daemon(self.rooms, self._weights, SETTINGS, (), {"env": self._environment})
        return self._daemon

    def running(self) -> Daemon:
        """The daemon, started where it doesn't run."""
        if self._daemon is None or self._daemon.process.poll() is not None:
            self.start()
        assert self._daemon is not None
        return self._daemon.wait_ready()

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.destroy()

    def arm(self, point: CrashPoint, kind: str, way: str) -> Path:
        """From now on a process that comes to the point dies, once; the marker that tells of it."""
        marker = self._markers[point, kind, way]
        marker.parent.mkdir()
        return marker

    def drop(self, kind: str) -> None:
        number = next(self._numbers)
        content = face_bytes(number) if kind == "good" else broken_files()["text.jpg"] + b"%d" % number
        path = f"sub/{number}-{kind}.jpg"
        self._auditor.expect(Entry(path, hashlib.sha256(content).hexdigest(), kind == "good"))
        self.rooms.drop(path, content)

    def audit(self, *, calm: bool) -> Findings:
        findings = self._auditor.audit(calm=calm)
        assert findings.faults == ()
        return findings

    def finish(self) -> None:
        """The daemon takes what is in the inbox to its end, and the audit is clean."""
        daemon = self.running()
        wait_for(lambda: not self.rooms.pictures("inbox"), f"an empty inbox; log:\n{daemon.log[-3000:]}")
        assert daemon.process.poll() is None
        self.audit(calm=True)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[Stand]:
    made = Stand(tmp_path_factory.mktemp("stand"), tiny_weights)
    yield made
    made.stop()


def await_marker(marker: Path) -> None:
    """Wait closely: what is on disk at the point is to be seen, before anybody goes on."""
    deadline = time.monotonic() + PATIENCE_S
    while not marker.exists():
        assert time.monotonic() < deadline, f"the point never fired: {marker.parent.name}"
        time.sleep(0.001)


@pytest.mark.parametrize(("point", "kind"), OF_WORKERS)
def test_the_worker_at_it_dies_and_the_daemon_goes_on(stand: Stand, point: CrashPoint, kind: str) -> None:
    daemon = stand.running()
    deaths = daemon.log.count("died of signal 9 (SIGKILL)")
    marker = stand.arm(point, kind, "alone")
    stand.drop(kind)
    await_marker(marker)
    daemon.wait_log("died of signal 9 (SIGKILL)", deaths + 1)
    stand.finish()
    assert stand.running() is daemon


@pytest.mark.parametrize(("point", "kind"), CASES)
def test_the_whole_daemon_dies_and_the_next_start_goes_on(stand: Stand, point: CrashPoint, kind: str) -> None:
    if point is CrashPoint.LOCK_TAKEN:
        stand.stop()
        marker = stand.arm(point, kind, "all")
        stand.drop(kind)
        daemon = stand.start()
        processes = []
    else:
        daemon = stand.running()
        processes = daemon.processes()
        marker = stand.arm(point, kind, "all")
        stand.drop(kind)
    await_marker(marker)
    if point not in SUPERVISORS:
        daemon.process.kill()  # the workers go with it, by the kernel's hand
    assert daemon.process.wait(PATIENCE_S) == -signal.SIGKILL
    assert psutil.wait_procs(processes, timeout=PATIENCE_S)[1] == []
    before = stand.audit(calm=False)
    stand.finish()
    after = stand.audit(calm=True)
    assert after.archived + after.quarantined == before.inbox + before.archived + before.quarantined


def test_every_point_is_somewhere_in_the_code() -> None:
    package = Path(__file__).parent.parent / "daemon" / "maskdrop"
    source = "".join(path.read_text() for path in package.rglob("*.py"))
    assert [point for point in CrashPoint if f"crash_point(CrashPoint.{point.name})" not in source] == []


def test_a_point_fires_once_when_its_markers_folder_is_there(tmp_path: Path) -> None:
    marker = tmp_path / "later" / "marker"
    program = "from maskdrop.crash_points import *; crash_point(CrashPoint.SLOT_FILLED); print('alive')"

    def run(entries: str) -> tuple[int, str]:
        environment = {**os.environ, CRASH_AT: entries}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout

    armed = f"slot-filled@{marker}"
    assert run(armed) == (0, "alive\n")
    marker.parent.mkdir()
    assert run(f"lock-taken@{marker}") == (0, "alive\n")
    assert run(armed) == (-signal.SIGKILL, "")
    assert marker.exists()
    assert run(armed) == (0, "alive\n")
    assert run("") == (0, "alive\n")
    assert run("no-such-point@/x")[0] == 1
