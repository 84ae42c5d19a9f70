"""What can go wrong with the inbox itself: events lost, watches refused, the folder gone, jumping clocks."""

import ctypes
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drawing import face_bytes
from maskdrop.claim import claim
from maskdrop.config import WatchSettings
from maskdrop.inbox.intake import Intake
from maskdrop.inbox.lock import InboxLock
from maskdrop.inbox.scan import scan
from maskdrop.leave_alone import OriginalStuck
from maskdrop.ticket import Identity, Ticket
from running import QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]

NO_RESCAN = QUICK.replace("rescan_s = 2", "rescan_s = 86400")
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


def are_stopped(pid: int) -> bool:
    """Whether all threads of a process are (proc_pid_stat(5), state T)."""
    stats = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(stat.read_text().rpartition(") ")[2].startswith("T") for stat in stats)


def test_the_kernels_event_queue_overflows(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=NO_RESCAN).wait_ready()
    daemon.wait_health(lambda health: health["backlog"] == 0, "the first scan")
    room = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if room > 200_000:
        pytest.skip(f"fs.inotify.max_queued_events = {room}: too many to fill")
    spare = rooms.base / "spare"
    spare.write_bytes(b"")
    daemon.process.send_signal(signal.SIGSTOP)
    wait_for(
        lambda: are_stopped(daemon.process.pid), "all its threads to stop, or one would still read events"
    )
    for number in range(room + 100):  # each name once: the kernel merges events that are alike
        os.link(spare, rooms.inbox / f".{number}")
        (rooms.inbox / f".{number}").unlink()
    rooms.drop("unseen.jpg", face_bytes(1))
    rooms.drop("new-folder/unseen.jpg", face_bytes(2))
    daemon.process.send_signal(signal.SIGCONT)
    daemon.wait_count("saved", 2)
    daemon.wait_log("too many file events at once")
    rooms.drop("new-folder/seen.jpg", face_bytes(3))
    daemon.wait_count("saved", 3)
    assert daemon.stop() == 0


def test_the_limit_of_watches(start: Start, rooms: Rooms) -> None:
    """In a user namespace, which has a limit of its own (namespaces(7), max_inotify_watches)."""
    limit = "/proc/sys/user/max_inotify_watches"
    unshare = ["unshare", "--user", "--map-root-user"]
    prefix = [*unshare, "sh", "-c", f'echo 4 > {limit} && exec "$@"', "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespace with a limit of its own can be made here")
    daemon = start(prefix=prefix).wait_ready()
    for number in range(8):  # more folders than watches appear while it runs
        rooms.drop(f"{number}/a.jpg", face_bytes(number))
    daemon.wait_count("saved", 8)
    health = daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
    assert "fs.inotify.max_user_watches" in health["reason"]
    rooms.drop("7/later.jpg", face_bytes(9))
    daemon.wait_count("saved", 9)
    enter = ["nsenter", "--user", "--preserve-credentials", "--target", str(daemon.process.pid)]
    subprocess.run([*enter, "sh", "-c", f"echo 1000 > {limit}"], check=True)
    daemon.wait_ready()
    assert daemon.stop() == 0


@pytest.fixture
def disk(rooms: Rooms) -> Iterator[Path]:
    """A tmpfs that holds all four rooms, and can be unmounted: another mount keeps what is on it."""
    kept = rooms.base / "kept"
    kept.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(kept)], capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    for name in ("inbox", "archive", "quarantine"):
        (kept / name).mkdir()
    yield kept
    for _ in range(2):
        subprocess.run(["umount", "--lazy", str(rooms.base / "disk")], capture_output=True)
    subprocess.run(["umount", "--lazy", str(kept)], check=True)


def test_the_inbox_is_unmounted_and_mounted_again(start: Start, rooms: Rooms, disk: Path) -> None:
    place = rooms.base / "disk"
    place.mkdir()
    subprocess.run(["mount", "--bind", str(disk), str(place)], check=True)
    on_disk = Rooms(
        rooms.base, place / "inbox", rooms.outbox, place / "quarantine", place / "archive", rooms.health
    )
    folders = ["--inbox", str(on_disk.inbox), "--archive", str(on_disk.archive)]
    folders += ["--quarantine", str(on_disk.quarantine), "--health", str(rooms.health)]
    daemon = start(*folders, settings=QUICK).wait_ready()
    on_disk.drop("before.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    health = daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
    assert str(on_disk.inbox) in health["reason"]
    assert list(place.iterdir()) == []  # nothing is made on the disk beneath
    (disk / "inbox" / "meanwhile.jpg").write_bytes(face_bytes(2))
    subprocess.run(["mount", "--bind", str(disk), str(place)], check=True)
    daemon.wait_count("saved", 2)
    daemon.wait_ready()
    on_disk.drop("after.jpg", face_bytes(3))
    daemon.wait_count("saved", 3)
    assert daemon.stop() == 0
    assert on_disk.pictures("archive") == ["after.jpg", "before.jpg", "meanwhile.jpg"]


def test_what_is_on_a_disk_mounted_in_the_inbox_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mounted: Callable[..., None]
) -> None:
    """Whether an event tells of it, or the disk is mounted over a file that has settled."""
    usb, later = tmp_path / "usb", tmp_path / "later"
    for folder in (usb, later):
        folder.mkdir()
    mounted("-t", "tmpfs", "none", str(usb))
    (usb / "deep").mkdir()
    rung, lock = threading.Event(), InboxLock.take(tmp_path)
    intake = Intake(tmp_path, WatchSettings(settle_ms=0, rescan_s=86_400), lock, rung.set)
    intake.start()

    def settled(count: int) -> bool:
        rung.clear()
        intake.advance(time.monotonic())
        if intake.backlog == count:
            return True
        rung.wait(0.1)
        return False

    wait_for(lambda: settled(0) and intake.wait(time.monotonic()) > 0, "the end of the first scan")
    for name in ("usb/a.jpg", "usb/deep/b.jpg", "later/c.jpg", "d.jpg"):
        whole = (tmp_path / name).with_name(".whole")
        whole.write_bytes(b"picture")
        whole.rename(tmp_path / name)
    wait_for(lambda: settled(2), "two files")
    mounted("-t", "tmpfs", "none", str(later))
    (later / "c.jpg").write_bytes(b"another")
    candidate = intake.take()
    assert candidate is not None
    assert candidate.path == "d.jpg"
    assert settled(0)
    assert intake.take() is None
    told = [message for message in caplog.messages if message.startswith("left alone")]
    assert told == [
        f"left alone {name}: a folder on another file system, not a file" for name in ("usb", "later")
    ]
    intake.stop()
    lock.release()


@pytest.fixture
def mount_dead() -> Iterator[Callable[[Path], None]]:
    """Makes folders where a file system was whose program is gone (fuse(4))."""
    libc, places = ctypes.CDLL(None, use_errno=True), list[Path]()

    def mount(place: Path) -> None:
        place.mkdir()
        try:
            device = os.open("/dev/fuse", os.O_RDWR)
        except OSError as error:
            pytest.skip(f"no FUSE: {error}")
        told = f"fd={device},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
        failed = libc.mount(b"dead", os.fsencode(place), b"fuse", 0, told.encode())
        os.close(device)
        if failed:
            pytest.skip(f"mounting needs root: {os.strerror(ctypes.get_errno())}")
        places.append(place)

    yield mount
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_what_cant_be_looked_at_keeps_nothing_beside_it_from_its_turn(
    start: Start, rooms: Rooms, mount_dead: Callable[[Path], None]
) -> None:
    mount_dead(rooms.inbox / "dead")
    for index in range(3):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon = start(settings=QUICK).wait_ready()
    daemon.wait_count("saved", 3)
    assert daemon.log.count("left alone dead: Transport endpoint is not connected") == 1
    assert daemon.health()["state"] == "running"
    assert daemon.stop() == 0


def test_many_that_cant_be_looked_at_hide_none_that_can(
    tmp_path: Path, mount_dead: Callable[[Path], None]
) -> None:
    """But where none can, it is their folder's trouble."""
    for index in range(3):
        mount_dead(tmp_path / f"dead-{index}")
    with pytest.raises(OSError, match="Transport endpoint is not connected"):
        list(scan(tmp_path, recursive=True))
    (tmp_path / "a.jpg").write_bytes(b"picture")
    unread: list[str] = []
    found = list(scan(tmp_path, recursive=True, unread=lambda path, _: unread.append(path)))
    assert [seen.path for seen in found] == ["a.jpg"]
    assert sorted(unread) == ["dead-0", "dead-1", "dead-2"]


@pytest.fixture
def prefix() -> list[str]:
    """Begins the command of a daemon that may read only what its user may."""
    words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        pytest.skip("capabilities can't be taken away here")
    return words


def test_an_inbox_in_which_nothing_can_be_looked_at_is_trouble(
    start: Start, rooms: Rooms, prefix: list[str]
) -> None:
    """It can be listed."""
    daemon = start(settings=QUICK.replace("rescan_s = 2", "rescan_s = 0.5"), prefix=prefix).wait_ready()
    rooms.drop("hidden/a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    daemon.process.send_signal(signal.SIGSTOP)  # so that it sees both at once
    rooms.drop("b.jpg", face_bytes(2))
    rooms.inbox.chmod(0o644)
    daemon.process.send_signal(signal.SIGCONT)
    trouble = f"the inbox {rooms.inbox} can't be read: Permission denied"
    daemon.wait_health(lambda health: health["reason"] == trouble, "the trouble")
    rooms.inbox.chmod(0o755)
    daemon.wait_count("saved", 2)
    daemon.wait_ready()
    assert daemon.stop() == 0


def test_a_folder_that_may_not_be_read_is_told_once(start: Start, rooms: Rooms, prefix: list[str]) -> None:
    rooms.drop("closed/a.jpg", face_bytes(1))
    (rooms.inbox / "closed").chmod(0)
    daemon = start(settings=QUICK.replace("rescan_s = 2", "rescan_s = 0.5"), prefix=prefix).wait_ready()
    daemon.wait_log("left alone closed: Permission denied")
    rooms.drop("b.jpg", face_bytes(2))
    daemon.wait_count("saved", 1)
    (rooms.inbox / "closed").chmod(0o755)
    daemon.wait_count("saved", 2)
    assert daemon.log.count("left alone closed") == 1
    assert daemon.stop() == 0


def test_the_inbox_is_removed_and_made_again(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    for _ in range(2):
        shutil.rmtree(rooms.inbox)
        daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
        rooms.inbox.mkdir()
        daemon.wait_ready()
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    second = start()  # the new folder is locked like the old one
    assert second.wait_end() == 75
    assert daemon.stop() == 0


def test_the_files_times_don_t_matter(start: Start, rooms: Rooms) -> None:
    now = int(time.time())
    times = [0, 1, -86_400, now - 10**9, now + 10**9, 2**33, now + 3]
    daemon = start(settings=NO_RESCAN).wait_ready()
    for index, moment in enumerate(times):
        path = rooms.base / "new"
        path.write_bytes(face_bytes(index))
        os.utime(path, (moment, moment))
        path.rename(rooms.inbox / f"{index}.jpg")
    daemon.wait_count("saved", len(times))
    assert daemon.stop() == 0


@pytest.mark.skipif(not FAKETIME, reason="no libfaketime here: apt-get install faketime")
def test_the_clock_jumps(start: Start, rooms: Rooms) -> None:
    """The wall clock goes a year back, two years ahead, and back again; only the monotonic clock counts."""
    clock = rooms.base / "clock"
    clock.write_text("+0")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    daemon = start(env=environment).wait_ready()
    years = set()
    for index, jump in enumerate(("-1y", "+1y", "+0")):
        rooms.drop(f"{index}-before.jpg", face_bytes(index))
        clock.write_text(jump)
        rooms.drop(f"{index}-after.jpg", face_bytes(10 + index))
        health = daemon.wait_count("saved", 2 * index + 2)
        years.add(daemon.wait_health(lambda h, old=health: h != old, "another beat")["updated_at"][:4])
        assert wait_for(lambda: daemon.health().get("state") == "running", "state running")
    assert len(years) >= 2, "the clock did not jump"
    assert daemon.stop() == 0


def test_a_folder_bound_into_the_inbox_keeps_only_its_own_pictures(
    rooms: Rooms, mounted: Callable[..., None]
) -> None:
    """It is of the same file system, and no rename leads out of it."""
    elsewhere, picture = rooms.base / "elsewhere", rooms.inbox / "bound" / "a.jpg"
    elsewhere.mkdir()
    picture.parent.mkdir()
    mounted("--bind", str(elsewhere), str(picture.parent))
    picture.write_bytes(b"picture")
    ticket = Ticket(1, "bound/a.jpg", Identity.of(picture.stat()))
    with pytest.raises(OriginalStuck, match="Invalid cross-device link"), claim(rooms.inbox, ticket):
        pass
    assert picture.exists()
