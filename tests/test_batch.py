"""`maskdrop batch`: the real command as a process, real files, real signals."""

import contextlib
import csv
import hashlib
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_job import Job, by_outcome, bytes_of, snapshot
from broken_files import broken_files
from cradle import started_by
from drawing import face_bytes
from maskdrop.batch.ledger import Entry, Ledger, Outcome
from maskdrop.batch.report import summary, write_report
from maskdrop.batch.settings import settings_for
from maskdrop.crash_points import CRASH_AT, CrashPoint
from maskdrop.results.provenance import source_of
from running import EXECUTED, QUICK, Daemon, Rooms, maskdrop
from waiting import PATIENCE_S, wait_for

ODD_NAMES = (b"two\nlines.jpg", b"not-utf-8-\xff\xfe.jpg", b"sub/\xe4\n/b,\"c';d.jpg")

GOOD = 40


def fill(job: Job, good: int = GOOD) -> tuple[set[bytes], set[bytes]]:
    """Drawn pictures of several forms and sub-folders with odd names among them, and broken ones."""
    whole, broken = set(), set()
    forms = ("JPEG", "PNG", "WEBP", "GIF")
    plain = range(good - len(ODD_NAMES))
    names = [f"{index % 3}/{index}.{forms[index % 4].lower()}".encode() for index in plain]
    for index, name in enumerate([*names, *ODD_NAMES]):
        job.put(name, face_bytes(index, forms[index % 4]))
        whole.add(name)
    for broken_name, content in broken_files().items():
        job.put(f"broken/{broken_name}", content)
        broken.add(f"broken/{broken_name}".encode())
    return whole, broken


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder on a read-only mount."""
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True)
    if bound.returncode != 0:
        pytest.skip("a read-only mount needs root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        with pytest.raises(OSError, match="Read-only file system"):
            (folder / "probe").touch()
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_for_temporary_files_is_told_and_the_next_run_goes_on(job: Job) -> None:
    """What became of each picture is kept there, some hundred bytes each."""
    fill(job)
    small = job.base / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(small)]).returncode != 0:
        pytest.skip("mounting needs root")
    try:
        told = job.run(code=75, env={**os.environ, "TMPDIR": str(small)})
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)
    assert f"{small}: No space left on device; make room there, or set TMPDIR" in told
    assert 0 < len(job.results()) < GOOD
    job.run(code=1)
    assert len(job.results()) == GOOD


def test_everything_is_done_and_the_inputs_stay_as_they_were(job: Job) -> None:
    whole, broken = fill(job)
    (job.source / "link.jpg").symlink_to("0/0.jpeg")
    os.mkfifo(job.source / "pipe.jpg")
    # A service manager's socket is not for a batch, whose systemd-python can't be imported here.
    (job.base / "shadow" / "systemd").mkdir(parents=True)
    (job.base / "shadow" / "systemd" / "__init__.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join([str(job.base / "shadow"), os.environ.get("PYTHONPATH", "")])
    service = {"NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": "1000000", "PYTHONPATH": path}
    before, around = snapshot(job.source), set(job.base.iterdir())
    report = job.reported(code=1, env={**os.environ, **service})
    assert by_outcome(report) == {"saved": whole, "broken": broken}
    assert snapshot(job.source) == before
    made = {path.name for path in set(job.base.iterdir()) - around}
    assert made == {"out", "report.json", "maskdrop.toml"}  # no quarantine, no health file beside IN
    assert {p.name for p in job.out.iterdir() if p.name.startswith(".")} == {".maskdrop.lock"}

    assert (report["files"], report["saved"], report["broken"]) == (GOOD + len(broken), GOOD, len(broken))
    assert (report["left_alone"], report["interrupted"]) == (2, False)
    for entry in report["pictures"]:
        if entry["outcome"] == "saved":
            (name,) = entry["outputs"]
            content = (job.source / os.fsdecode(bytes_of(entry))).read_bytes()
            if "\\" not in name:
                assert source_of(job.out / name) == hashlib.sha256(content).hexdigest()
            assert entry["ms"]["total"] > 0
            assert {"preprocess", "infer", "save"} < set(entry["ms"])
        else:
            assert entry["error"]
            assert entry["message"]
            assert not entry["quarantine"]
    assert len(job.results()) == GOOD
    assert os.fsdecode(b"not-utf-8-\xff\xfe.jpg") in job.results()
    assert len(report["slowest"]) == 5


def test_a_second_run_skips_by_content_and_broken_ones_are_copied_once(job: Job) -> None:
    whole, broken = fill(job, 12)
    with read_only(job.source):
        before = snapshot(job.source)
        first = job.reported("--quarantine", str(job.lost), code=1)
        results = job.results()
        report_file = job.base / "report.csv"
        told = job.run("--quarantine", str(job.lost), "--report", str(report_file), code=1)
        assert snapshot(job.source) == before
    rows = list(csv.DictReader(report_file.open(newline="")))
    assert by_outcome({"pictures": rows}) == {"done before": whole, "broken": broken}
    assert by_outcome(first) == {"saved": whole, "broken": broken}
    assert job.results() == results
    assert f"0 saved, 12 done before, {len(broken)} broken, 0 left of {12 + len(broken)} files" in told
    assert told.splitlines()[0] == "not done:"
    assert "  broken  broken/" in told
    assert f"  and {len(broken) - 20} more; --report names them all" in told
    copies = {path.relative_to(job.lost) for path in job.lost.rglob("*") if path.is_file()}
    assert {os.fsencode(path) for path in copies if not path.name.endswith(".reason.json")} == broken
    for name in map(os.fsdecode, broken):
        assert (job.lost / name).read_bytes() == (job.source / name).read_bytes()
        assert json.loads((job.lost / f"{name}.reason.json").read_text())["picture"] == name

    changed = sorted(whole)[0]
    job.put(changed, face_bytes(99, "PNG"))  # another content under an old name
    for path in (job.source / "broken").iterdir():
        path.unlink()
    third = job.reported(code=0)
    assert by_outcome(third) == {"saved": {changed}, "done before": whole - {changed}}
    assert len(job.results()) == len(results) + 1  # nobody's result is replaced
    fourth = job.reported(code=0, settings='[save]\noutputs = ["face", "json"]\n')
    assert by_outcome(fourth) == {"saved": whole}  # another output is wanted


def test_killed_in_the_middle_it_goes_on_where_it_was(job: Job) -> None:
    whole, broken = fill(job)
    before = snapshot(job.source)
    process = job.begin("--quarantine", str(job.lost), stderr=subprocess.DEVNULL, env=EXECUTED)
    wait_for(lambda: len(job.results()) >= 10 or process.poll() is not None, "ten results")
    children = started_by(process.pid)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    then = job.results()
    assert 10 <= len(then) < GOOD
    report = job.reported("--quarantine", str(job.lost), code=1)  # waits until the workers are gone
    assert not [child for child in children if child.is_running() and child.status() != "zombie"]
    found = by_outcome(report)
    assert found["saved"] | found["done before"] == whole
    assert len(found["done before"]) >= len(then)
    assert found["broken"] == broken
    after = job.results()
    assert len(after) == GOOD
    assert {name: after[name] for name in then} == then  # not written anew
    assert snapshot(job.source) == before


MID_WORK = (
    CrashPoint.SLOT_FILLED,
    CrashPoint.LABELS_WRITTEN,
    CrashPoint.RESULT_RENAMED,
    CrashPoint.RESULTS_PUBLISHED,
    CrashPoint.REASON_WRITTEN,
    CrashPoint.QUARANTINED,
)


def test_workers_killed_in_mid_work_cost_nothing(job: Job) -> None:
    whole, broken = {b"a.jpg", b"b.png", b"sub/c.jpg"}, {b"d.jpg"}
    for index, name in enumerate(sorted(whole)):
        job.put(name, face_bytes(index))
    job.put(b"d.jpg", b"no picture")
    before = snapshot(job.source)
    markers = {point: job.base / point.value for point in MID_WORK}
    armed = os.pathsep.join(f"{point.value}@{marker}" for point, marker in markers.items())
    report = job.reported("--quarantine", str(job.lost), code=1, env={**os.environ, CRASH_AT: armed})
    assert all(marker.exists() for marker in markers.values())
    assert by_outcome(report) == {"saved": whole, "broken": broken}
    assert len(job.results()) == 3
    assert {path.name for path in job.lost.iterdir()} == {"d.jpg", "d.jpg.reason.json"}
    assert (job.lost / "d.jpg").read_bytes() == b"no picture"
    assert snapshot(job.source) == before


def test_two_at_once_do_not_work_for_one_outbox(job: Job) -> None:
    for index in range(30):
        job.put(f"{index}.jpg", face_bytes(index))
    process = job.begin(stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: job.results() or process.poll() is not None, "a result")
        process.send_signal(signal.SIGSTOP)
        told = job.run(code=75)
        assert f"outbox {job.out} is held by maskdrop pid {process.pid}" in told
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(PATIENCE_S)


def test_what_cannot_be_done_as_asked_is_told_in_one_line(job: Job) -> None:
    inside = str(job.source / "lost")
    (job.base / "taken.json").mkdir()
    for arguments, wanted in (
        (["--report", str(job.base / "taken.json")], "name a file in a folder that is there"),
        (["--quarantine", inside], "lies inside the inbox"),
        (["--report", str(job.base / "report.txt")], ".json or .csv"),
        (["--report", str(job.source / "report.csv")], "is only read"),
        (["--report", str(job.base / "none" / "report.csv")], "a folder that is there"),
        (["--device", "cuda:99"], "model.device"),
    ):
        told = job.run(*arguments, code=78)
        assert told.count("\n") == 1
        assert wanted in told
    assert list(job.source.iterdir()) == []
    assert job.run(code=0).startswith("0 saved, 0 done before, 0 broken, 0 left of 0 files in ")
    job.source.rmdir()
    assert "No such file or directory; name a folder that you may read" in job.run(code=78)
    assert not job.source.exists()


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_place_of_a_kind_that_nobody_knows_is_no_folder(tmp_path: Path, engine: str) -> None:
    (tmp_path / "in").mkdir()
    for name, scheme, words in (
        ("IN", "http://", ["http://host/x", "out"]),
        ("OUT", "gs://", ["in", "gs://host/x"]),
        ("--quarantine", "S3://", ["in", "out", "--quarantine", "S3://host/x"]),
    ):
        done = maskdrop(["batch", *words, "--engine", engine], cwd=tmp_path)
        assert (done.returncode, done.stderr) == (
            78,
            f"maskdrop: {name} = '{scheme}host/x': nothing can be read or written by {scheme}; "
            "write s3://BUCKET/PREFIX in small letters, or ./NAME of a folder that is called so\n",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


WITHOUT_LEAVE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Before a command that may enter no folder that is closed, even as root."""


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_what_cannot_be_looked_at_is_told_in_one_line(tmp_path: Path, engine: str) -> None:
    for name in ("in", "closed/below"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "closed").chmod(0)
    try:
        for words, wanted in (
            (["in", "out", "--report", "closed/report.json"], "may be entered"),
            (["in", "out", "--report", "closed/below/report.json"], "may be entered"),
            (["closed/below", "out", "--report", "report.json"], "Permission denied; name a folder"),
            (["in", "loop"], f"folders.outbox = {tmp_path}/loop: links on its way lead round in a circle; "),
            (["in", "out", "--quarantine", "loop/below"], f"quarantine = {tmp_path}/loop/below: links on "),
        ):
            done = maskdrop(["batch", *words, "--engine", engine], WITHOUT_LEAVE, cwd=tmp_path)
            assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
            assert wanted in done.stderr
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert not (tmp_path / "out").exists()


def test_a_daemon_whose_inbox_is_a_link_to_itself_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    done = maskdrop(["run", "--inbox", "loop", "--outbox", "out"], cwd=tmp_path)
    assert done.returncode == 78
    wanted = f"maskdrop: folders.inbox = {tmp_path}/loop: links on its way lead round in a circle; mend"
    assert done.stderr == f"{wanted} the link, or name another folder\n"


def test_what_may_not_be_read_is_left_and_told(job: Job) -> None:
    job.put("a.jpg", face_bytes(1))
    job.put("secret.jpg", face_bytes(2))
    job.put("closed/b.jpg", face_bytes(3))
    (job.source / "secret.jpg").chmod(0)
    (job.source / "closed").chmod(0)
    told = job.run(code=1, prefix=WITHOUT_LEAVE)
    assert "closed can't be read: Permission denied" in told
    assert "  left  secret.jpg: unreadable: Permission denied; mend its permissions" in told
    assert "1 saved, 0 done before, 0 broken, 1 left of 2 files" in told
    assert "; 1 folders can't be read" in told
    assert set(job.results()) == {"a.jpg"}
    (job.source / "closed").chmod(0o755)  # so that it can be cleared away


def test_broken_ones_are_copied_where_nobody_may_write_the_copies(job: Job) -> None:
    """Nor may who made them, unless it is root."""
    job.put("a.jpg", face_bytes(1))
    job.put("broken.jpg", b"no picture")
    prefix = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    settings = '[folders]\nfile_mode = "0444"\n'
    job.run("--quarantine", str(job.lost), code=1, prefix=prefix, settings=settings)
    copy = job.lost / "broken.jpg"
    assert copy.read_bytes() == b"no picture"
    assert copy.stat().st_mode & 0o777 == 0o444


def test_a_batch_gives_what_the_daemon_gives_and_shows_how_far_it_is(job: Job, tiny_weights: Path) -> None:
    rooms = Rooms.make(job.base)
    for index in range(6):
        job.put(f"{index}.jpg", face_bytes(index, width=300, height=400))
    job.run(code=0)
    results = job.results()
    daemon = Daemon(rooms, tiny_weights, QUICK, (), {})
    try:
        for path in job.source.iterdir():
            rooms.drop(path.name, path.read_bytes())
        daemon.wait_count("saved", 6)
        assert daemon.stop() == 0
    finally:
        daemon.destroy()
    assert set(rooms.pictures("outbox")) == set(results)
    for name in rooms.pictures("outbox"):
        assert (rooms.outbox / name).read_bytes() == (job.out / name).read_bytes()

    shown = on_a_terminal(job, "--again")
    assert "6/6" in shown
    assert "6 saved" in shown
    assert "6 saved, 0 done before, 0 broken, 0 left of 6 files" in shown
    assert set(job.results()) == set(results)
    assert not set(job.results().values()) & set(results.values())  # each was made anew


def test_on_a_terminal_what_is_logged_is_never_broken(job: Job) -> None:
    """It breaks long lines itself, so that a path can be taken from it whole."""
    name = f"{'a long name ' * 10}.jpg"
    job.put(name, face_bytes(1))
    shown = on_a_terminal(job, "--verbose", columns=40)
    assert f" saved {name} -> {name} in ms: " in shown


def test_no_bar_goes_anywhere_but_to_a_terminal_that_can_draw_it(job: Job) -> None:
    job.put("a.jpg", face_bytes(1))
    coloured = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    assert job.run(code=0, env=coloured).startswith("slowest:\n")
    shown = on_a_terminal(job, "--again", kind="dumb")
    assert shown.startswith("slowest:\r\n")


def on_a_terminal(job: Job, *arguments: str, columns: int = 200, kind: str = "xterm-256color") -> str:
    """What a batch that ends with 0 shows on a terminal."""
    outer, inner = pty.openpty()
    environment = {**os.environ, "TERM": kind, "COLUMNS": str(columns)}
    process = job.begin(*arguments, stdout=inner, stderr=inner, env=environment)
    os.close(inner)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while data := os.read(outer, 65_536):
            shown += data
    os.close(outer)
    assert process.wait(PATIENCE_S) == 0, shown
    assert b"\x1b[?25l" not in shown, "killed, it would leave a terminal without a cursor"
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


def test_a_folder_that_is_gone_is_no_place_to_start_in(job: Job) -> None:
    """Nobody would know where relative paths lead."""
    job.put("a.jpg", face_bytes(1))
    (job.base / "gone").mkdir()
    away = f"cd '{job.base}/gone' && rmdir '{job.base}/gone' && exec \"$@\""
    told = job.run(code=78, prefix=["sh", "-c", away, "sh"])
    assert told == (
        "maskdrop: the folder that this was started in: No such file or directory; "
        "go to one that is there (cd)\n"
    )


def test_a_folder_that_may_not_be_entered_is_no_place_to_start_in(job: Job) -> None:
    """As root's home after ``sudo -u maskdrop``: no worker could be started there."""
    job.put("a.jpg", face_bytes(1))
    (job.base / "closed").mkdir(0o000)
    shell = f"cd '{job.base}/closed' && exec \"$@\""
    prefix = ["sh", "-c", shell, "sh", *WITHOUT_LEAVE]
    assert maskdrop(["version"], prefix).returncode == 0
    told = job.run(code=78, prefix=prefix)
    assert told == (
        "maskdrop: the folder that this was started in: Permission denied; "
        "go to one that may be entered (cd)\n"
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files_are_no_trouble(job: Job, closed: str) -> None:
    job.put("a.jpg", face_bytes(1))
    job.run(code=0, prefix=["sh", "-c", f'exec "$@" {closed}', "sh"])
    assert set(job.results()) == {"a.jpg"}


def test_a_folder_that_may_not_be_read_alone_makes_a_batch_incomplete(job: Job) -> None:
    job.put("a.jpg", face_bytes(1))
    job.put("closed/b.jpg", face_bytes(3))
    (job.source / "closed").chmod(0)
    told = job.run(code=1, prefix=WITHOUT_LEAVE)
    (job.source / "closed").chmod(0o755)
    assert "1 saved, 0 done before, 0 broken, 0 left of 1 files" in told


def test_a_report_may_be_read_by_others_and_holds_all_results_of_a_picture(job: Job) -> None:
    job.put("a.jpg", face_bytes(1))
    report = job.base / "report.csv"
    settings = '[save]\noutputs = ["face", "json"]\n'
    job.run(
        "--report", str(report), code=0, settings=settings, prefix=["sh", "-c", 'umask 077; exec "$@"', ""]
    )
    assert report.stat().st_mode & 0o777 == 0o644
    (row,) = csv.DictReader(report.open(newline=""))
    assert row["outputs"] == "a.jpg\na.json"


def test_a_report_that_cannot_be_put_in_place_leaves_nothing_and_those_not_named_are_counted(
    tmp_path: Path,
) -> None:
    from maskdrop.batch.run import Batch  # imports torch

    settings = settings_for(None, tmp_path / "in", tmp_path / "out", None, {}, verbose=False)
    batch, report = Batch(settings, True, lambda: None), tmp_path / "report.json"
    report.mkdir()
    for number in range(25):
        outcome = Outcome.LEFT if number % 5 else Outcome.BROKEN
        batch.ledger.add(Entry(f"{number}.jpg", outcome, error="gone", ms={"total": 1.0}))
    with pytest.raises(IsADirectoryError):
        write_report(batch, report)
    assert list(tmp_path.iterdir()) == [report]
    assert "  and 5 more; --report names them all" in summary(batch)


def test_the_slowest_are_the_slowest() -> None:
    with contextlib.closing(Ledger()) as ledger:
        for ms in (5, 3, 9, 9, 1, 7, 2, 8):
            times = {"infer": float(ms), "total": 100.0 - ms}
            ledger.add(Entry(f"{ms}.jpg", Outcome.SAVED, ms=times))
        assert [entry.work_ms for entry in ledger.slowest] == [9, 9, 8, 7, 5]


def test_a_batch_leaves_a_services_metrics_and_log_alone(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f"[metrics]\nfile = '{tmp_path}/m.prom'\nport = 9000\n[log]\nfile = '{tmp_path}/log'\n")
    settings = settings_for(config, tmp_path / "in", tmp_path / "out", None, {}, verbose=False)
    assert (settings.metrics.file, settings.metrics.port, settings.log.file) == (None, None, None)
