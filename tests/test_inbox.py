"""What is taken from the inbox, when, and what is left alone."""

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyFD

from audited import audited
from drawing import draw_face, encode, face_bytes
from maskdrop.beneath import open_folder
from maskdrop.inbox.downloads import DOWNLOAD_S, Downloads
from maskdrop.inbox.lock import LOCK_NAME
from maskdrop.inbox.watch import Change, Watch
from running import QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]

NO_RESCAN = QUICK.replace("rescan_s = 2", "rescan_s = 86400")


def test_a_file_written_in_fifty_slow_pieces_is_taken_once_and_whole(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    content = encode(draw_face(3, 600, 600), quality=95)
    step = len(content) // 50 + 1
    pauses = {10, 25}  # two pauses far beyond settle_ms, with the file open
    with (rooms.inbox / "slow.jpg").open("wb") as file:
        for index in range(50):
            file.write(content[index * step : (index + 1) * step])
            file.flush()
            time.sleep(0.6 if index in pauses else 0.02)
        assert daemon.health()["counts"]["accepted"] == 0
    daemon.wait_count("saved", 1)
    assert (rooms.archive / "slow.jpg").read_bytes() == content
    assert daemon.stop() == 0
    assert daemon.log.count("slow.jpg ->") == 1
    assert rooms.pictures("quarantine") == []


def test_events_alone_suffice(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=NO_RESCAN).wait_ready()
    daemon.wait_health(lambda health: health["backlog"] == 0, "the first scan")
    (rooms.inbox / "written.jpg").write_bytes(face_bytes(1))
    outside = rooms.base / "outside.jpg"
    outside.write_bytes(face_bytes(2))
    outside.rename(rooms.inbox / "moved-in.jpg")
    rooms.drop("renamed.jpg", face_bytes(3))
    (rooms.inbox / "waiting.part").write_bytes(face_bytes(4))
    (rooms.inbox / "waiting.part").rename(rooms.inbox / "downloaded.jpg")
    tree = rooms.base / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "in-tree.jpg").write_bytes(face_bytes(5))
    tree.rename(rooms.inbox / "tree")
    daemon.wait_count("saved", 5)
    assert rooms.pictures("outbox") == [
        "downloaded.jpg",
        "moved-in.jpg",
        "renamed.jpg",
        "tree/deep/in-tree.jpg",
        "written.jpg",
    ]


def test_a_rescan_finds_what_no_event_told(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    rooms.inbox.rename(rooms.base / "old-inbox")  # the kernel goes on watching the old folder
    rooms.inbox.mkdir()
    rooms.drop("unseen.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    rooms.drop("seen.jpg", face_bytes(2))
    daemon.wait_count("saved", 2)


def test_the_inbox_may_go_and_come_back(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    away = rooms.base / "away"
    rooms.inbox.rename(away)
    health = daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
    assert str(rooms.inbox) in health["reason"]
    rooms.inbox.mkdir()
    daemon.wait_health(lambda h: h["state"] == "running", "recovery")
    rooms.drop("after.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)


def test_another_users_slow_copy_is_not_taken_half_where_the_kernel_may_not_be_asked(
    start: Start, rooms: Rooms
) -> None:
    prefix = ["setpriv", "--bounding-set=-lease", "--inh-caps=-all"]
    if os.geteuid() != 0 or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("another user's file is made by root")
    daemon = start(prefix=prefix, settings=NO_RESCAN).wait_ready()
    content = face_bytes(3, width=600, height=600)
    path = rooms.inbox / "slow.jpg"
    with path.open("wb") as file:
        os.chown(path, 12345, 12345)
        for piece in (content[:500], content[500:1000]):
            file.write(piece)
            file.flush()
            daemon.wait_files(6, lambda health: health["counts"]["accepted"] == 0)  # many times settle_ms
        file.write(content[1000:])
    daemon.wait_count("saved", 1)
    assert rooms.pictures("quarantine") == []
    assert daemon.stop() == 0


def test_polling(start: Start, rooms: Rooms) -> None:
    settings = NO_RESCAN.replace("[watch]", "[watch]\npolling = true")
    daemon = start(settings=settings).wait_ready()
    daemon.wait_health(lambda health: health["backlog"] == 0, "the first scan")
    told = [path.read_text() for path in Path(f"/proc/{daemon.process.pid}/fdinfo").iterdir()]
    assert not [each for each in told if "inotify" in each]
    rooms.drop("polled.jpg", face_bytes(1))
    rooms.drop("sub/polled.jpg", face_bytes(2))
    daemon.wait_count("saved", 2)


def test_sub_folders_are_left_alone_where_not_recursive(start: Start, rooms: Rooms) -> None:
    rooms.drop("sub/deep.jpg", face_bytes(1))
    rooms.drop("top.jpg", face_bytes(2))
    daemon = start(settings=QUICK.replace("[watch]", "[watch]\nrecursive = false")).wait_ready()
    daemon.wait_count("saved", 1)
    rooms.drop("sub/later.jpg", face_bytes(3))
    rooms.drop("later.jpg", face_bytes(4))
    daemon.wait_count("saved", 2)
    assert daemon.stop() == 0
    assert rooms.pictures("inbox") == ["sub/deep.jpg", "sub/later.jpg"]
    assert rooms.pictures("outbox") == ["later.jpg", "top.jpg"]


def test_what_is_left_alone(start: Start, rooms: Rooms) -> None:
    names = [".hidden.jpg", "a.part", "b.tmp", "c.crdownload", "D.PART", ".folder/x.jpg", "copy.part/a/x.jpg"]
    for name in names:
        path = rooms.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(face_bytes(1))
    secret = rooms.base / "secret.jpg"
    secret.write_bytes(face_bytes(2))
    (rooms.inbox / "link.jpg").symlink_to(secret)
    (rooms.inbox / "dangling.jpg").symlink_to("nowhere")
    (rooms.base / "elsewhere").mkdir()
    (rooms.base / "elsewhere" / "far.jpg").write_bytes(face_bytes(3))
    (rooms.inbox / "linked-folder").symlink_to(rooms.base / "elsewhere")
    os.mkfifo(rooms.inbox / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(rooms.inbox / "socket.jpg"))
        daemon = start().wait_ready()
        rooms.drop("good.jpg", face_bytes(4))
        daemon.wait_count("saved", 1)
        wait_for(lambda: "left alone fifo.jpg: a FIFO" in daemon.log, "a line about the FIFO")
        assert "left alone link.jpg: a symbolic link" in daemon.log
        assert "left alone linked-folder: a symbolic link" in daemon.log
        assert "left alone socket.jpg: a socket" in daemon.log
        assert daemon.stop() == 0
    assert daemon.health()["counts"]["accepted"] == 1
    assert rooms.pictures("outbox") == ["good.jpg"]
    assert secret.read_bytes() == face_bytes(2)
    for name in names:
        assert (rooms.inbox / name).read_bytes() == face_bytes(1)
    assert daemon.log.count("left alone fifo.jpg") == 1


def test_an_empty_file_that_keeps_a_name_for_a_download_waits_for_it(start: Start, rooms: Rooms) -> None:
    """As Firefox has it."""
    (rooms.inbox / "a.jpg").touch()
    part = rooms.inbox / "a.x1Y2z3.jpg.part"
    part.write_bytes(face_bytes(1)[:100])
    (rooms.inbox / "other.jpg").touch()
    daemon = start(settings=QUICK).wait_ready()
    daemon.wait_count("quarantined", 1)
    daemon.wait_files(5)
    assert rooms.pictures("quarantine") == ["other.jpg"]
    part.write_bytes(face_bytes(1))
    part.rename(rooms.inbox / "a.jpg")
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0
    assert daemon.health()["counts"]["quarantined"] == 1


def test_an_empty_file_waits_for_a_download_no_longer_than_that(tmp_path: Path) -> None:
    (tmp_path / "a.x.jpg.part").touch()
    downloads = Downloads()
    with open_folder(tmp_path) as folder:
        for path, waited, wanted in (
            ("a.jpg", 0, True),
            ("a.jpg", DOWNLOAD_S - 1, True),
            ("a.jpg", DOWNLOAD_S, False),
            ("ab.jpg", 0, False),
        ):
            assert downloads.has_one_for(folder, path, since=1000, now=1000 + waited) == wanted, path
        (tmp_path / "a.x.jpg.part").unlink()
        assert not downloads.has_one_for(folder, "a.jpg", since=2000, now=2001)


def test_a_download_that_came_after_the_last_look_or_is_one_of_many_is_waited_for(
    tmp_path: Path,
) -> None:
    downloads = Downloads()
    with open_folder(tmp_path) as folder:
        assert not downloads.has_one_for(folder, "a.jpg", since=1000, now=1000)
        (tmp_path / "b.x.jpg.part").touch()
        assert downloads.has_one_for(folder, "b.jpg", since=1000.1, now=1000.6)
        (tmp_path / "b.x.jpg.part").unlink()
        assert not downloads.has_one_for(folder, "b.jpg", since=1000.1, now=1002)
        for number in range(300):
            (tmp_path / f"{number}.x.jpg.part").touch()
        for number in range(300):
            assert downloads.has_one_for(folder, f"{number}.jpg", since=2000, now=2001)


def test_empty_files_of_many_folders_cost_a_look_at_each(tmp_path: Path) -> None:
    """However their turns alternate."""
    downloads, folders = Downloads(), [tmp_path / name for name in "abc"]
    with contextlib.ExitStack() as stack:
        for folder in folders:
            folder.mkdir()
        opened = [stack.enter_context(open_folder(folder)) for folder in folders]
        looks = stack.enter_context(audited("os.scandir"))
        for number in range(30):
            assert not downloads.has_one_for(opened[number % 3], f"{number % 3}/{number}.jpg", 1000, 1000.5)
    assert len(looks) == 3


def test_names_of_any_bytes(start: Start, rooms: Rooms) -> None:
    raw = [
        b"with space.jpg",
        b"new\nline.jpg",
        "emoji 🙂 ü.jpg".encode(),
        b"latin-\xe9\xff.jpg",
        b"-rf.jpg",
        b"quote'\"`$(x).jpg",
        b"back\\slash.jpg",
        b"tab\tand\x1b[31mescape.jpg",
        b"no-ending",
        b"dots...jpg",
        b"n" * 251 + b".jpg",
        "\u202egpj.exe.jpg".encode(),
    ]
    for index, name in enumerate(raw):
        Path(os.fsdecode(os.fsencode(rooms.inbox) + b"/" + name)).write_bytes(face_bytes(index))
    daemon = start().wait_ready()
    daemon.wait_count("saved", len(raw))
    assert daemon.stop() == 0
    archived = sorted(os.listdir(os.fsencode(rooms.archive)))
    assert archived == sorted(raw)
    results = os.listdir(os.fsencode(rooms.outbox))
    assert len(results) == len(raw)
    expected = {name if name.endswith(b".jpg") else name + b".jpg" for name in raw}
    assert set(results) == expected
    assert "new\\nline.jpg" in daemon.log
    assert "\x1b" not in daemon.log


def test_files_that_grow_vanish_or_are_renamed_meanwhile(start: Start, rooms: Rooms) -> None:
    settings = NO_RESCAN.replace("settle_ms = 100", "settle_ms = 600")
    daemon = start(settings=settings).wait_ready()
    content = face_bytes(1)
    (rooms.inbox / "grows.jpg").write_bytes(content[:1000])
    (rooms.inbox / "vanishes.jpg").write_bytes(content)
    (rooms.inbox / "before.jpg").write_bytes(content)
    daemon.wait_health(lambda health: health["backlog"] == 3, "three files settling")
    with (rooms.inbox / "grows.jpg").open("ab") as file:
        file.write(content[1000:])
    (rooms.inbox / "vanishes.jpg").unlink()
    (rooms.inbox / "before.jpg").rename(rooms.inbox / "after.jpg")
    daemon.wait_count("saved", 2)
    daemon.wait_health(lambda health: health["backlog"] == 0, "an empty inbox")
    assert daemon.stop() == 0
    assert rooms.pictures("archive") == ["after.jpg", "grows.jpg"]
    assert (rooms.archive / "grows.jpg").read_bytes() == content
    assert rooms.pictures("quarantine") == []


def test_files_replaced_while_in_flight_lose_nothing(start: Start, rooms: Rooms) -> None:
    """Every content that was whole in the inbox and not overwritten by its owner is archived."""
    daemon = start().wait_ready()
    stop = threading.Event()
    versions = [encode(draw_face(seed, 900, 900)) for seed in range(12)]

    def replace_again_and_again() -> None:
        for content in versions:
            rooms.drop("same.jpg", content)
            stop.wait(0.15)

    writer = threading.Thread(target=replace_again_and_again)
    writer.start()
    writer.join()
    wait_for(lambda: rooms.pictures("inbox") == [], "an empty inbox")
    daemon.wait_health(lambda h: h["in_flight"] == 0 and h["backlog"] == 0, "rest")
    assert daemon.stop() == 0
    archived = [(rooms.archive / name).read_bytes() for name in rooms.pictures("archive")]
    assert all(content in versions for content in archived)
    assert versions[-1] in archived
    assert rooms.pictures("quarantine") == []


def test_the_second_daemon_on_an_inbox_says_who_holds_it(start: Start, rooms: Rooms) -> None:
    first = start().wait_ready()
    second = start()
    assert second.wait_end() == 75
    assert f"is held by maskdrop pid {first.process.pid} on {socket.gethostname()}" in second.log
    assert first.stop() == 0
    third = start().wait_ready()
    assert third.stop() == 0


def test_a_restart_right_after_a_kill_gets_the_inbox(start: Start, rooms: Rooms) -> None:
    first = start().wait_ready()
    first.process.kill()
    first.process.wait()
    second = start().wait_ready()
    assert second.stop() == 0


def test_the_loop_is_woken_for_what_arrives_and_not_for_what_leaves(tmp_path: Path) -> None:
    inbox, away, hidden = tmp_path / "inbox", tmp_path / "away", tmp_path / "inbox" / ".claims"
    hidden.mkdir(parents=True)
    (inbox / "done.jpg").write_bytes(b"x")
    woken = threading.Event()
    watch = Watch(inbox, polling=False, recursive=True, interval=1.0, wake=woken.set)
    watch.start()
    try:
        (inbox / "done.jpg").rename(hidden / "done.jpg")  # as a picture that is saved leaves
        (hidden / "done.jpg").rename(away)
        (inbox / "new.jpg").write_bytes(b"x")  # events come in order: those before would be here, too
        wait_for(lambda: Change.CLOSED in [event.change for event in watch._events], "the file is closed")
        assert {event.path for event in watch.take()[0]} == {"new.jpg"}
        assert woken.is_set()
    finally:
        watch.stop()


def test_the_kernel_does_not_tell_of_what_leaves(tmp_path: Path) -> None:
    """Watchdog would hold all events back for half a second, in case it turns up elsewhere, and three threads
    of the supervisor would wake up for each picture that is done."""
    for name in ("seen/deep", ".claimed/deep", "away.part"):
        (tmp_path / name).mkdir(parents=True)
    watch = Watch(tmp_path, polling=False, recursive=True, interval=1.0, wake=lambda: None)
    watch.start()
    try:
        (tmp_path / ".later").mkdir()
        (tmp_path / "later").mkdir()
        names = ("", "seen", "seen/deep", "later", ".later", ".claimed", ".claimed/deep", "away.part")
        folders = {(tmp_path / name).stat().st_ino: name for name in names}
        wait_for(
            lambda: "later" in [folders.get(inode) for inode, _ in _watched()], "a new folder is watched"
        )
        watched = {folders[inode]: mask for inode, mask in _watched() if inode in folders}
    finally:
        watch.stop()
    assert set(watched) == {"", "seen", "seen/deep", "later"}
    assert all(mask & 0x80 for mask in watched.values())  # IN_MOVED_TO of inotify(7)
    assert not any(mask & (0x40 | 0x200) for mask in watched.values())  # IN_MOVED_FROM, IN_DELETE


def _watched() -> list[tuple[int, int]]:
    """Inodes that this process has the kernel watch, with their masks (proc_pid_fdinfo(5))."""
    found = []
    for path in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = path.read_text().splitlines()
        except OSError:  # the listing's own descriptor
            continue
        for line in lines:
            if line.startswith("inotify "):
                fields = dict(field.split(":", 1) for field in line.split()[1:] if ":" in field)
                found.append((int(fields["ino"], 16), int(fields["mask"], 16)))
    return found


def test_a_watch_whose_reading_thread_has_ended_is_not_alive(tmp_path: Path) -> None:
    watch = Watch(tmp_path, polling=False, recursive=True, interval=1.0, wake=lambda: None)
    before = set(threading.enumerate())
    watch.start()
    try:
        assert watch.is_alive
        (reader,) = (one for one in threading.enumerate() if one not in before and isinstance(one, InotifyFD))
        reader.stop()
        reader.join()
        assert not watch.is_alive
    finally:
        watch.stop()


def test_lost_events_are_told_to_the_watch_that_is_in_use(tmp_path: Path) -> None:
    watches = [Watch(tmp_path, False, True, 1.0, wake=lambda: None) for _ in range(2)]
    log = logging.getLogger("watchdog.observers.inotify_c")
    before = list(log.filters)
    watches[0].start()
    watches[0].stop()
    watches[1].start()
    try:
        log.warning("Inotify queue overflowed; filesystem events were lost")
        assert [watch.take()[1] for watch in watches] == [False, True]
    finally:
        watches[1].stop()
    assert log.filters == before


def test_a_lock_file_that_is_removed_is_made_again_and_locked(start: Start, rooms: Rooms) -> None:
    """Else a second daemon could begin beside the first one."""
    first = start().wait_ready()
    lock = rooms.inbox / LOCK_NAME
    lock.unlink()
    wait_for(lock.exists, "the lock file, at a rescan")
    wait_for(lambda: f"pid {first.process.pid} " in lock.read_text(), "who holds it")
    second = start()
    assert second.wait_end() == 75
    rooms.drop("a.jpg", face_bytes(1))
    first.wait_count("saved", 1)
    assert first.stop() == 0


def test_an_inbox_that_can_not_be_locked_is_left_alone(start: Start, rooms: Rooms) -> None:
    """Another daemon may have it. The lock file is gone, and none can be made in its place."""
    daemon = start(settings=QUICK.replace("rescan_s = 2", "rescan_s = 0.5")).wait_ready()
    held = rooms.base / "held"
    held.touch()
    lock = rooms.inbox / LOCK_NAME
    (rooms.base / "link").symlink_to(held)
    (rooms.base / "link").rename(lock)
    health = daemon.wait_health(lambda h: h["state"] == "degraded", "state degraded")
    assert "can't be locked: " in health["reason"]
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_in_vain()
    lock.unlink()
    daemon.wait_count("saved", 1)
    assert daemon.wait_ready().stop() == 0


def test_a_folder_that_is_renamed_is_watched_by_its_new_name(start: Start, rooms: Rooms) -> None:
    rooms.drop("old/sub/before.jpg", face_bytes(1))
    daemon = start(settings=NO_RESCAN).wait_ready()
    daemon.wait_count("saved", 1)
    (rooms.inbox / "old").rename(rooms.inbox / "new")
    rooms.drop("new/sub/after.jpg", face_bytes(2))
    rooms.drop("new/after.jpg", face_bytes(3))
    daemon.wait_count("saved", 3)
    rooms.drop("new/sub/later.jpg", face_bytes(4))
    daemon.wait_count("saved", 4)
    rooms.drop("old/another.jpg", face_bytes(5))
    daemon.wait_count("saved", 5)
    rooms.drop("album.part/first.jpg", face_bytes(6))  # a folder that is being copied is left alone
    (rooms.inbox / "album.part").rename(rooms.inbox / "album")
    daemon.wait_count("saved", 6)
    rooms.drop("album/second.jpg", face_bytes(7))
    daemon.wait_count("saved", 7)
    assert "Callback" not in daemon.log
    assert daemon.stop() == 0


def another_folder_takes_its_name(inbox: Path) -> None:
    (inbox / "album").rename(inbox / ".album")
    (inbox / "album").mkdir()


def folders_are_exchanged_and_put_back(inbox: Path) -> None:
    (inbox / ".new").mkdir()
    (inbox / "album").rename(inbox / ".old")
    (inbox / ".new").rename(inbox / "album")
    (inbox / "album").rename(inbox / ".bad")
    (inbox / ".old").rename(inbox / "album")


def one_leaves_and_comes_back(inbox: Path) -> None:
    (inbox / "album").rename(inbox.parent / "album")
    (inbox / "album").mkdir()
    (inbox / "album").rmdir()
    (inbox.parent / "album").rename(inbox / "album")


@pytest.mark.parametrize(
    "act", [another_folder_takes_its_name, folders_are_exchanged_and_put_back, one_leaves_and_comes_back]
)
def test_folders_come_and_go_under_one_name(start: Start, rooms: Rooms, act: Callable[[Path], None]) -> None:
    """Watchdog knows folders by their names, and may not stumble at its end over two that had the same."""
    (rooms.inbox / "album").mkdir()
    daemon = start(settings=NO_RESCAN).wait_ready()
    rooms.drop("album/first.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    act(rooms.inbox)
    rooms.drop("album/second.jpg", face_bytes(2))
    daemon.wait_count("saved", 2)
    for folder in (".album", ".old", ".bad", "album"):
        if (rooms.inbox / folder).exists():
            shutil.rmtree(rooms.inbox / folder)
    rooms.drop("third.jpg", face_bytes(3))
    daemon.wait_count("saved", 3)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log
