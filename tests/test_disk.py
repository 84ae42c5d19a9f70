"""Disks that fail: work pauses, the reason names the folder, nothing moves wrongly; mended, it goes on."""

import errno
import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from drawing import face_bytes
from maskdrop.claim import trouble_in
from maskdrop.durable import FolderTrouble
from maskdrop.inbox.lock import LOCK_NAME, InboxHeld, InboxLock
from maskdrop.leave_alone import StuckByFolder, UnfitName
from running import QUICK, Daemon, Rooms, maskdrop

Start = Callable[..., Daemon]

F_SEAL_WRITE = 8  # fcntl(2); the module's name for it comes with Python 3.13


PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Where file systems are made: ordinary users' has no sbin."""


def run(*command: str) -> bool:
    program = shutil.which(command[0], path=PATH)
    return (
        program is not None and subprocess.run([program, *command[1:]], capture_output=True).returncode == 0
    )


def fill(folder: Path) -> None:
    """Make files until there is no room for another."""
    for number in itertools.count():
        try:
            (folder / str(number)).touch()
        except OSError:
            return


def write_until_refused(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))


def degraded(daemon: Daemon, *words: str) -> None:
    """Wait until the daemon says that it pauses, and why."""
    daemon.wait_health(
        lambda h: h["state"] == "degraded" and all(word in h["reason"] for word in words),
        f"state degraded, {words}",
    )


def test_an_input_output_error(start: Start, rooms: Rooms, mounted: Callable[..., None]) -> None:
    """The outbox's disk is memory that is sealed under the file system: writes to it fail with EIO."""
    disk = os.memfd_create("disk", os.MFD_ALLOW_SEALING)
    os.ftruncate(disk, 16 * 2**20)
    path = f"/proc/{os.getpid()}/fd/{disk}"
    if not run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", path):
        pytest.skip("there is no mkfs.ext4 here: apt-get install e2fsprogs")
    mounted("-o", "loop,errors=continue", path, str(rooms.outbox))
    daemon = start().wait_ready()
    rooms.drop("good.jpg", face_bytes(0))
    daemon.wait_count("saved", 1)
    fcntl.fcntl(disk, fcntl.F_ADD_SEALS, F_SEAL_WRITE)
    for index in range(8):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    degraded(daemon, str(rooms.outbox), os.strerror(errno.EIO))
    assert len(rooms.pictures("inbox")) == 8
    assert rooms.pictures("archive") == ["good.jpg"]
    mounted("-t", "tmpfs", "none", str(rooms.outbox))  # another disk in its place
    daemon.wait_count("saved", 9)
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert rooms.pictures("outbox") == [f"{index}.jpg" for index in range(8)]
    assert rooms.pictures("inbox") == rooms.pictures("quarantine") == []
    os.close(disk)


def test_a_quota_is_used_up(start: Start, rooms: Rooms, mounted: Callable[..., None]) -> None:
    """The outbox is a subvolume of btrfs with a quota, which counts for root too."""
    if shutil.which("mkfs.btrfs", path=PATH) is None or shutil.which("btrfs", path=PATH) is None:
        pytest.skip("there is no mkfs.btrfs here: apt-get install btrfs-progs")
    image, disk = rooms.base / "disk.img", rooms.base / "disk"
    with image.open("wb") as file:
        file.truncate(128 * 2**20)
    assert run("mkfs.btrfs", "-q", "--mixed", str(image))
    disk.mkdir()
    mounted("-o", "loop", str(image), str(disk))
    outbox = disk / "outbox"
    for command in (
        ("subvolume", "create", str(outbox)),
        ("quota", "enable", str(disk)),
        ("qgroup", "limit", "4M", str(outbox)),
    ):
        if not run("btrfs", *command):
            pytest.skip("quotas of btrfs can't be had here")
    daemon = start("--outbox", str(outbox)).wait_ready()
    filler = outbox / ".filler"
    with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
        write_until_refused(filler)
    for index in range(8):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    degraded(daemon, str(outbox), os.strerror(errno.EDQUOT))
    waiting = rooms.pictures("inbox")
    assert waiting
    assert len(waiting) + len(rooms.pictures("archive")) == 8
    assert not [name for name in os.listdir(outbox) if not name.startswith(".") and name in waiting]
    assert run("btrfs", "qgroup", "limit", "none", str(outbox))
    daemon.wait_count("saved", 8)
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert sorted(path.name for path in outbox.iterdir() if path != filler) == [f"{i}.jpg" for i in range(8)]
    assert rooms.pictures("inbox") == rooms.pictures("quarantine") == []


def test_no_room_for_folders_in_archive_and_quarantine(
    start: Start, rooms: Rooms, mounted: Callable[..., None]
) -> None:
    """A disk of inbox, archive and quarantine on which not one more file or folder can be made."""
    disk = rooms.base / "disk"
    disk.mkdir()
    mounted("-t", "tmpfs", "-o", "size=16m,nr_inodes=200", "none", str(disk))
    on_disk = Rooms(
        rooms.base, disk / "inbox", rooms.outbox, disk / "quarantine", disk / "archive", rooms.health
    )
    daemon = start(
        *("--inbox", str(on_disk.inbox), "--archive", str(on_disk.archive)),
        *("--quarantine", str(on_disk.quarantine), "--health", str(rooms.health)),
    ).wait_ready()
    hidden = on_disk.inbox / ".new"
    hidden.mkdir()
    for index in range(8):
        (hidden / f"{index}.jpg").write_bytes(face_bytes(index) if index % 4 else b"broken")
    filler = disk / "filler"
    filler.mkdir()
    fill(filler)
    hidden.rename(on_disk.inbox / "new")
    degraded(daemon, str(disk), os.strerror(errno.ENOSPC))
    assert len(on_disk.pictures("inbox")) == 8
    assert on_disk.pictures("archive") == on_disk.pictures("quarantine") == []
    shutil.rmtree(filler)
    daemon.wait_count("saved", 6)
    daemon.wait_count("quarantined", 2)
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert len(on_disk.pictures("archive")) == 6
    assert len(on_disk.pictures("quarantine")) == 2
    assert on_disk.pictures("inbox") == []


def test_it_starts_on_a_full_disk_and_works_once_there_is_room(
    start: Start, rooms: Rooms, mounted: Callable[..., None]
) -> None:
    disk = rooms.base / "disk"
    disk.mkdir()
    mounted("-t", "tmpfs", "-o", "nr_inodes=60", "none", str(disk))
    full = Rooms.make(disk)
    full.drop("a.jpg", face_bytes(1))
    (disk / "filler").mkdir()
    (full.inbox / LOCK_NAME).touch()  # as it was left by the daemon before
    fill(disk / "filler")
    folders = ["--inbox", str(full.inbox), "--outbox", str(full.outbox), "--health", str(rooms.health)]
    (full.inbox / LOCK_NAME).rename(full.inbox / ".away")
    done = maskdrop(["run", *folders])
    assert (done.returncode, done.stderr.count("\n")) == (75, 1)
    assert done.stderr.endswith("can't be written now (No space left on device); make room\n")
    (full.inbox / ".away").rename(full.inbox / LOCK_NAME)
    done = maskdrop(["batch", str(full.archive), str(disk / "results")])
    assert (done.returncode, done.stderr.count("\n")) == (75, 1)
    assert done.stderr.endswith("make room\n")
    done = maskdrop(["run", *folders, "--archive", str(rooms.archive)])
    assert done.returncode == 78  # another file system is none, full or not
    assert "is not atomic there" in done.stderr

    daemon = start(*folders, settings=QUICK)
    degraded(daemon, os.strerror(errno.ENOSPC))
    shutil.rmtree(disk / "filler")
    daemon.wait_count("saved", 1)
    daemon.wait_ready()
    assert daemon.stop() == 0
    assert full.pictures("archive") == ["a.jpg"]


def test_a_disk_mounted_in_the_archive_holds_up_only_what_belongs_there(
    start: Start, rooms: Rooms, mounted: Callable[..., None]
) -> None:
    (rooms.archive / "sub").mkdir()
    mounted("-t", "tmpfs", "none", str(rooms.archive / "sub"))
    daemon = start(settings=QUICK).wait_ready()
    rooms.drop("sub/a.jpg", face_bytes(1))
    why = f"the archive's folder {rooms.archive}/sub can't take it: {os.strerror(errno.EXDEV)}"
    daemon.wait_log(f"left sub/a.jpg: {why}")
    rooms.drop("b.jpg", face_bytes(2))
    daemon.wait_count("saved", 1)
    assert daemon.health()["state"] == "running"
    assert run("umount", "--lazy", str(rooms.archive / "sub"))
    (rooms.inbox / "sub" / "a.jpg").touch()
    daemon.wait_count("saved", 2)
    assert daemon.stop() == 0


def test_a_full_disk_mounted_in_the_outbox_holds_up_only_what_belongs_there(
    start: Start, rooms: Rooms, mounted: Callable[..., None]
) -> None:
    """In a folder that is there as in one that would have to be made."""
    disk = rooms.outbox / "disk"
    (disk).mkdir()
    mounted("-t", "tmpfs", "-o", "nr_inodes=3", "none", str(disk))
    (disk / "old").mkdir()
    fill(disk)
    daemon = start(settings=QUICK).wait_ready()
    why = os.strerror(errno.ENOSPC)
    for folder in ("old", "new/deep"):
        rooms.drop(f"disk/{folder}/a.jpg", face_bytes(1))
        daemon.wait_log(f"left disk/{folder}/a.jpg: the outbox's folder {disk / folder} can't take it: {why}")
    rooms.drop("b.jpg", face_bytes(2))
    daemon.wait_count("saved", 1)
    assert daemon.health()["state"] == "running"
    assert daemon.stop() == 0


def test_permission_is_lost_in_the_middle(start: Start, rooms: Rooms) -> None:
    prefix: list[str] = []
    if os.geteuid() == 0:  # root writes everywhere, unless that capability is taken away
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]
        if shutil.which("setpriv") is None or not run(*prefix, "true"):
            pytest.skip("capabilities can't be taken away here")
    daemon = start(prefix=prefix, settings=QUICK).wait_ready()
    saved = quarantined = 0
    for folder in (rooms.outbox, rooms.archive, rooms.inbox, rooms.quarantine):
        name, broken = folder.name, folder == rooms.quarantine
        daemon.process.send_signal(signal.SIGSTOP)  # so that it sees both at once
        rooms.drop(f"{name}.jpg", b"broken" if broken else face_bytes(1))
        folder.chmod(0o555)
        daemon.process.send_signal(signal.SIGCONT)
        degraded(daemon, str(folder), os.strerror(errno.EACCES))
        assert f"{name}.jpg" in rooms.pictures("inbox")
        folder.chmod(0o755)
        saved, quarantined = saved + (not broken), quarantined + broken
        daemon.wait_count("saved", saved)
        daemon.wait_count("quarantined", quarantined)
        daemon.wait_ready()

    for room in (rooms.outbox, rooms.archive):  # nor does one that results or originals can't go to
        shut, name = room / "shut", f"shut/{room.name}.jpg"
        shut.mkdir(mode=0o555, exist_ok=True)
        shut.chmod(0o555)
        rooms.drop(name, face_bytes(5))
        daemon.wait_log(f"left {name}: the {room.name}'s folder {shut} can't take it: Permission denied")
        rooms.drop(f"beside-{room.name}.jpg", face_bytes(6))
        daemon.wait_count("saved", saved + 1)
        shut.chmod(0o755)
        (rooms.inbox / name).touch()
        saved += 2
        daemon.wait_count("saved", saved)

    closed = rooms.drop("closed/a.jpg", face_bytes(7)).parent
    closed.chmod(0o555)  # one sub-folder from which nothing can be moved doesn't hold up the others
    daemon.wait_log("left closed/a.jpg: Permission denied")
    rooms.drop("open.jpg", face_bytes(8))
    daemon.wait_count("saved", saved + 1)
    closed.chmod(0o755)
    daemon.wait_count("saved", saved + 2)
    assert daemon.stop() == 0
    assert rooms.pictures("inbox") == []


def test_a_full_disk_does_not_keep_the_lock(rooms: Rooms, mounted: Callable[..., None]) -> None:
    """It holds, whether or not it can be written who has it."""
    inbox = rooms.base / "small"
    inbox.mkdir()
    mounted("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(inbox))
    (inbox / LOCK_NAME).touch()
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write_until_refused(inbox / "filler")
    lock = InboxLock.take(inbox)
    assert (inbox / LOCK_NAME).read_text() == ""
    assert lock.is_ours
    with pytest.raises(InboxHeld):
        InboxLock.take(inbox)
    lock.release()


def test_a_stall_ends_where_no_picture_is_left_to_try(start: Start, rooms: Rooms) -> None:
    """The only picture in flight is taken out of the inbox while the outbox is away."""
    daemon = start(settings=QUICK).wait_ready()
    away = rooms.base / "away"
    rooms.outbox.rename(away)
    picture = rooms.drop("first.jpg", face_bytes(1))
    degraded(daemon, str(rooms.outbox))
    picture.unlink()
    daemon.wait_log("left first.jpg: ")
    away.rename(rooms.outbox)
    rooms.drop("second.jpg", face_bytes(2))
    daemon.wait_count("saved", 1)
    daemon.wait_ready()
    assert daemon.stop() == 0


def test_a_stall_ends_where_the_picture_that_tried_goes_to_quarantine(start: Start, rooms: Rooms) -> None:
    """The workers that try to save it die at it, as often as a picture may be tried."""
    daemon = start(settings=QUICK.replace("[workers]", "[workers]\nmax_attempts = 2")).wait_ready()
    away = rooms.base / "away"
    rooms.outbox.rename(away)
    rooms.drop("first.jpg", face_bytes(1))
    degraded(daemon, str(rooms.outbox))
    for attempt in range(2):
        health = daemon.wait_health(lambda h: h["queues"]["save"] and h["workers"][-1]["ready"], "a wait")
        saver = health["workers"][-1]["pid"]
        os.kill(saver, signal.SIGSTOP)
        daemon.wait_health(lambda h: not h["queues"]["save"], "a try")
        os.kill(saver, signal.SIGKILL)
        daemon.wait_log("it held first.jpg", attempt + 1)
    daemon.wait_count("quarantined", 1)
    away.rename(rooms.outbox)
    rooms.drop("second.jpg", face_bytes(2))
    daemon.wait_count("saved", 1)
    daemon.wait_ready()
    assert daemon.stop() == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP])
def test_tries_that_are_not_made_are_not_waited_for(start: Start, rooms: Rooms, end: signal.Signals) -> None:
    """While it drains, or a reload waits for a picture in hand: the loop would have gone round and round."""
    daemon = start(settings=QUICK).wait_ready()
    (infer,) = daemon.workers("infer")
    os.kill(infer, signal.SIGSTOP)
    rooms.drop("held.jpg", face_bytes(1))
    daemon.wait_health(lambda h: h["in_flight"] == 1, "a picture in hand")
    rooms.quarantine.rename(rooms.base / "away")
    rooms.drop("broken.jpg", b"no picture")
    degraded(daemon, str(rooms.quarantine))
    (rooms.base / "maskdrop.toml").write_text(QUICK + "[save]\nquality = 90\n")
    daemon.process.send_signal(end)
    daemon.wait_log("draining: " if end is signal.SIGTERM else "configuration read again: ")
    supervisor = psutil.Process(daemon.process.pid)
    began, before = time.monotonic(), sum(supervisor.cpu_times()[:2])
    for _ in range(15):
        written = daemon.health()["updated_at"]
        daemon.wait_health(lambda h, written=written: h["updated_at"] != written, "another health file")
    spent = sum(supervisor.cpu_times()[:2]) - before
    assert spent < (time.monotonic() - began) / 4
    os.kill(infer, signal.SIGCONT)
    (rooms.base / "away").rename(rooms.quarantine)
    if end is signal.SIGHUP:
        daemon.wait_count("saved", 1)
        daemon.wait_count("quarantined", 1)
        daemon.terminate()
    assert daemon.wait_end() == (1 if end is signal.SIGTERM else 0)
    assert rooms.pictures("inbox") == (["broken.jpg"] if end is signal.SIGTERM else [])


@pytest.mark.parametrize("stuck", ["outbox", "quarantine"])
def test_what_one_folder_cannot_take_holds_up_nothing_that_goes_to_another(
    start: Start, rooms: Rooms, stuck: str
) -> None:
    """And a picture that gets through doesn't mean that the trouble is mended."""
    daemon = start(settings=QUICK).wait_ready()
    folder, away = rooms.base / stuck, rooms.base / "away"
    daemon.process.send_signal(signal.SIGSTOP)  # so that it sees all at once
    for index in range(3):
        rooms.drop(f"{index}.jpg", face_bytes(index))
        rooms.drop(f"broken-{index}.jpg", b"no picture")
    folder.rename(away)
    daemon.process.send_signal(signal.SIGCONT)
    degraded(daemon, str(folder))
    daemon.wait_count("quarantined" if stuck == "outbox" else "saved", 3)
    degraded(daemon, str(folder))
    assert "working again" not in daemon.log
    away.rename(folder)
    daemon.wait_count("saved", 3)
    daemon.wait_count("quarantined", 3)
    daemon.wait_ready()
    assert [daemon.log.count(words) for words in ("taking no more work", "working again")] == [1, 1]
    assert daemon.stop() == 0


def test_a_name_that_a_folder_cannot_take_holds_nobody_up(start: Start, rooms: Rooms) -> None:
    """A file of the archive, and one of the quarantine, has the name of a folder that is dropped later."""
    daemon = start(settings=QUICK).wait_ready()
    rooms.drop("portrait", face_bytes(1))
    rooms.drop("notes", b"no picture")
    daemon.wait_count("saved", 1)
    daemon.wait_count("quarantined", 1)
    rooms.drop("portrait/1.jpg", face_bytes(2))
    rooms.drop("notes/bad.jpg", b"no picture")
    for name, room in (("portrait/1.jpg", rooms.archive), ("notes/bad.jpg", rooms.quarantine)):
        why = f"can't take it under its name: {os.strerror(errno.ENOTDIR)}"
        daemon.wait_log(f"left {name}: the {room.name} {room} {why}; tried again at a later rescan")
    rooms.drop("other.jpg", face_bytes(3))
    daemon.wait_count("saved", 2)
    assert rooms.pictures("inbox") == ["notes/bad.jpg", "portrait/1.jpg"]
    (rooms.archive / "portrait").rename(rooms.archive / "portrait.jpg")
    (rooms.quarantine / "notes").unlink()
    daemon.wait_count("saved", 3)
    daemon.wait_count("quarantined", 2)
    assert rooms.pictures("inbox") == []

    moved = rooms.archive.rename(rooms.base / "moved")  # a link takes nothing under any name
    rooms.archive.symlink_to(moved)
    rooms.drop("last.jpg", face_bytes(4))
    degraded(daemon, str(rooms.archive), os.strerror(errno.ENOTDIR))
    rooms.archive.unlink()
    moved.rename(rooms.archive)
    daemon.wait_count("saved", 4)
    daemon.wait_ready()
    assert daemon.stop() == 0


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL])
def test_a_name_that_a_file_system_does_not_take_is_of_the_name(tmp_path: Path, number: int) -> None:
    error = OSError(number, os.strerror(number))
    assert isinstance(trouble_in("archive", tmp_path, "a:b.jpg", error), UnfitName)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_what_a_disk_below_lacks_is_of_its_folder(
    tmp_path: Path, number: int, mounted: Callable[..., None]
) -> None:
    (tmp_path / "sub").mkdir()
    error = OSError(number, os.strerror(number))
    assert isinstance(trouble_in("archive", tmp_path, "sub/a.jpg", error), FolderTrouble)
    mounted("-t", "tmpfs", "none", str(tmp_path / "sub"))
    assert isinstance(trouble_in("archive", tmp_path, "sub/a.jpg", error), StuckByFolder)
