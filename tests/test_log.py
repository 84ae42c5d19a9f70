"""The log: one whole line for each thing that happens, for people and for programs."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broken_files import broken_files
from drawing import face_bytes
from maskdrop.log import LineBuffer, relay
from running import QUICK, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
SAVED = re.compile(
    rf"{TIME} INFO saved (\S+) -> (\S+) in ms: settle \d+, preprocess \d+, infer \d+, save \d+, total \d+"
)


def test_a_folders_name_with_a_line_break_breaks_no_line(start: Start, rooms: Rooms) -> None:
    outbox, away = rooms.base / "out\nbox", rooms.base / "away"
    outbox.mkdir()
    daemon = start("--outbox", str(outbox)).wait_ready()
    outbox.rename(away)
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_log("taking no more work")
    assert [line for line in daemon.log.splitlines() if not re.match(TIME, line)] == []
    away.rename(outbox)
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def test_one_line_a_picture_with_result_times_and_place(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    for index in range(5):
        rooms.drop(f"sub/{index}.png", face_bytes(index, "PNG"))
    rooms.drop("broken.jpg", broken_files()["jpeg-half.jpg"])
    daemon.wait_count("saved", 5)
    daemon.wait_count("quarantined", 1)
    assert daemon.stop() == 0
    lines = daemon.log.splitlines()
    saved = [match.groups() for line in lines if (match := SAVED.fullmatch(line))]
    assert sorted(saved) == [(f"sub/{index}.png", f"sub/{index}.jpg") for index in range(5)]
    (broken,) = [line for line in lines if "quarantined" in line]
    assert re.fullmatch(
        rf"{TIME} WARNING quarantined broken\.jpg -> broken\.jpg: preprocess: OSError: .*"
        r" in ms: settle \d+, total \d+",
        broken,
    )
    assert all(re.match(TIME, line) for line in lines)


def test_json_lines(start: Start, rooms: Rooms) -> None:
    daemon = start("--log-format", "json").wait_ready()
    rooms.drop("new\nline.jpg", face_bytes(1))
    rooms.drop("broken.jpg", b"no picture")
    daemon.wait_count("saved", 1)
    daemon.wait_count("quarantined", 1)
    assert daemon.stop() == 0
    entries = [json.loads(line) for line in daemon.log.splitlines()]
    assert all(re.fullmatch(TIME, entry["time"]) and entry["level"] and entry["message"] for entry in entries)
    (saved,) = [entry for entry in entries if entry.get("result") == "saved"]
    assert saved["picture"] == "new\\nline.jpg"
    assert saved["outputs"] == ["new\\nline.jpg"]
    assert set(saved["ms"]) == {"settle", "preprocess", "infer", "save", "total"}
    (broken,) = [entry for entry in entries if entry.get("result") == "quarantined"]
    assert (broken["stage"], broken["error"]) == ("preprocess", "UnidentifiedImageError")
    assert broken["level"] == "warning"


def test_a_log_file_that_cannot_be_made_anew_ends_nobody(start: Start, rooms: Rooms) -> None:
    folder = rooms.base / "logs"
    daemon = start(settings=QUICK + f"[log]\nfile = '{folder}/maskdrop.log'\n").wait_ready()
    shutil.rmtree(folder)
    folder.touch()
    for index in range(3):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon.wait_count("saved", 3)
    (told,) = [line for line in daemon.log.splitlines() if "maskdrop.log' can't be written: " in line]
    assert re.match(r"\S+ ERROR the log file '", told)
    folder.unlink()
    rooms.drop("later.jpg", face_bytes(4))
    wait_for(lambda: (folder / "maskdrop.log").exists(), "the log file again")
    wait_for(lambda: "saved later.jpg" in (folder / "maskdrop.log").read_text(), "its line")
    assert daemon.stop() == 0


def test_a_log_file_on_a_full_disk_is_told_once(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=QUICK + "[log]\nfile = '/dev/full'\n").wait_ready()
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0
    assert daemon.log.count("the log file '/dev/full' can't be written: ") == 1
    assert "Logging error" not in daemon.log
    assert "saved a.jpg" in daemon.log


@pytest.mark.parametrize("name", ["a.log", "logs/a.log"])
def test_a_log_file_that_a_full_disk_has_no_room_for_is_made_once_there_is_some(
    start: Start, rooms: Rooms, mounted: Callable[..., None], name: str
) -> None:
    disk = rooms.base / "disk"
    disk.mkdir()
    mounted("-t", "tmpfs", "-o", "nr_inodes=3", "none", str(disk))
    fillers = [disk / "filler", disk / "filler-2"]
    for filler in fillers:
        filler.touch()
    daemon = start(settings=QUICK + f"[log]\nfile = '{disk}/{name}'\n").wait_ready()
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.log.count("a.log' can't be written: ") == 1
    for filler in fillers:
        filler.unlink()
    rooms.drop("b.jpg", face_bytes(2))
    wait_for(lambda: (disk / name).exists(), "the log file")
    wait_for(lambda: "saved b.jpg" in (disk / name).read_text(), "its line")
    assert daemon.stop() == 0
    assert "saved a.jpg" not in (disk / name).read_text()


def test_a_log_on_a_full_disk_keeps_no_reload_from_being_taken_up(start: Start, rooms: Rooms) -> None:
    full = QUICK + "[log]\nfile = '/dev/full'\n"
    daemon = start(settings=full).wait_ready()
    elsewhere = rooms.base / "elsewhere.log"
    for settings in (full + "[save]\nquality = 60\n", QUICK + f"[log]\nfile = '{elsewhere}'\n"):
        count = daemon.log.count("the configuration is taken up")
        (rooms.base / "maskdrop.toml").write_text(settings)
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda n=count: daemon.log.count("the configuration is taken up") > n, "the reload")  # type: ignore[misc]
        daemon.wait_ready()
    assert "can't be opened" not in daemon.log
    assert daemon.stop() == 0
    assert "ended with exit code 0" in elsewhere.read_text()


def test_where_neither_log_nor_standard_error_can_be_written_the_work_goes_on() -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from maskdrop.config import LogSettings\n"
        "from maskdrop.log import logger, set_up\n"
        "set_up(LogSettings(file=Path('/dev/full')))\n"
        "for _ in range(3): logger.error('a line')\n"
        "os._exit(7)"
    )
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([sys.executable, "-c", program], stderr=full).returncode == 7


def test_a_log_file_that_is_moved_away_is_made_anew(start: Start, rooms: Rooms) -> None:
    log = rooms.base / "logs" / "maskdrop.log"
    daemon = start("--log-file", str(log)).wait_ready()
    rooms.drop("first.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    log.rename(log.with_suffix(".log.1"))
    rooms.drop("second.jpg", face_bytes(2))
    daemon.wait_count("saved", 2)
    wait_for(lambda: log.exists() and "saved second.jpg" in log.read_text(), "a new log file")
    assert daemon.stop() == 0
    old, new = log.with_suffix(".log.1").read_text(), log.read_text()
    assert "saved first.jpg" in old
    assert "saved second.jpg" not in old
    assert "ended with exit code 0" in new
    assert old + new == daemon.log, "the same lines as on standard error"


def test_what_a_dying_worker_writes_comes_through_in_whole_lines(start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    pid = daemon.workers("preprocess")[0]
    os.kill(pid, signal.SIGSEGV)
    daemon.wait_log(f"worker preprocess-0 (pid {pid}) died of signal 11 (SIGSEGV)")
    lines = daemon.log.splitlines()
    assert any(line.endswith("preprocess-0: Fatal Python error: Segmentation fault") for line in lines)
    assert all(re.match(TIME, line) for line in lines)


def test_what_libraries_print_in_workers_is_there_once_these_have_ended(start: Start, rooms: Rooms) -> None:
    """Printed into a buffer that nothing else would have emptied."""
    odd = rooms.base / "odd"
    odd.mkdir()
    (odd / "sitecustomize.py").write_text(
        "import sys\nif '--multiprocessing-fork' in sys.orig_argv:\n    print('said by a library')\n"
    )
    paths = os.pathsep.join([str(odd), os.environ.get("PYTHONPATH", "")])
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    daemon = start(env={**buffered, "PYTHONPATH": paths}).wait_ready()
    assert "said by a library" not in daemon.log
    assert daemon.stop() == 0
    assert daemon.log.count("said by a library") == 3


def test_the_level_is_heeded(start: Start, rooms: Rooms) -> None:
    daemon = start(settings="[watch]\nsettle_ms = 50\n[health]\ninterval_s = 0.2\n[log]\nlevel = 'warning'\n")
    daemon.wait_ready()
    rooms.drop("good.jpg", face_bytes(1))
    rooms.drop("broken.jpg", b"no picture")
    daemon.wait_count("saved", 1)
    daemon.wait_count("quarantined", 1)
    assert daemon.stop() == 0
    assert [line.split()[1:3] for line in daemon.log.splitlines()] == [["WARNING", "quarantined"]]


def test_a_line_without_an_end_comes_in_pieces() -> None:
    """A worker that writes one takes no memory without end."""
    lines = LineBuffer()
    given = [piece for _ in range(20) for piece in lines.feed(b"x" * 10_000)]
    assert len(given) > 1
    assert max(map(len, given)) <= LineBuffer.LIMIT + 10_000
    assert "".join([*given, *lines.flush()]) == "x" * 200_000


def test_a_worker_s_line_without_a_level_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "maskdrop")
    for line in ("<7>its own", "from a library", "<x>odd", "<6>"):
        relay("infer", line)
    assert [(entry.levelno, entry.getMessage()) for entry in caplog.records] == [
        (logging.DEBUG, "infer: its own"),
        (logging.WARNING, "infer: from a library"),
        (logging.WARNING, "infer: <x>odd"),
        (logging.WARNING, "infer: <6>"),
    ]
