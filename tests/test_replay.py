"""`maskdrop replay`, with the real daemon at work and without one."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drawing import face_bytes
from maskdrop.commands.replay import _seconds as seconds
from maskdrop.replay import Room, Wanted, clear_leftovers, find, put_back
from running import QUICK, Daemon, Rooms, maskdrop
from waiting import wait_for

Start = Callable[..., Daemon]

COMMAND = [sys.executable, "-m", "maskdrop", "replay"]

WITHOUT_ROOTS_POWERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]


def replay(rooms: Rooms, *arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    done = maskdrop(["replay", "--inbox", str(rooms.inbox), *arguments])
    assert done.returncode == code, done.stderr
    return done


def quarantined(rooms: Rooms, path: str | bytes, content: bytes, **reason: object) -> Path:
    """A picture in quarantine with its reason, as the daemon leaves it."""
    picture = rooms.quarantine / os.fsdecode(path)
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(content)
    whole = {
        "picture": str(path),
        "stage": "preprocess",
        "error": "OSError",
        "message": "it is truncated",
        **reason,
    }
    Path(f"{picture}.reason.json").write_text(json.dumps(whole))
    return picture


def everything_in(folder: Path) -> set[str]:
    """Hidden things too."""
    return {os.fspath(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_was_quarantined_goes_through_once_the_limit_is_raised(start: Start, rooms: Rooms) -> None:
    """A first daemon finds the pictures too large; a second one is at work while they are put back."""
    contents = {"a.jpg": face_bytes(1), "sub/b.jpg": face_bytes(2), "b.jpg": face_bytes(3), "bad.jpg": b"bad"}
    (rooms.quarantine / "a.jpg").write_bytes(b"an older one, whose reason somebody has removed")
    first = start(settings=QUICK + "[decode]\nmax_pixels = 100\n").wait_ready()
    for name, content in contents.items():
        rooms.drop(name, content)
    first.wait_count("quarantined", 4)
    assert first.stop() == 0
    assert "a~2.jpg" in rooms.pictures("quarantine")

    second = start().wait_ready()
    told = replay(rooms, "--reason", "toomany*")
    assert sorted(told.stdout.splitlines()) == [
        "a~2.jpg as a.jpg (TooManyPixels)",
        "b.jpg (TooManyPixels)",
        "sub/b.jpg (TooManyPixels)",
    ]
    assert told.stderr == "3 are back in the inbox\n"
    second.wait_count("saved", 3)
    assert rooms.pictures("archive") == ["a.jpg", "b.jpg", "sub/b.jpg"]
    assert everything_in(rooms.quarantine) == {"a.jpg", "bad.jpg", "bad.jpg.reason.json"}

    outcome = {name: (rooms.outbox / name).read_bytes() for name in rooms.pictures("outbox")}
    replay(rooms, "--from", "archive", "sub/*")
    second.wait_count("saved", 4)
    replay(rooms, "--from", "archive", "--all")
    second.wait_count("saved", 7)
    assert {name: (rooms.outbox / name).read_bytes() for name in rooms.pictures("outbox")} == outcome

    replay(rooms, "bad.jpg")  # as broken as it was
    second.wait_count("quarantined", 1)
    assert {"bad.jpg", "bad.jpg.reason.json"} < everything_in(rooms.quarantine)
    assert second.stop() == 0
    assert rooms.pictures("inbox") == []
    for name in ("a.jpg", "b.jpg", "sub/b.jpg"):
        assert (rooms.archive / name).read_bytes() == contents[name]


def test_pictures_are_chosen_by_pattern_reason_and_age(rooms: Rooms) -> None:
    quarantined(rooms, "new.jpg", b"1", time="2999-01-01T00:00:00+00:00")
    quarantined(
        rooms,
        "x/old.jpg",
        b"2",
        time="2020-01-01T00:00:00+00:00",
        error="TooManyBytes",
        stage="save",
        message="",
    )
    quarantined(rooms, "x/plain.reason.json", b"3", time="damaged")  # a picture of that name
    (rooms.quarantine / "orphan.jpg.reason.json").write_text("{}")
    (rooms.quarantine / "without.png").write_bytes(b"4")
    everyone = {"new.jpg", "x/old.jpg", "x/plain.reason.json", "without.png"}

    def chosen(*arguments: str) -> set[str]:
        lines = replay(rooms, "--dry-run", *arguments).stdout.splitlines()
        return {line.partition(" (")[0] for line in lines}

    assert chosen("--all") == everyone
    assert chosen("*.jpg") == {"new.jpg", "x/old.jpg"}
    assert chosen("x/*") == {"x/old.jpg", "x/plain.reason.json"}
    assert chosen("new*", "with*") == {"new.jpg", "without.png"}
    assert chosen("--reason", "*TRUNCATED*") == {"new.jpg", "x/plain.reason.json"}
    assert chosen("--reason", "save", "--reason", "nothing") == {"x/old.jpg"}
    assert chosen("--older-than", "52w") == {"x/old.jpg"}
    assert chosen("--newer-than", "1h") == everyone - {"x/old.jpg"}
    assert chosen("--newer-than", "1h", "--reason", "OSError", "n*") == {"new.jpg"}
    assert chosen("--from", "archive", "--all") == set()
    assert everything_in(rooms.inbox) == set()
    for arguments in ([], ["--from", "archive", "--reason", "x"], ["--older-than", "soon"]):
        assert "maskdrop: " in replay(rooms, *arguments, code=78).stderr


def test_times_are_told_in_seconds_to_weeks() -> None:
    hour = 3600.0
    told = [seconds("--older-than", f"1.5{unit}") for unit in "smhdw"]
    assert told == [1.5, 90.0, 1.5 * hour, 36 * hour, 7 * 36 * hour]


def test_in_the_archive_age_is_since_a_picture_came_there(rooms: Rooms) -> None:
    """Which a picture's own time doesn't tell: it is as old as the photograph."""
    (rooms.archive / "a.jpg").write_bytes(b"1")
    os.utime(rooms.archive / "a.jpg", (0, 0))
    dry = ["--from", "archive", "--dry-run"]
    assert replay(rooms, *dry, "--newer-than", "1h").stdout == "a.jpg\n"
    assert replay(rooms, *dry, "--older-than", "1h").stdout == ""


def test_where_originals_are_deleted_there_is_no_archive_to_take_them_from(rooms: Rooms) -> None:
    config = rooms.base / "c.toml"
    config.write_text(f"[folders]\noutbox = '{rooms.outbox}'\nafter = 'delete'\n")
    done = replay(rooms, "--config", str(config), "--from", "archive", "--all", code=78)
    assert done.stderr.endswith("there is no archive to take pictures from\n")


def test_nothing_in_the_inbox_is_replaced_and_odd_names_come_back_as_they_were(rooms: Rooms) -> None:
    odd = b"sub/two\nlines-\xff.jpg"
    quarantined(rooms, "a.jpg", b"mine")
    quarantined(rooms, odd, b"odd")
    (rooms.inbox / "a.jpg").write_bytes(b"another's")
    told = replay(rooms, "--all")
    assert "a.jpg as a~2.jpg (OSError)" in told.stdout
    assert r"sub/two\nlines-\xff.jpg (OSError)" in told.stdout
    assert everything_in(rooms.inbox) == {"a.jpg", "a~2.jpg", os.fsdecode(odd)}
    assert (rooms.inbox / "a.jpg").read_bytes() == b"another's"
    assert (rooms.inbox / "a~2.jpg").read_bytes() == b"mine"
    assert everything_in(rooms.quarantine) == set()


def test_a_reason_written_meanwhile_stays(rooms: Rooms) -> None:
    """A picture that is quarantined again before its old reason was removed keeps its new one: the
    daemon's moves are made here between the two looks at the folder."""
    picture = quarantined(rooms, "a.jpg", b"1")
    (kept,) = find(rooms.quarantine, Room.QUARANTINE, Wanted())
    note = Path(f"{picture}.reason.json")
    newer = note.with_name("newer")
    newer.write_text("{}")
    newer.replace(note)
    put_back(rooms.quarantine, rooms.inbox, kept, 0o755)
    assert everything_in(rooms.inbox) == {"a.jpg"}
    assert everything_in(rooms.quarantine) == {"a.jpg.reason.json"}
    assert put_back(rooms.quarantine, rooms.inbox, kept, 0o755) is None


def test_reasons_that_a_dead_one_had_aside_go_or_come_back_to_their_picture(rooms: Rooms) -> None:
    """Its picture is gone, or has a newer reason, or has none; and one of a process that is not dead."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead, alive = (f".maskdrop-reason-{pid}.tmp" for pid in (ended.pid, os.getpid()))
    quarantined(rooms, "newer.jpg", b"1")
    quarantined(rooms, "sub/none.jpg", b"2")
    taken = rooms.quarantine / "sub" / "none.jpg.reason.json"
    reason = taken.read_text()
    taken.unlink()
    for name in (f"{dead}/gone.jpg", f"{dead}/newer.jpg", f"sub/{dead}/none.jpg", f"{alive}/gone.jpg"):
        aside = rooms.quarantine / f"{name}.reason.json"
        aside.parent.mkdir(exist_ok=True)
        aside.write_text(reason if "none" in name else "{}")
    link = rooms.quarantine / ".maskdrop-reason-999999999.tmp"  # no process has that number
    link.symlink_to(rooms.inbox)
    before = everything_in(rooms.quarantine)
    replay(rooms, "--all", "--dry-run")
    assert everything_in(rooms.quarantine) == before
    newer = (rooms.quarantine / "newer.jpg.reason.json").read_text()
    replay(rooms, "of no picture")
    notes = {"newer.jpg.reason.json", "sub/none.jpg.reason.json"}
    assert everything_in(rooms.quarantine) == {
        "newer.jpg",
        "sub/none.jpg",
        *notes,
        f"{alive}/gone.jpg.reason.json",
    }
    assert taken.read_text() == reason
    assert (rooms.quarantine / "newer.jpg.reason.json").read_text() == newer != "{}"
    assert not list(rooms.quarantine.rglob(dead))
    assert link.is_symlink()


def test_killed_at_any_moment_it_loses_nothing(rooms: Rooms) -> None:
    """A thousand pictures, SIGKILL again and again at random moments, then a run to the end."""
    chance = random.Random(7)
    names = {f"{index % 7}/{index}.jpg" for index in range(1000)}
    kills = turns = 0
    while kills < 6:
        turns += 1
        assert turns <= 60, f"{kills} kills in {turns - 1} turns: it is always done before it is seen at work"
        if not rooms.pictures("quarantine"):  # as at the start, and where a run came to its end unharmed
            shutil.rmtree(rooms.inbox)
            rooms.inbox.mkdir()
            for name in names:
                quarantined(rooms, name, name.encode())
        before = len(everything_in(rooms.inbox))
        command = [*COMMAND, "--inbox", str(rooms.inbox), "--all"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        goal = before + chance.randrange(1, 25)
        wait_for(lambda: process.poll() is not None or len(everything_in(rooms.inbox)) >= goal, "moves")  # noqa: B023
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        kills += killed
        inbox, quarantine = everything_in(rooms.inbox), everything_in(rooms.quarantine)
        assert not killed or len(inbox) > before
        seen = {name for name in quarantine if ".maskdrop-reason-" not in name}
        left = {name for name in seen if not name.endswith(".reason.json")}
        assert inbox | left == names
        assert not inbox & left
        assert all(f"{name}.reason.json" in quarantine for name in left)
    replay(rooms, "--all")
    assert everything_in(rooms.inbox) == names
    assert all(name.endswith(".reason.json") for name in everything_in(rooms.quarantine))
    assert not list(rooms.quarantine.rglob(".maskdrop-reason-*"))
    assert all((rooms.inbox / name).read_bytes() == name.encode() for name in names)


def test_where_no_file_can_be_made_pictures_come_back_and_reasons_stay(rooms: Rooms, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=8", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    try:
        full = replace(rooms, inbox=disk / "inbox", quarantine=disk / "quarantine")
        full.inbox.mkdir()
        full.quarantine.mkdir()
        quarantined(full, "a.jpg", b"1")
        with contextlib.suppress(OSError):
            for number in range(8):
                (disk / str(number)).touch()
        told = replay(full, "--all").stdout
        assert "a.jpg" in told
        assert everything_in(full.inbox) == {"a.jpg"}
        assert everything_in(full.quarantine) == {"a.jpg.reason.json"}
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_folder_that_may_not_be_read_is_told_and_the_others_come_back(rooms: Rooms) -> None:
    quarantined(rooms, "closed/a.jpg", b"a")
    quarantined(rooms, "open/b.jpg", b"b")
    closed = rooms.quarantine / "closed"
    closed.chmod(0)
    prefix = WITHOUT_ROOTS_POWERS if os.geteuid() == 0 else []
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("capabilities can't be taken away here")
    done = maskdrop(["replay", "--inbox", str(rooms.inbox), "--all"], prefix)
    closed.chmod(0o755)
    assert done.returncode == 1
    told = "maskdrop: closed: Permission denied; what is in it stays there"
    end = "1 are back in the inbox, 1 folders could not be read"
    assert done.stderr.splitlines() == [told, end]
    assert rooms.pictures("inbox") == ["open/b.jpg"]


def test_a_reader_that_has_seen_enough_ends_nothing(rooms: Rooms) -> None:
    for number in range(40):
        quarantined(rooms, f"{number}.jpg", b"picture")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = maskdrop(["replay", "--inbox", str(rooms.inbox), "--all"], stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "40 are back in the inbox\n")
    assert len(rooms.pictures("inbox")) == 40


def test_a_reason_that_is_nested_without_end_is_no_reason(rooms: Rooms) -> None:
    quarantined(rooms, "a.jpg", b"picture")
    (rooms.quarantine / "a.jpg.reason.json").write_text("[" * 20_000)
    done = maskdrop(["replay", "--inbox", str(rooms.inbox), "--all"])
    assert (done.returncode, done.stderr) == (0, "1 are back in the inbox\n")
    assert rooms.pictures("inbox") == ["a.jpg"]


def test_a_full_disk_for_what_it_prints_ends_nothing(rooms: Rooms) -> None:
    for number in range(3):
        quarantined(rooms, f"{number}.jpg", b"picture")
    with Path("/dev/full").open("w") as full:
        done = maskdrop(["replay", "--inbox", str(rooms.inbox), "--all"], stdout=full.fileno())
    told = "maskdrop: standard output: No space left on device; going on without it"
    assert (done.returncode, done.stderr.splitlines()) == (0, [told, "3 are back in the inbox"])
    assert len(rooms.pictures("inbox")) == 3


def test_help_can_be_read_where_the_locale_has_no_letters_for_it() -> None:
    ascii_alone = ["env", "LC_ALL=POSIX", "PYTHONCOERCECLOCALE=0", "PYTHONUTF8=0"]
    done = maskdrop(["batch", "--help"], prefix=ascii_alone)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Do every picture below IN once" in done.stdout


def test_names_that_the_locale_has_no_letters_for_end_nothing(rooms: Rooms) -> None:
    for name in ("漢.jpg", "é.jpg", "a.jpg"):
        quarantined(rooms, name, b"picture")
    words = ["replay", "--inbox", str(rooms.inbox), "--all"]
    done = maskdrop(words, prefix=["env", "PYTHONIOENCODING=ascii"])
    assert (done.returncode, done.stderr) == (0, "3 are back in the inbox\n")
    assert sorted(line.split()[0] for line in done.stdout.splitlines()) == [
        "\\u6f22.jpg",
        "\\xe9.jpg",
        "a.jpg",
    ]


def test_an_inbox_on_another_disk_is_told_and_everything_stays(rooms: Rooms) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(rooms.inbox)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    try:
        quarantined(rooms, "a.jpg", b"1")
        told = replay(rooms, "--all", code=1).stderr
        assert "a.jpg: Invalid cross-device link; it stays where it is" in told
        assert everything_in(rooms.quarantine) == {"a.jpg", "a.jpg.reason.json"}
    finally:
        subprocess.run(["umount", "--lazy", str(rooms.inbox)], check=True)


def test_what_another_users_replay_has_aside_stays(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = rooms.quarantine / ".maskdrop-reason-4711.tmp" / "a.jpg.reason.json"
    aside.parent.mkdir()
    aside.write_text("{}")

    def refuse(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "")

    monkeypatch.setattr(os, "kill", refuse)
    clear_leftovers(rooms.quarantine)
    assert aside.exists()


def test_a_picture_that_was_moved_within_quarantine_comes_back_there(rooms: Rooms) -> None:
    quarantined(rooms, "y/a.jpg", b"1", picture="x/a.jpg")
    replay(rooms, "--all")
    assert everything_in(rooms.inbox) == {"y/a.jpg"}
