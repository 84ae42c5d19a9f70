"""Several daemons: a lock that is lost, what doctor says of mounts, and a dispatcher between two inboxes."""

import contextlib
import ctypes
import fcntl
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import another_user
import dispatch
from drawing import face_bytes
from maskdrop import durable
from maskdrop.beneath import open_folder
from maskdrop.claim import CLAIMED
from maskdrop.crash_points import CRASH_AT, CrashPoint
from maskdrop.durable import rename_new
from maskdrop.inbox.lock import LOCK_NAME, InboxLock
from maskdrop.machine.mounts import Mount, mount_of
from running import QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]
DISPATCH = [sys.executable, str(Path(__file__).parent.parent / "tools" / "dispatch.py")]
PIDFD_GETFD = 438  # pidfd_getfd(2)


def unlock_behind_its_back(pid: int) -> None:
    """Take a daemon's lock away, as an NFS server does that gives up on its host."""
    (number,) = [
        fd.name for fd in Path(f"/proc/{pid}/fd").iterdir() if str(fd.readlink()).endswith(LOCK_NAME)
    ]
    process = os.pidfd_open(pid)
    try:
        shared = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, int(number), 0)
        if shared < 0:
            pytest.skip("another process's descriptors can't be had here")
        fcntl.flock(shared, fcntl.LOCK_UN)
        os.close(shared)
    finally:
        os.close(process)


def test_a_daemon_whose_lock_was_lost_takes_nothing_until_it_has_it_again(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK.replace("rescan_s = 2", "rescan_s = 0.5")).wait_ready()
    lock = (rooms.inbox / LOCK_NAME).open("r+b")

    def stolen() -> bool:
        unlock_behind_its_back(daemon.process.pid)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a rescan was quicker
            return False
        return True

    wait_for(stolen, "the lock")
    daemon.wait_health(lambda h: h["state"] == "degraded" and "is held by" in h["reason"], "state degraded")
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_in_vain()
    lock.close()
    daemon.wait_count("saved", 1)
    assert daemon.wait_ready().stop() == 0


def test_what_another_daemon_has_claimed_is_left_to_it(start: Start, rooms: Rooms) -> None:
    """By a reload too, while the inbox is the other one's; once it is ours again, it comes back."""
    settings = QUICK.replace("rescan_s = 2", "rescan_s = 0.5")
    daemon = start(settings=settings).wait_ready()
    (rooms.inbox / LOCK_NAME).unlink()
    with (rooms.inbox / LOCK_NAME).open("w+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        daemon.wait_health(
            lambda h: h["state"] == "degraded" and "is held by" in h["reason"], "state degraded"
        )
        claimed = rooms.inbox / CLAIMED / "theirs.jpg"
        claimed.parent.mkdir(exist_ok=True)
        claimed.write_bytes(face_bytes(1))
        (rooms.base / "maskdrop.toml").write_text(settings + "[save]\nquality = 90\n")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_log("the configuration is taken up")
        daemon.wait_in_vain()
        assert claimed.exists()
    daemon.wait_count("saved", 1)
    assert daemon.wait_ready().stop() == 0


def test_a_holder_on_another_host_that_let_nothing_go_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / LOCK_NAME).write_text("maskdrop pid 17 on elsewhere\n")
    InboxLock.take(tmp_path).release()
    (told,) = caplog.messages
    assert f"inbox {tmp_path} was held by maskdrop pid 17 on elsewhere, which did not let go of it" in told
    InboxLock.take(tmp_path).release()
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("kind", "options", "is_remote", "locks_here_only"),
    [
        ("nfs4", "rw,vers=4.2,local_lock=none", True, False),
        ("nfs", "rw,vers=3,local_lock=none", True, False),
        ("nfs", "rw,vers=3,nolock,local_lock=all", True, True),
        ("nfs", "rw,vers=3,local_lock=flock", True, True),
        ("cifs", "rw,nobrl", True, True),
        ("fuse.sshfs", "rw", True, True),
        ("fuse.gocryptfs", "rw", False, True),
        ("ext4", "rw", False, False),
    ],
)
def test_what_a_mount_says(kind: str, options: str, is_remote: bool, locks_here_only: bool) -> None:
    mount = Mount(kind, "x", frozenset(options.split(",")))
    assert (mount.is_remote, mount.locks_here_only) == (is_remote, locks_here_only)


def test_the_mount_of_a_folder_is_the_one_it_lies_on(tmp_path: Path) -> None:
    for folder in (Path("/proc"), Path("/dev")):
        mount = mount_of(folder)
        if mount is None:
            pytest.skip("/proc doesn't tell of mounts")
        asked = ["findmnt", "--noheadings", "--output", "FSTYPE,SOURCE", "--mountpoint", str(folder)]
        told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        assert [mount.type, mount.source] == told.split()
    with pytest.raises(FileNotFoundError):
        mount_of(tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may drop to another user")
@pytest.mark.skipif(platform.machine() not in another_user.RENAMEAT2, reason="another machine's system calls")
def test_another_users_picture_is_moved_where_renames_replace_and_it_may_not_be_linked() -> None:
    """As on NFS, which has no `RENAME_NOREPLACE`, for a daemon that is not root."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        rooms = Rooms.make(base)
        for room in (rooms.inbox, rooms.outbox, rooms.quarantine, rooms.archive):
            os.chown(room, another_user.USER, another_user.USER)
        for picture in ("good.jpg", "back.jpg", "bad.jpg", "again.jpg", "lost.jpg", "sent.jpg"):
            (rooms.inbox / picture).write_text(picture)
        (rooms.archive / "good.jpg").write_text("older")
        (rooms.inbox / "sticky").mkdir()
        (rooms.inbox / "sticky" / "shared.jpg").write_text("may be linked")
        (rooms.inbox / "sticky" / "shared.jpg").chmod(0o666)
        (rooms.inbox / "sticky").chmod(0o1777)
        command = [sys.executable, str(Path(another_user.__file__)), name]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.stderr.endswith(" here\n"):
            pytest.skip(answer.stderr.strip())
        assert (answer.returncode, answer.stderr) == (0, "")
        held = {
            str(path.relative_to(base)): path.read_text()
            for path in base.rglob("*")
            if path.is_file() and not path.name.endswith(".reason.json")
        }
        assert held == {
            "archive/good.jpg": "older",
            "archive/good~2.jpg": "good.jpg",
            "archive/lost.jpg": "lost.jpg",
            "inbox/b/sent.jpg": "sent.jpg",
            "inbox/again.jpg": "again.jpg",
            "inbox/back.jpg": "newer",
            "inbox/back~2.jpg": "back.jpg",
            "inbox/sticky/shared.jpg": "may be linked",
            "quarantine/bad.jpg": "bad.jpg",
        }


@pytest.fixture
def two(tmp_path: Path, tiny_weights: Path) -> Iterator[Start]:
    """Starts daemons by name, each with rooms of its own but for the outbox, which they share."""
    started: list[Daemon] = []

    def start_one(name: str, **options: object) -> Daemon:
        base = tmp_path / name
        if not base.exists():
            base.mkdir()
            Rooms.make(base)
        rooms = Rooms(
            base, base / "inbox", base / "outbox", base / "quarantine", base / "archive", base / "h.json"
        )
        shared = replace(rooms, outbox=tmp_path / "outbox")
        shared.outbox.mkdir(exist_ok=True)
        daemon = Daemon(shared, tiny_weights, QUICK, ["--health", str(shared.health)], options)
        started.append(daemon)
        return daemon

    yield start_one
    for daemon in started:
        daemon.destroy()


def test_a_dispatcher_and_two_daemons_do_each_picture_once(tmp_path: Path, two: Start) -> None:
    arriving = tmp_path / "arriving"
    (arriving / "holiday").mkdir(parents=True)
    names = [f"{n}.jpg" for n in range(12)] + [f"holiday/{n}.jpg" for n in range(12)]
    for number, name in enumerate(names):
        (arriving / name).write_bytes(face_bytes(number))
    (arriving / "broken.jpg").write_bytes(b"no picture")
    (arriving / "coming.jpg.part").write_bytes(face_bytes(99))
    a, b = two("a"), two("b")
    for daemon in (a, b):
        daemon.wait_ready()
    rooms = a.rooms, b.rooms
    inboxes = [str(one.inbox) for one in rooms]
    options = ["--settle", "0.1", "--every", "0.05", "--most", "3"]
    first = subprocess.Popen([*DISPATCH, str(arriving), *inboxes, *options], stdout=subprocess.DEVNULL)

    def archived() -> list[str]:
        return sorted(name for one in rooms for name in one.pictures("archive"))

    try:
        wait_for(lambda: len(archived()) >= 4, "the first pictures")
        second = subprocess.run(
            [*DISPATCH, str(arriving), *inboxes], capture_output=True, text=True, timeout=30
        )
        assert second.returncode == 75
        assert "another dispatcher is at work there" in second.stderr
    finally:
        first.kill()
        first.wait()
    again = subprocess.Popen([*DISPATCH, str(arriving), *inboxes, *options], stdout=subprocess.DEVNULL)
    wait_for(lambda: len(archived()) >= 8, "more pictures")
    b.kill()  # its host is dead: what it was given goes back to the others
    again.send_signal(signal.SIGTERM)
    assert again.wait(30) == 0
    for source in (str(b.rooms.inbox), str(arriving)):
        command = [*DISPATCH, source, inboxes[0], "--settle", "0.1", "--every", "0.05", "--once"]
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    b = two("b").wait_ready()  # puts back what it had claimed when it died
    wait_for(lambda: len(archived()) == len(names), "all pictures")
    wait_for(lambda: sum(len(one.pictures("quarantine")) for one in rooms) == 1, "the broken one")
    assert [a.stop(), b.stop()] == [0, 0]
    assert archived() == sorted(names)
    assert rooms[0].pictures("outbox") == sorted(names)
    assert all(one.pictures("archive") for one in rooms), "one of the daemons did nothing"
    assert [path.name for path in arriving.rglob("*") if path.is_file()].count("coming.jpg.part") == 1
    assert sum(path.is_file() for path in arriving.rglob("[!.]*")) == 1


def test_what_one_daemon_is_writing_is_not_touched_by_another_with_the_same_picture(
    tmp_path: Path, two: Start
) -> None:
    """Both were given it under one name, and share the outbox."""
    markers = [tmp_path / f"died-{number}" for number in range(3)]  # or the next saver is quicker
    entries = [f"{CrashPoint.RESULT_WRITTEN.value}@{marker}" for marker in markers]
    a = two("a", env={**os.environ, CRASH_AT: os.pathsep.join(entries)}).wait_ready()
    a.rooms.drop("a.jpg", face_bytes(1))
    wait_for(markers[0].exists, "a saver that dies")
    a.kill()
    outbox = a.rooms.outbox
    (unfinished,) = outbox.iterdir()
    before = unfinished.stat()
    b = two("b").wait_ready()
    b.rooms.drop("a.jpg", face_bytes(1))
    b.wait_count("saved", 1)
    assert b.stop() == 0
    assert sorted(path.name for path in outbox.iterdir()) == sorted([unfinished.name, "a.jpg"])
    after = unfinished.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    a = two("a").wait_ready()
    a.wait_count("saved", 1)
    assert a.stop() == 0
    assert [path.name for path in outbox.iterdir()] == ["a.jpg"]


def test_a_dispatcher_replaces_nothing_and_overfills_no_inbox(tmp_path: Path) -> None:
    arriving, one, other = (tmp_path / name for name in ("arriving", "one", "other"))
    for folder in (arriving, one, other):
        folder.mkdir()
    (one / "same.jpg").write_bytes(b"first")
    for number, name in enumerate(("same.jpg", "a.jpg", "b.jpg", "c.jpg", "d.jpg")):
        (arriving / name).write_bytes(b"second")
        os.utime(arriving / name, (number, number))
    (arriving / "link.jpg").symlink_to(one / "same.jpg")
    command = [
        *DISPATCH,
        str(arriving),
        str(one),
        str(other),
        "--settle",
        "0",
        "--every",
        "0.05",
        "--most",
        "2",
    ]
    done = subprocess.run([*command, "--once"], capture_output=True, text=True, timeout=60)
    told = "every inbox holds --most 2, and some of 2 files wait: run it again when these are done"
    assert (done.returncode, done.stderr) == (75, f"{told}, or with more for --most\n")
    assert (one / "same.jpg").read_bytes() == b"first"
    inboxes = [sorted(path.name for path in folder.iterdir()) for folder in (one, other)]
    assert inboxes == [["b.jpg", "same.jpg"], ["a.jpg", "c.jpg"]]
    assert sorted(path.name for path in arriving.iterdir()) == [
        ".dispatch.lock",
        "d.jpg",
        "link.jpg",
        "same.jpg",
    ]


def test_a_dispatcher_neither_makes_an_inbox_that_is_gone_nor_gives_it_anything(tmp_path: Path) -> None:
    arriving, one, other = (tmp_path / name for name in ("arriving", "one", "other"))
    (arriving / "holiday").mkdir(parents=True)
    one.mkdir()
    other.mkdir()
    command = [*DISPATCH, str(arriving), str(one), str(other), "--settle", "0", "--every", "0.05"]
    with (tmp_path / "told").open("w+") as told:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=told)
        try:
            wait_for((arriving / ".dispatch.lock").exists, "a dispatcher at work")
            other.rename(tmp_path / "elsewhere")
            wait_for(lambda: "no such folder" in Path(told.name).read_text(), "the missing inbox told")
            for name in ("a.jpg", "b.jpg", "holiday/c.jpg"):
                (arriving / name).write_bytes(b"a picture")
            wait_for(lambda: len(list(one.rglob("*.jpg"))) == 3, "all in the one that is there")
            assert not other.exists()
            (tmp_path / "elsewhere").rename(other)
            (arriving / "d.jpg").write_bytes(b"a picture")
            wait_for((other / "d.jpg").exists, "something in the one that is back")
        finally:
            process.terminate()
            assert process.wait(30) == 0
    line = f"{str(other)!a}: no such folder; it is given nothing\n"
    assert Path(told.name).read_text() == line


@pytest.mark.parametrize("has_renames", [True, False])
def test_a_dispatcher_leaves_what_is_in_the_way_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], has_renames: bool
) -> None:
    """A link isn't seen at its look at the inbox, as what a daemon puts back just afterwards isn't."""
    if not has_renames:
        monkeypatch.setattr(dispatch, "_libc", None)
    arriving, inbox = tmp_path / "arriving", tmp_path / "inbox"
    names = ("a.jpg", "folder.jpg", "holiday/b.jpg", "last.jpg")
    for name in names:
        (arriving / name).parent.mkdir(parents=True, exist_ok=True)
        (arriving / name).write_bytes(b"second")
    inbox.mkdir()
    (inbox / "a.jpg").symlink_to("first")
    (inbox / "folder.jpg").mkdir()
    (inbox / "holiday").write_bytes(b"a file")
    told = dispatch.Told()
    for moved in (1, 0):
        files = sorted(dispatch.pictures(arriving), key=lambda file: file.path)
        done = dispatch.spread(arriving, [inbox], files, 64)
        assert (done.moved, done.is_full) == (moved, False)
        told.tell(done.troubles)
    assert (inbox / "a.jpg").is_symlink()
    assert (inbox / "last.jpg").read_bytes() == b"second"
    assert sorted(file.path for file in dispatch.pictures(arriving)) == sorted(names[:3])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.endswith("; it stays where it is") for line in lines)


def test_a_dispatcher_says_what_keeps_it(tmp_path: Path) -> None:
    missing = subprocess.run([*DISPATCH, str(tmp_path), str(tmp_path / "no")], capture_output=True, text=True)
    assert (missing.returncode, "no such folder" in missing.stderr) == (78, True)
    elsewhere = subprocess.run([*DISPATCH, str(tmp_path), "/proc"], capture_output=True, text=True)
    assert (elsewhere.returncode, "not on one file system" in elsewhere.stderr) == (78, True)


def test_a_lost_answer_to_an_unlink_takes_no_picture_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no rename without replacement, and the request is sent twice, as on NFS."""
    (tmp_path / "a.jpg").write_bytes(b"picture")
    monkeypatch.setattr(durable, "_libc", SimpleNamespace())
    unlink = os.unlink

    def sent_twice(name: str, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        unlink(name, dir_fd=dir_fd)

    with open_folder(tmp_path) as folder, monkeypatch.context() as server:
        server.setattr(os, "unlink", sent_twice)
        with contextlib.suppress(FileNotFoundError):
            rename_new(folder, "a.jpg", folder, "b.jpg")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b.jpg": b"picture"}
