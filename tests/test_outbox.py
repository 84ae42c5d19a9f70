"""Names of results: one stem for all of a picture, and none of another's."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from maskdrop import outbox as outbox_module
from maskdrop.config import FolderSettings
from maskdrop.durable import FolderTrouble, write_synced
from maskdrop.folders import Folders
from maskdrop.leave_alone import OriginalStuck
from maskdrop.outbox import Outbox, found_in
from maskdrop.results.names import Result
from maskdrop.ticket import Identity, Ticket
from running import Rooms

TAILS = [".a.json", ".b.json", ".c.json"]


def results(sha256: str, tails: list[str]) -> list[Result]:
    """What tells of which picture it is."""
    return [Result(tail, json.dumps({"maskdrop": "1", "sha256": sha256}).encode()) for tail in tails]


def outbox_of(rooms: Rooms) -> Outbox:
    folders = Folders(rooms.inbox, rooms.outbox, rooms.quarantine, rooms.archive)
    return Outbox(folders, FolderSettings(inbox=rooms.inbox, outbox=rooms.outbox), TAILS)


def ticket(name: str, number: int = 1) -> Ticket:
    return Ticket(number, name, Identity(0, number, 0, 0))


def owners(folder: Path) -> dict[str, set[str]]:
    """Of each stem, the pictures that its results are of."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in folder.iterdir():
        found[path.name.split(".")[0]].add(json.loads(path.read_bytes())["sha256"])
    return found


def test_a_name_of_which_another_picture_has_one_result_is_its_own_for_all(rooms: Rooms) -> None:
    """As when outputs were added meanwhile."""
    outbox, first, second = outbox_of(rooms), "1" * 64, "2" * 64
    assert outbox.publish(ticket("x.jpg"), first, results(first, TAILS[1:2])) == ("x.b.json",)
    marked = tuple(f"x~22222222{tail}" for tail in TAILS)
    for _ in range(2):
        assert outbox.publish(ticket("x.jpg", 2), second, results(second, TAILS)) == marked
        assert outbox.published(ticket("x.jpg", 2), second) == marked
    assert outbox.published(ticket("x.jpg"), first) is None
    own = tuple(f"x{tail}" for tail in TAILS)
    assert outbox.publish(ticket("x.jpg"), first, results(first, TAILS)) == own
    assert outbox.published(ticket("x.jpg"), first) == own
    assert owners(rooms.outbox) == {"x": {first}, "x~22222222": {second}}


AT_ONCE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from running import Rooms
from test_outbox import TAILS, outbox_of, results, ticket
rooms = Rooms(*[Path({base!r}) / name for name in ("", "inbox", "outbox", "quarantine", "archive", "h.json")])
outbox, sha256 = outbox_of(rooms), sys.argv[1] * 64
print("ready", flush=True)
sys.stdin.readline()
for number in range(150):
    outbox.publish(ticket(f"{{number}}.jpg", int(sys.argv[1])), sha256, results(sha256, TAILS))
"""


def test_savers_at_the_same_names_at_the_same_time_do_not_mix_pictures(rooms: Rooms) -> None:
    program = AT_ONCE.format(tests=str(Path(__file__).parent), base=str(rooms.base))
    pipe = subprocess.PIPE
    savers = [
        subprocess.Popen([sys.executable, "-c", program, digit], stdin=pipe, stdout=pipe, text=True)
        for digit in "123"
    ]
    for saver in savers:
        assert saver.stdout is not None
        assert saver.stdout.readline() == "ready\n"
    for saver in savers:
        saver.communicate("go\n", timeout=90)
    assert [saver.returncode for saver in savers] == [0, 0, 0]
    found = owners(rooms.outbox)
    assert {len(pictures) for pictures in found.values()} == {1}
    assert len(list(rooms.outbox.iterdir())) == 3 * 150 * len(TAILS)


def test_a_result_that_may_not_be_replaced_is_that_pictures_trouble_alone(rooms: Rooms) -> None:
    outbox, sha256 = outbox_of(rooms), "1" * 64
    outbox.publish(ticket("x.jpg"), sha256, results(sha256, TAILS[:1]))
    if subprocess.run(["chattr", "+i", rooms.outbox / "x.a.json"], capture_output=True).returncode != 0:
        pytest.skip("no file can be made immutable here")
    try:
        why = f"the outbox's x.a.json may not be replaced: {os.strerror(errno.EPERM)}"
        with pytest.raises(OriginalStuck, match=why):
            outbox.publish(ticket("x.jpg"), sha256, results(sha256, TAILS[:1]))
    finally:
        subprocess.run(["chattr", "-i", rooms.outbox / "x.a.json"], check=True)
    assert [path.name for path in rooms.outbox.iterdir()] == ["x.a.json"]


def test_a_result_beyond_the_limit_of_a_files_size_is_that_pictures_trouble_alone(rooms: Rooms) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        why = f"can't take it: {os.strerror(errno.EFBIG)}; raise the limit of a file's size"
        with pytest.raises(OriginalStuck, match=why):
            outbox_of(rooms).publish(ticket("x.jpg"), "1" * 64, [Result(".jpg", bytes(1_000_001))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(rooms.outbox.iterdir()) == []


def test_a_picture_behind_a_gap_is_found(rooms: Rooms) -> None:
    picture = rooms.archive / "a~3.jpg"
    picture.write_bytes(b"picture")
    assert found_in(rooms.archive, Ticket(1, "a.jpg", Identity.of(picture.stat()))) == "a~3.jpg"


def test_where_the_second_result_has_no_room_the_first_goes_too(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would stay under a name that another picture may have by the next try."""
    write = write_synced

    def full(folder: int, name: str, content: bytes, mode: int) -> None:
        if list(rooms.outbox.glob("x*")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, name, content, mode)

    monkeypatch.setattr(outbox_module, "write_synced", full)
    with pytest.raises(FolderTrouble):
        outbox_of(rooms).publish(ticket("x.jpg"), "1" * 64, results("1" * 64, TAILS))
    assert list(rooms.outbox.iterdir()) == []


def test_what_another_saver_put_in_a_results_place_is_not_taken_back(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has an equal picture under that stem, all of whose results are out before the disk is full."""
    write, sha256, others = write_synced, "1" * 64, outbox_of(rooms)

    def full(folder: int, name: str, content: bytes, mode: int) -> None:
        if list(rooms.outbox.glob("x*")):
            monkeypatch.setattr(outbox_module, "write_synced", write)
            others.publish(ticket("x.jpeg", 2), sha256, results(sha256, TAILS))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder, name, content, mode)

    monkeypatch.setattr(outbox_module, "write_synced", full)
    with pytest.raises(FolderTrouble):
        outbox_of(rooms).publish(ticket("x.jpg"), sha256, results(sha256, TAILS))
    assert sorted(path.name for path in rooms.outbox.iterdir()) == [f"x{tail}" for tail in TAILS]


def test_a_taken_name_costs_one_write_all_the_same(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox, written, write = outbox_of(rooms), list[bytes](), write_synced

    def noted(folder: int, name: str, content: bytes, mode: int) -> None:
        written.append(content)
        write(folder, name, content, mode)

    monkeypatch.setattr(outbox_module, "write_synced", noted)
    for digit in "12":
        outbox.publish(ticket("x.jpg", int(digit)), digit * 64, results(digit * 64, TAILS[:1]))
    assert len(written) == 2


def test_what_cant_be_written_whole_leaves_nothing(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: int, name: str, content: bytes, mode: int) -> None:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, mode, dir_fd=folder))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outbox_module, "write_synced", full)
    with pytest.raises(FolderTrouble):
        outbox_of(rooms).publish(ticket("a.jpg"), "0" * 64, [Result(".jpg", b"face")])
    assert list(rooms.outbox.iterdir()) == []
