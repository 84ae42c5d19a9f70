"""`maskdrop check`: real files, real processes, real signals."""

import contextlib
import csv
import hashlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from broken_files import broken_files
from drawing import face_bytes
from maskdrop.check.pool import Pool, _Process
from maskdrop.check.run import Check
from maskdrop.config import DecodeSettings, WorkerSettings
from maskdrop.config_file import DecodingTables
from maskdrop.crash_points import CRASH_AT, CrashPoint
from maskdrop.inbox.lock import LOCK_NAME, InboxLock
from maskdrop.ticket import Identity, Ticket
from running import Daemon, Rooms, maskdrop
from waiting import PATIENCE_S, wait_for

Start = Callable[..., Daemon]

ODD_NAMES = (b"two\nlines.jpg", b"not-utf-8-\xff\xfe.jpg", b"sub/\xe4\n/b,\"c';d.jpg")

COMMAND = [sys.executable, "-m", "maskdrop", "check"]


def check(
    folder: Path,
    *arguments: str,
    answer: str = "",
    code: int | None = None,
    env: dict[str, str] | None = None,
) -> "subprocess.CompletedProcess[str]":
    options: dict[str, Any] = {"env": env, **({"input": answer} if answer else {})}
    done = maskdrop(["check", str(folder), *arguments], **options)
    assert "Traceback" not in done.stderr
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done


def found(folder: Path, *arguments: str, code: int = 1, **options: Any) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        check(folder, "--format", "json", *arguments, code=code, **options).stdout
    )
    return report


def put(folder: Path, name: str | bytes, content: bytes) -> None:
    path = folder / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def snapshot(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Digest, inode and time of everything below a folder that is no folder, hidden things too."""
    seen = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            seen[os.fspath(path.relative_to(folder))] = (digest, status.st_ino, status.st_mtime_ns)
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every kind of broken file, good ones among them, odd names of both."""
    top = tmp_path / "pictures"
    for name, content in broken_files().items():
        put(top, f"broken/{name}", content)
    for index, form in enumerate(("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")):
        put(top, f"good/{index}/face.{form.lower()}", face_bytes(index, form))
    for index, odd in enumerate(ODD_NAMES):
        put(top, b"good/" + odd, face_bytes(index))
        put(top, b"broken/" + odd, face_bytes(index)[:-300])
    return top


def test_every_kind_of_broken_file_is_found_and_nothing_else(folder: Path) -> None:
    (folder / "link.jpg").symlink_to("broken/empty.jpg")
    os.mkfifo(folder / "pipe.jpg")
    before = snapshot(folder)
    report = found(folder)
    names = {
        bytes.fromhex(entry["hex"]) if "hex" in entry else entry["path"].encode()
        for entry in report["findings"]
    }
    assert names == {os.fsencode(name) for name in before if name.startswith("broken/")}
    assert {entry["verdict"] for entry in report["findings"]} == {"broken"}
    assert all(entry["error"] and entry["message"] for entry in report["findings"])
    assert report["files"] == report["checked"] == len(before)
    assert (report["broken"], report["unread"], report["left_alone"]) == (len(names), 0, 2)

    rows = list(csv.DictReader(io.StringIO(check(folder, "--format", "csv", code=1).stdout)))
    assert {(row["path"], row["error"], row["message"], row["hex"]) for row in rows} == {
        (entry["path"], entry["error"], entry["message"], entry.get("hex", ""))
        for entry in report["findings"]
    }
    table = check(folder, code=1)
    lines = table.stdout.splitlines()
    assert len(lines) == 1 + len(names)
    assert any("broken/png-bomb.png" in line and "TooManyPixels" in line for line in lines)
    assert r"broken/two\nlines.jpg" in table.stdout
    assert f"checked {len(before)} of {len(before)} files" in table.stderr
    assert snapshot(folder) == before

    report_file = folder.parent / "report.json"
    done = check(
        folder,
        "--only",
        "*.avif",
        "--only",
        "good/*",
        "--format",
        "json",
        "--output",
        str(report_file),
        code=1,
    )
    assert done.stdout == ""
    chosen = json.loads(report_file.read_text())
    assert [entry["path"] for entry in chosen["findings"]] == ["broken/avif-half.avif"]
    assert chosen["files"] == 1 + 7 + 3
    check(folder / "good", code=0)


def test_check_and_daemon_agree_on_what_is_broken_and_why(folder: Path, start: Start, rooms: Rooms) -> None:
    daemon = start().wait_ready()
    report = found(folder)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        rooms.drop(os.fspath(path.relative_to(folder)), path.read_bytes())
    daemon.wait_count("quarantined", report["broken"])
    daemon.wait_count("saved", report["files"] - report["broken"])
    reasons = [json.loads(path.read_text()) for path in rooms.quarantine.rglob("*.reason.json")]
    assert {(reason["picture"], reason["error"], reason["message"]) for reason in reasons} == {
        (entry["path"], entry["error"], entry["message"]) for entry in report["findings"]
    }
    held = check(rooms.inbox, "--delete", "--yes", code=75)
    assert f"maskdrop pid {daemon.process.pid}" in held.stderr
    check(rooms.inbox, "--delete", "--dry-run", code=0)


def test_move_and_delete_touch_only_what_is_broken(folder: Path, tmp_path: Path) -> None:
    before = snapshot(folder)
    broken = {name for name in before if name.startswith("broken/")}
    good = {name: state for name, state in before.items() if name not in broken}
    away = tmp_path / "away"
    for arguments, answer in (
        (["--delete", "--yes", "--dry-run"], ""),
        (["--move", str(away), "--dry-run"], "y\n"),
        (["--delete"], "n\n"),
        (["--delete"], ""),
    ):
        check(folder, *arguments, answer=answer, code=1)
        assert snapshot(folder) == before
        assert not away.exists()

    away.mkdir()
    put(away, "broken/empty.jpg", b"somebody else's file")
    report = found(folder, "--move", str(away), answer="y\n")
    assert snapshot(folder) == good
    moved = snapshot(away)
    assert (away / "broken/empty.jpg").read_bytes() == b"somebody else's file"
    del moved["broken/empty.jpg"]
    moved["broken/empty.jpg"] = moved.pop("broken/empty~2.jpg")
    assert moved == {name: before[name] for name in broken}
    assert all(entry["done"].startswith("moved to ") for entry in report["findings"])

    report = found(away, "--delete", "--yes")
    assert {entry["done"] for entry in report["findings"]} == {"deleted"}
    assert snapshot(away) == {}
    assert snapshot(folder) == good


@pytest.mark.parametrize("where", ["inside", "around", "other disk"])
def test_a_folder_that_can_not_take_what_is_moved_is_refused(tmp_path: Path, where: str) -> None:
    top = tmp_path / "a" / "pictures"
    put(top, "b.jpg", b"broken")
    targets = {"inside": top / "x", "around": tmp_path / "a", "other disk": Path("/dev/shm") / tmp_path.name}
    target = targets[where]
    if where == "other disk" and (
        not target.parent.is_dir() or target.parent.stat().st_dev == top.stat().st_dev
    ):
        pytest.skip("/dev/shm is no other file system here")
    before = target.exists()
    done = check(top, "--move", str(target), "--yes", code=78)
    assert target.exists() == before, "a command that is refused makes nothing"
    assert f"--move {target}: " in done.stderr
    assert "; name a folder" in done.stderr
    assert (top / "b.jpg").exists()


def test_a_picture_at_which_processes_die_is_told_with_the_signal_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    """Processes really die by SIGKILL when they have read it: two deaths are forgiven, three are not."""
    top = tmp_path / "pictures"
    for index in range(12):
        put(top, f"{index:02}.jpg", face_bytes(index))

    def deaths(count: int) -> dict[str, str]:
        markers = [tmp_path / f"died-{count}-{index}" for index in range(count)]
        armed = os.pathsep.join(f"{CrashPoint.ORIGINAL_READ.value}@{marker}" for marker in markers)
        return {**os.environ, CRASH_AT: armed}

    assert found(top, "--processes", "1", code=0, env=deaths(2))["checked"] == 12
    before = snapshot(top)
    report = found(top, "--processes", "1", "--delete", "--yes", env=deaths(3))
    (entry,) = report["findings"]
    assert (entry["verdict"], entry["error"]) == ("broken", "WorkerDied")
    assert "signal 9 (SIGKILL)" in entry["message"]
    assert report["checked"] == 12
    assert entry["done"].startswith("not deleted: the machine may be at fault")
    assert snapshot(top) == before
    found(top, "--processes", "1", "--move", str(tmp_path / "away"), "--yes", env=deaths(3) | deaths(4))
    assert set(before) - set(snapshot(top)) == set(snapshot(tmp_path / "away"))
    assert len(snapshot(tmp_path / "away")) == 1


def processes_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Those that check pictures."""
    try:
        children = psutil.Process(process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def wait_at_work(check: "subprocess.Popen[str]") -> psutil.Process:
    """The first of its processes that has decoded something: started, which shows in that it ignores Ctrl-C,
    and some time of the processor later."""
    first_seen: dict[int, float] = {}

    def at_work() -> psutil.Process | None:
        assert check.poll() is None, "it ended too early"
        for child in processes_of(check):
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                (ignored,) = re.findall(r"^SigIgn:\t(\w+)$", status_of(child.pid), re.MULTILINE)
                is_started = int(ignored, 16) >> (signal.SIGINT - 1) & 1
                used = child.cpu_times().user
                if is_started and used > first_seen.setdefault(child.pid, used) + 0.3:
                    return child
        return None

    found = wait_for(at_work, "a process at work")
    assert found is not None
    return found


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text(encoding="ascii")


def begin(folder: Path, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    command = [*COMMAND, str(folder), "--format", "json", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, **options)


def copies(folder: Path, count: int, content: bytes) -> None:
    """So many names of one file."""
    put(folder, "0.jpg", content)
    for index in range(1, count):
        os.link(folder / "0.jpg", folder / f"{index}.jpg")


def at_each_process(process: "subprocess.Popen[str]", number: int) -> tuple[str, str]:
    """Signal each process of a check as soon as it is there, until the check ends; what it wrote."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        for child in processes_of(process):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)
        time.sleep(0.005)
    out, err = process.communicate(timeout=PATIENCE_S)
    return out, err


def test_a_process_that_hangs_is_replaced(tmp_path: Path) -> None:
    top = tmp_path / "pictures"
    copies(top, 120, face_bytes(1, "PNG", 900, 900))
    config = tmp_path / "c.toml"
    config.write_text("[workers]\nstage_timeout_s = 1.5\nmax_attempts = 9\n")
    process = begin(top, "--processes", "2", "--config", str(config))
    wait_at_work(process).send_signal(signal.SIGSTOP)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err.count("\n")) == (0, 1)
    assert json.loads(out)["checked"] == 120


def test_a_process_that_does_not_get_ready_in_the_time_that_is_set_ends_the_check(tmp_path: Path) -> None:
    """The time is the daemon's workers', of the same table."""
    top, config = tmp_path / "pictures", tmp_path / "c.toml"
    put(top, "good.jpg", face_bytes(1))
    config.write_text("[workers]\nstart_timeout_s = 0.3\n")
    process = begin(top, "--config", str(config))
    out, err = at_each_process(process, signal.SIGSTOP)
    reason = "the last of silence: not ready after 0.3 s (workers.start_timeout_s)"
    assert (process.returncode, out) == (1, "")
    assert err == f"maskdrop: {top}: 3 processes died before they could work, {reason}\n"


def test_ctrl_c_while_decoding_ends_cleanly_and_touches_nothing(tmp_path: Path) -> None:
    top = tmp_path / "pictures"
    copies(top, 250, face_bytes(1, "PNG", 900, 900))
    put(top, "broken.jpg", b"")
    before = snapshot(top)
    process = begin(top, "--processes", "1", "--delete", "--yes")
    wait_at_work(process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert err.startswith("checked ")
    assert err.endswith(", interrupted\n")
    assert err.count("\n") == 1
    report = json.loads(out)
    assert report["interrupted"]
    assert report["checked"] < report["files"] == 251
    assert not psutil.pid_exists(process.pid)
    assert snapshot(top) == before


def test_ctrl_c_while_moving_leaves_each_file_in_one_place_and_tells_which(tmp_path: Path) -> None:
    top, away = tmp_path / "pictures", tmp_path / "away"
    for index in range(3000):
        put(top, f"{index}.jpg", b"")
    process = begin(top, "--processes", "1", "--move", str(away), "--yes")
    wait_for(lambda: away.is_dir() and len(list(away.iterdir())) > 3, "files that were moved")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err.count("\n")) == (130, 1)
    report = json.loads(out)
    moved = {entry["path"] for entry in report["findings"] if entry["done"].startswith("moved to ")}
    assert moved == {path.name for path in away.iterdir()}
    assert 3 < len(moved) < 3000
    left = {path.name for path in top.iterdir()}  # hidden things too
    assert left == {f"{index}.jpg" for index in range(3000)} - moved


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    def most(count: int) -> int:
        top = tmp_path / str(count)
        for index in range(count):
            put(top, f"{index:0100}.jpg", b"")
        process = begin(top, "--processes", "1", "--output", str(tmp_path / "report"))
        largest = 0
        while process.poll() is None:
            lines = status_of(process.pid).splitlines()
            peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
            largest = max([largest, *peaks])
            time.sleep(0.02)
        assert process.wait() == 1
        return largest

    assert most(6000) - most(100) < 4096  # KiB; what 6,000 findings hold in memory would be as much again


def test_files_that_may_not_be_read_are_told_and_never_deleted(tmp_path: Path) -> None:
    top = tmp_path / "pictures"
    put(top, "secret.jpg", b"")
    put(top, "good.jpg", face_bytes(1))
    put(top, "2019/closed/a.jpg", face_bytes(2))
    (top / "secret.jpg").chmod(0)
    (top / "2019" / "closed").chmod(0)
    prefix: list[str] = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]
        if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
            pytest.skip("capabilities can't be taken away here")
    command = [*prefix, *COMMAND, str(top), "--delete", "--yes", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    folder, entry = sorted(report["findings"], key=lambda finding: finding["path"])
    assert (entry["path"], entry["verdict"], entry["done"]) == ("secret.jpg", "unread", "")
    assert "Permission denied" in entry["message"]
    assert (top / "secret.jpg").exists()
    assert (folder["path"], folder["verdict"], folder["done"]) == ("2019/closed", "unread", "")
    assert "Permission denied" in folder["message"]
    assert (report["unread"], report["checked"], report["broken"]) == (2, 2, 0)
    assert "0 broken, 2 could not be read" in done.stderr


def test_a_folder_that_may_not_be_entered_is_told_as_one(tmp_path: Path) -> None:
    """Its names can be listed, and nothing more."""
    top = tmp_path / "pictures"
    put(top, "good.jpg", face_bytes(1))
    put(top, "closed/a.jpg", face_bytes(2))
    put(top, "closed/b.jpg", face_bytes(3))
    (top / "closed").chmod(0o400)
    prefix: list[str] = []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]
        if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
            pytest.skip("capabilities can't be taken away here")
    command = [*prefix, *COMMAND, str(top), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    report = json.loads(done.stdout)
    assert [finding["path"] for finding in report["findings"]] == ["closed"]
    assert (report["unread"], report["checked"]) == (1, 1)


@pytest.mark.parametrize("place", ["none/report.json", "pictures", 300 * "n"])
def test_a_report_that_has_no_place_is_found_out_before_anything_is_done(tmp_path: Path, place: str) -> None:
    top = tmp_path / "pictures"
    put(top, "broken.jpg", b"")
    done = check(top, "--delete", "--yes", "--output", str(tmp_path / place), code=78)
    told = f"--output {tmp_path / place}: name a file in a folder that is there"
    assert (done.stdout, done.stderr) == ("", f"maskdrop: {told}\n")
    assert (top / "broken.jpg").exists()


def test_what_a_check_writes_may_lie_in_the_folder_that_is_checked(tmp_path: Path) -> None:
    put(tmp_path, "broken.jpg", b"")
    written, printed, told = (tmp_path / name for name in ("report.csv", "printed.txt", "told.txt"))
    written.write_text("the report of last time")
    command = [*COMMAND, str(tmp_path), "--delete", "--yes", "--format", "csv", "--output", str(written)]
    with printed.open("w") as out, told.open("w") as errors:
        subprocess.run(command, stdout=out, stderr=errors, timeout=200)
    assert [row["path"] for row in csv.DictReader(io.StringIO(written.read_text()))] == ["broken.jpg"]
    assert told.read_text().startswith("checked 1 of 1 files")
    left = {entry.name for entry in tmp_path.iterdir() if entry.name != LOCK_NAME}
    assert left == {"report.csv", "printed.txt", "told.txt"}


def test_a_report_on_a_full_disk_is_told_and_so_is_the_rest(tmp_path: Path) -> None:
    full = Path("/dev/full")
    for place in (full, None):
        put(tmp_path, "broken.jpg", b"")
        output = ("--output", str(place)) if place else ()
        with full.open("w") as nowhere:
            command = [*COMMAND, str(tmp_path), "--delete", "--yes", *output]
            done = subprocess.run(command, stdout=nowhere, stderr=subprocess.PIPE, text=True, timeout=200)
        assert done.returncode == 1
        told, summary = done.stderr.splitlines()
        where = f"--output {place}" if place else "standard output"
        assert told == f"maskdrop: {where}: No space left on device; the report isn't whole"
        assert summary.startswith("checked 1 of 1 files")
        assert not (tmp_path / "broken.jpg").exists()


def test_where_all_are_whole_and_the_report_is_not_it_fails(tmp_path: Path) -> None:
    put(tmp_path, "whole.jpg", face_bytes(1))
    (tmp_path / "link.jpg").symlink_to("whole.jpg")
    told = check(tmp_path, "--format", "json", "--output", "/dev/full", code=1).stderr
    assert "0 broken, 0 could not be read; left alone 1 that are no files\n" in told


def test_a_daemon_that_began_before_the_answer_is_told_and_the_report_is_there(tmp_path: Path) -> None:
    top = tmp_path / "inbox"
    put(top, "broken.jpg", b"")
    (top / LOCK_NAME).touch()
    process = subprocess.Popen(
        [*COMMAND, str(top), "--delete", "--format", "json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    asked = b""
    while b"[y/N]" not in asked:
        asked += os.read(process.stderr.fileno(), 4096)
    lock = InboxLock.take(top)
    out, err = process.communicate(b"y\n", timeout=PATIENCE_S)
    lock.release()
    assert process.returncode == 75
    assert b"is held by" in err
    (entry,) = json.loads(out)["findings"]
    assert (entry["path"], entry["done"]) == ("broken.jpg", "")
    assert (top / "broken.jpg").exists()


def test_a_full_disk_for_temporary_files_is_told_with_its_remedy(tmp_path: Path) -> None:
    top, small = tmp_path / "pictures", tmp_path / "small"
    for number in range(60):
        put(top, f"{number}.jpg", b"")
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(small)]).returncode != 0:
        pytest.skip("mounting needs root")
    try:
        told = check(top, "--delete", "--yes", code=75, env={**os.environ, "TMPDIR": str(small)}).stderr
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
    assert told == f"maskdrop: {small}: No space left on device; make room there, or set TMPDIR\n"
    assert len(list(top.iterdir())) == 60


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    assert check(tmp_path / "none", code=1).stderr == f"maskdrop: {tmp_path / 'none'}: no such folder\n"


def test_processes_that_can_not_start_end_the_check_and_nothing_is_called_broken(tmp_path: Path) -> None:
    """Each is killed as soon as it is there, long before it has imported what it needs."""
    top = tmp_path / "pictures"
    put(top, "good.jpg", face_bytes(1))
    process = begin(top, "--delete", "--yes")
    out, err = at_each_process(process, signal.SIGKILL)
    assert (process.returncode, out) == (1, "")
    assert "3 processes died before they could work, the last of signal 9 (SIGKILL)" in err
    assert err.count("\n") == 1
    assert (top / "good.jpg").exists()


def test_a_terminal_shows_progress_with_rate_and_time_left_and_is_asked(tmp_path: Path) -> None:
    top = tmp_path / "pictures"
    copies(top, 60, face_bytes(1, "PNG", 500, 500))
    put(top, "broken.jpg", b"")
    ours, theirs = pty.openpty()
    command = [*COMMAND, str(top), "--delete"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown, answered = b"", 0
    with contextlib.suppress(OSError):  # Linux tells the end of a terminal so
        while data := os.read(ours, 4096):
            shown += data
            if b"[y/N]" in shown and not answered:
                answered = os.write(ours, b"y\n")
    os.close(ours)
    assert process.wait(PATIENCE_S) == 1
    shown = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown)  # colours and moves of the cursor
    assert re.search(rb"\d+/61 .*\d+/s.* \d:\d\d:\d\d .*\d broken", shown), shown
    assert b"Delete: 1 broken files? [y/N]" in shown
    assert b"deleted" in shown
    assert not (top / "broken.jpg").exists()


def test_what_was_put_in_a_broken_files_place_is_left(tmp_path: Path) -> None:
    for name in ("replaced.jpg", "rewritten.jpg", "gone.jpg", "same.jpg"):
        put(tmp_path, name, b"broken")
    one = Check(tmp_path, DecodingTables(), (), lambda tally, findings: None)
    one.count()
    one.decode_all(1)
    assert one.findings.broken == 4
    put(tmp_path, ".new", face_bytes(1))
    (tmp_path / ".new").replace(tmp_path / "replaced.jpg")
    (tmp_path / "rewritten.jpg").write_bytes(b"better?")
    (tmp_path / "gone.jpg").unlink()
    one.put_away_all(None)
    done = {finding.path: finding.done for finding in one.findings}
    assert done.pop("same.jpg") == "deleted"
    assert set(done.values()) == {"left: gone, or another file by now"}
    assert {path.name for path in tmp_path.iterdir()} == {"replaced.jpg", "rewritten.jpg"}


def test_a_check_killed_while_it_moves_leaves_each_file_in_one_place_and_the_next_goes_on(
    tmp_path: Path,
) -> None:
    """Files of a check that was killed may lie in the hidden folder where they were claimed."""
    top, away = tmp_path / "pictures", tmp_path / "away"
    for index in range(300):
        put(top, f"{index}.jpg", b"")
    for goal in (20, 90, 160):
        process = begin(top, "--processes", "1", "--move", str(away), "--yes")
        wait_for(lambda: away.is_dir() and len(list(away.iterdir())) > goal, "files that were moved")  # noqa: B023
        process.kill()
        process.communicate()
        names = [path.name for folder in (top, away) for path in folder.rglob("*.jpg")]
        assert sorted(names) == sorted(f"{index}.jpg" for index in range(300))
    check(top, "--move", str(away), "--yes", code=1)
    assert list(top.iterdir()) == []
    assert {path.name for path in away.iterdir()} == {f"{index}.jpg" for index in range(300)}


def test_a_process_that_was_idle_for_long_is_not_late(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    process = _Process(tmp_path, DecodeSettings())
    try:
        pool = Pool(tmp_path, DecodeSettings(), WorkerSettings(stage_timeout_s=60), 1, 0)
        process.is_ready, process.heard_at = True, time.monotonic() - 3600
        process.give(Ticket(1, "a.jpg", Identity.of((tmp_path / "a.jpg").stat())))
        assert pool._deadline(process) > time.monotonic()
    finally:
        process.leave()
        process.bury()
