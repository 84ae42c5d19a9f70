"""Whoever may write into the folders can't make the daemon write, read or move elsewhere."""

import contextlib
import ctypes
import hashlib
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broken_files import png_bomb
from drawing import face_bytes
from maskdrop.beneath import open_folder
from maskdrop.claim import CLAIMED, claim, put_all_back, put_one_back
from maskdrop.config import FolderSettings
from maskdrop.durable import FolderTrouble
from maskdrop.folders import Folders
from maskdrop.leave_alone import LeaveAlone, OriginalChanged, OriginalStuck
from maskdrop.original import read_original
from maskdrop.outbox import Outbox
from maskdrop.quarantine import REASON_TAIL, quarantine
from maskdrop.replay import Room, Wanted, find
from maskdrop.results.names import Result
from maskdrop.results.provenance import source_of
from maskdrop.ticket import Absence, Fault, Identity, Stage, Ticket
from running import QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def digests(contents: Iterable[bytes]) -> set[str]:
    return {hashlib.sha256(content).hexdigest() for content in contents}


def exchange(one: Path, other: Path) -> None:
    """Let two names change places at once: in between, the daemon could make the folder anew."""
    here, exchanged = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if ctypes.CDLL(None, use_errno=True).renameat2(here, bytes(one), here, bytes(other), exchanged):
        raise OSError(ctypes.get_errno(), f"{one} and {other} can't be exchanged")


@contextlib.contextmanager
def again_and_again(act: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread, over and over, until the block ends."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            act()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_folders_replaced_by_links_while_it_runs(start: Start, rooms: Rooms) -> None:
    """Sub-folders of all four rooms are links to a foreign folder half of the time."""
    foreign = rooms.base / "foreign"
    foreign.mkdir()
    for index in range(12):
        (foreign / f"{index}.jpg").write_bytes(face_bytes(100 + index))
    before = contents_of(foreign)
    folders = [room / "sub" for room in (rooms.inbox, rooms.outbox, rooms.archive, rooms.quarantine)]
    for folder in folders:
        folder.mkdir()
        folder.with_name(".link").symlink_to(foreign)
    chance = random.Random(1)

    def swap() -> None:
        folder = chance.choice(folders)
        exchange(folder, folder.with_name(".link"))
        time.sleep(chance.uniform(0, 0.004))
        exchange(folder, folder.with_name(".link"))
        time.sleep(chance.uniform(0, 0.004))

    daemon = start().wait_ready()
    with again_and_again(swap):
        for index in range(24):
            content = face_bytes(index) if index % 3 else b"broken"
            temporary = rooms.base / "new"
            temporary.write_bytes(content)
            while True:  # until the folder is one and no link
                with contextlib.suppress(OSError), open_folder(rooms.inbox, "sub") as opened:
                    os.rename(temporary, f"{index}.jpg", dst_dir_fd=opened)
                    break
        daemon.wait_count("saved", 4)
    wait_for(lambda: rooms.pictures("inbox") == [], "an empty inbox")  # some after a rescan
    assert daemon.stop() == 0
    assert contents_of(foreign) == before
    assert rooms.pictures("inbox") == []
    assert len(rooms.pictures("archive")) == 16
    assert len(rooms.pictures("quarantine")) == 8
    made_from = {source_of(rooms.outbox / name) for name in rooms.pictures("outbox")}
    assert made_from == {
        hashlib.sha256(content).hexdigest() for content in contents_of(rooms.archive).values()
    }


def test_a_room_that_became_a_link_takes_nothing(rooms: Rooms) -> None:
    """As when somebody moves it to another disk and leaves a link to it: the folder is at fault."""
    folders = Folders(rooms.inbox, rooms.outbox, rooms.quarantine, rooms.archive)
    settings = FolderSettings(inbox=rooms.inbox, outbox=rooms.outbox)
    ticket = Ticket(1, "a.jpg", Identity.of(rooms.drop("a.jpg", face_bytes(1)).stat()))
    moved = rooms.base / "moved"
    moved.mkdir()
    for room in (rooms.outbox, rooms.archive, rooms.quarantine):
        room.symlink_to(room.rename(moved / room.name))
    outbox, fault = Outbox(folders, settings), Fault(Stage.SAVE, "Error", "no picture")
    with pytest.raises(FolderTrouble):
        outbox.publish(ticket, "0" * 64, [Result(".jpg", b"face")])
    with pytest.raises(FolderTrouble):
        outbox.put_away(ticket)
    with pytest.raises(FolderTrouble):
        quarantine(folders, ticket, fault, 0, settings)
    assert contents_of(moved) == {}
    assert contents_of(rooms.inbox) == {"a.jpg": face_bytes(1)}


def test_what_is_planted_under_the_names_of_results(start: Start, rooms: Rooms) -> None:
    secret, nowhere = rooms.base / "secret", rooms.base / "nowhere"
    secret.write_bytes(b"secret")
    for name in ("link", "dangling"):
        target = secret if name == "link" else nowhere
        (rooms.outbox / f"{name}.jpg").symlink_to(target)
        (rooms.archive / f"{name}.jpg").symlink_to(target)
        (rooms.quarantine / f"{name}.txt").symlink_to(target)
        (rooms.quarantine / f"{name}-note.txt.reason.json").symlink_to(target)
        rooms.drop(f"{name}.jpg", face_bytes(1))
        rooms.drop(f"{name}.txt", b"no picture")
        rooms.drop(f"{name}-note.txt", b"no picture")
    os.mkfifo(rooms.outbox / "fifo.jpg")
    (rooms.outbox / "folder.jpg").mkdir()
    (rooms.outbox / "bomb.jpg").write_bytes(png_bomb(200_000, 200_000))
    (rooms.outbox / "file").write_bytes(b"a file where a folder is wanted later")
    for seed, name in enumerate(("fifo", "folder", "bomb")):
        rooms.drop(f"{name}.jpg", face_bytes(10 + seed))
    left = rooms.inbox / CLAIMED / "sub" / "left.jpg"
    left.parent.mkdir(parents=True)
    left.write_bytes(face_bytes(20))  # as a daemon that was killed leaves it
    (rooms.inbox / CLAIMED / "link.jpg").write_bytes(face_bytes(21))  # and its name is in use again
    settings = QUICK + "[folders]\nfile_mode = '0660'\n"
    daemon = start(settings=settings, umask=0o027).wait_ready()
    daemon.wait_count("saved", 7)
    daemon.wait_count("quarantined", 4)
    health = daemon.health()
    assert daemon.stop() == 0
    assert all(worker["restarts"] == 0 for worker in health["workers"])
    assert secret.read_bytes() == b"secret"
    assert not os.path.lexists(nowhere)
    assert rooms.pictures("inbox") == []
    assert (rooms.archive / "sub" / "left.jpg").read_bytes() == face_bytes(20)
    archived = {
        path.read_bytes() for path in rooms.archive.rglob("*") if path.is_file() and not path.is_symlink()
    }
    assert {face_bytes(1), face_bytes(20), face_bytes(21)} <= archived
    results = [rooms.outbox / name for name in rooms.pictures("outbox")]
    made = [path for path in results if not path.is_symlink() and source_of(path)]
    assert {source_of(path) for path in made} == digests(archived)
    reasons = [path for path in rooms.quarantine.rglob("*.reason.json") if not path.is_symlink()]
    assert len(reasons) == 4
    assert {path.stat().st_mode & 0o777 for path in made + reasons} == {0o640}
    assert (rooms.outbox / "sub").stat().st_mode & 0o777 == 0o750
    assert (rooms.archive / "sub").stat().st_mode & 0o777 == 0o750


def test_a_folder_in_a_files_place_is_none_and_leaves_nothing_open(rooms: Rooms) -> None:
    """In that of a picture that has its ticket, of a result, of a reason to write, and of one to read."""
    folders = Folders(rooms.inbox, rooms.outbox, rooms.quarantine, rooms.archive)
    settings = FolderSettings(inbox=rooms.inbox, outbox=rooms.outbox)
    picture, broken = rooms.drop("a.jpg", face_bytes(1)), rooms.drop("b.jpg", b"no picture")
    ticket, other = (Ticket(1, path.name, Identity.of(path.stat())) for path in (picture, broken))
    picture.unlink()
    for folder in (picture, rooms.outbox / "a.jpg", rooms.quarantine / f"b.jpg{REASON_TAIL}"):
        folder.mkdir(parents=True)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(LeaveAlone) as left:
        read_original(rooms.inbox, ticket, 10**6)
    assert left.value.absence is Absence.CHANGED
    assert source_of(rooms.outbox / "a.jpg") is None
    fault = Fault(Stage.PREPROCESS, "Error", "no picture")
    assert quarantine(folders, other, fault, 0, settings) == "b~2.jpg"
    (rooms.quarantine / "b.jpg").write_bytes(b"another one")
    found = {kept.path: kept.error for kept in find(rooms.quarantine, Room.QUARANTINE, Wanted())}
    assert found == {"b.jpg": "", "b~2.jpg": "Error"}
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("after", ["archive", "delete"])
def test_originals_exchanged_without_end(start: Start, rooms: Rooms, after: str) -> None:
    """The owner moves each version aside and puts another in its place: none is archived or
    deleted whose result does not exist."""
    daemon = start(settings=QUICK + f"[folders]\nafter = '{after}'\n").wait_ready()
    aside = rooms.base / "aside"
    aside.mkdir()
    versions = [face_bytes(seed, width=300, height=300) for seed in range(40)]
    chance = random.Random(after)
    for index, content in enumerate(versions):
        with contextlib.suppress(FileNotFoundError):
            (rooms.inbox / "same.jpg").rename(aside / f"{index}.jpg")
        rooms.drop("same.jpg", content)
        time.sleep(chance.uniform(0, 0.3))
    wait_for(lambda: rooms.pictures("inbox") == [], "an empty inbox")  # some after a rescan
    assert daemon.stop() == 0
    made_from = {source_of(rooms.outbox / name) for name in rooms.pictures("outbox")}
    kept = set(contents_of(aside).values())
    gone = [content for content in versions if content not in kept]
    assert gone
    assert digests(gone) <= made_from <= digests(versions)
    if after == "archive":
        assert sorted(contents_of(rooms.archive).values()) == sorted(gone)


def test_what_changes_while_it_is_read_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.touch()
    os.truncate(path, 2**28)  # holes, which take a while to read and no room on the disk

    def is_caught_in_the_middle() -> bool:
        ticket = Ticket(1, "a.jpg", Identity.of(path.stat()))
        writer = threading.Timer(0.02, os.utime, [path])
        writer.start()
        try:
            read_original(tmp_path, ticket, 2**28)
            assert Identity.of(path.stat()) == ticket.identity, "of a file that was changed"
        except LeaveAlone as error:
            return str(error) == "changed while it was read"
        finally:
            writer.join()
        return False

    wait_for(is_caught_in_the_middle, "a change in the middle")


EXCHANGE = """
import ctypes, os, sys
libc, first, second = ctypes.CDLL(None), os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2])
while True:
    libc.renameat2(-100, first, -100, second, 2)  # RENAME_EXCHANGE
"""


def test_a_claim_holds_the_tickets_file_and_no_other(tmp_path: Path) -> None:
    inbox, spare = tmp_path / "inbox", tmp_path / "spare"
    inbox.mkdir()
    (inbox / "a.jpg").write_bytes(b"wanted")
    spare.write_bytes(b"other")
    ticket = Ticket(1, "a.jpg", Identity.of((inbox / "a.jpg").stat()))
    stranger = subprocess.Popen([sys.executable, "-c", EXCHANGE, str(inbox / "a.jpg"), str(spare)])
    held = lost = 0
    try:
        deadline = time.monotonic() + 60
        while (held < 300 or lost < 300) and time.monotonic() < deadline:
            try:
                with claim(inbox, ticket) as claimed:
                    held += 1
                    status = os.stat(claimed.name, dir_fd=claimed.folder)
                    assert Identity.of(status) == ticket.identity
            except OriginalChanged:
                lost += 1
    finally:
        stranger.kill()
        stranger.wait()
    assert held >= 300
    assert lost >= 300
    assert set(contents_of(tmp_path)) == {"inbox/a.jpg", "spare"}
    assert set(contents_of(tmp_path).values()) == {b"wanted", b"other"}


def test_what_was_claimed_is_put_back_beside_newer_files(tmp_path: Path) -> None:
    claimed = tmp_path / CLAIMED / "deep" / "er"
    claimed.mkdir(parents=True)
    (claimed / "a.jpg").write_bytes(b"old")
    (tmp_path / CLAIMED / "b.jpg").write_bytes(b"b")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "er").mkdir()
    (tmp_path / "deep" / "er" / "a.jpg").write_bytes(b"new")
    put_all_back(tmp_path)
    assert contents_of(tmp_path) == {"deep/er/a.jpg": b"new", "deep/er/a~2.jpg": b"old", "b.jpg": b"b"}
    assert list((tmp_path / CLAIMED).iterdir()) == []


def test_only_the_very_file_is_put_back_by_itself(tmp_path: Path) -> None:
    """Not a folder of its name, in which another worker's picture is being moved, nor another file."""
    claimed = tmp_path / CLAIMED / "x" / "1.jpg"
    claimed.parent.mkdir(parents=True)
    claimed.write_bytes(b"another worker's")
    (tmp_path / "x").write_bytes(b"file")
    put_one_back(tmp_path, "x", Identity.of((tmp_path / "x").stat()))
    put_one_back(tmp_path, "x/1.jpg", Identity.of((tmp_path / "x").stat()))
    assert contents_of(tmp_path) == {"x": b"file", f"{CLAIMED}/x/1.jpg": b"another worker's"}
    (tmp_path / "x").unlink()
    put_one_back(tmp_path, "x/1.jpg", Identity.of(claimed.stat()))
    assert contents_of(tmp_path) == {"x/1.jpg": b"another worker's"}


def test_no_folder_of_claimed_pictures_comes_into_the_inbox(tmp_path: Path) -> None:
    """A file has the name of a folder whose pictures have been moved on; one of them still is being moved."""
    claimed = tmp_path / CLAIMED / "x" / "y" / "1.jpg"
    claimed.parent.mkdir(parents=True)
    claimed.write_bytes(b"another worker's")
    (tmp_path / "x").write_bytes(b"file")
    ticket = Ticket(1, "x", Identity.of((tmp_path / "x").stat()))
    with pytest.raises(OriginalStuck), claim(tmp_path, ticket):
        pass
    assert contents_of(tmp_path) == {"x": b"file", f"{CLAIMED}/x/y/1.jpg": b"another worker's"}
    claimed.unlink()
    with claim(tmp_path, ticket):
        assert contents_of(tmp_path) == {f"{CLAIMED}/x": b"file"}
    assert contents_of(tmp_path) == {"x": b"file"}
    assert sorted(os.listdir(tmp_path)) == [CLAIMED, "x"]


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b", "link", "/"]), max_size=5).map("/".join))
def test_no_relative_path_leads_out(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    base = tmp_path_factory.getbasetemp() / "leads-out"
    (base / "room" / "a" / "b").mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (base / "room" / "link").symlink_to(base)
    try:
        with open_folder(base / "room", path) as folder:
            reached = Path(f"/proc/self/fd/{folder}").resolve()
    except OSError:
        return
    assert reached.is_relative_to(base / "room")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_has_the_name_of_the_folder_of_claimed_pictures_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    if kind == "file":
        (tmp_path / CLAIMED).touch()
    else:
        (tmp_path / CLAIMED).symlink_to("/tmp")
    ticket = Ticket(1, "a.jpg", Identity.of((tmp_path / "a.jpg").stat()))
    told = re.escape(f"{tmp_path / CLAIMED}: ")
    with pytest.raises(FolderTrouble, match=f"^{told}"), claim(tmp_path, ticket):
        pass
    assert (tmp_path / "a.jpg").exists()


def test_what_a_dead_worker_had_claimed_goes_back_first(tmp_path: Path) -> None:
    (tmp_path / CLAIMED).mkdir()
    (tmp_path / CLAIMED / "a.jpg").write_bytes(b"a dead worker's")
    (tmp_path / "a.jpg").write_bytes(b"wanted")
    with claim(tmp_path, Ticket(1, "a.jpg", Identity.of((tmp_path / "a.jpg").stat()))):
        assert contents_of(tmp_path) == {f"{CLAIMED}/a.jpg": b"wanted", "a~2.jpg": b"a dead worker's"}
    assert contents_of(tmp_path) == {"a.jpg": b"wanted", "a~2.jpg": b"a dead worker's"}
