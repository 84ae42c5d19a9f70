"""``maskdrop top``: what a terminal shows of daemons that come, work, die and come back."""

import io
import json
import os
import re
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from broken_files import broken_files
from drawing import face_bytes
from maskdrop.health.file import (
    Counts,
    Health,
    Latest,
    PlanHealth,
    QuarantinedPicture,
    SavedPicture,
    StageHealth,
    State,
    WorkerHealth,
    content_of,
    timestamp,
)
from maskdrop.health.top import picture_of
from running import Daemon, Rooms
from terminal import TOP, Terminal
from waiting import PATIENCE_S, wait_for

Start = Callable[..., Daemon]


@pytest.fixture
def terminal(rooms: Rooms) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(columns: int = 80, lines: int = 24) -> Terminal:
        opened.append(Terminal([*TOP, str(rooms.health)], columns, lines))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


def test_it_follows_a_daemon_through_its_life(
    start: Start, rooms: Rooms, terminal: Callable[..., Terminal]
) -> None:
    screen = terminal()
    screen.wait("no daemon", "No such file or directory", "q or Ctrl-C ends")
    daemon = start().wait_ready()
    screen.wait("running", f"pid {daemon.process.pid}", "backlog 0", "preprocess  1/1", "infer       1/1")
    rooms.drop("[bold]é.jpg", face_bytes(1))
    rooms.drop("half.jpg", broken_files()["jpeg-half.jpg"])
    screen.wait("[bold]é.jpg", "saved 1", "half.jpg", "preprocess: OSError: image file is trunc")
    for pid in daemon.workers("save"):
        assert str(pid)[:3] in screen.text
    assert "q or Ctrl-C ends" in screen.text, "all of it fits 80 x 24"
    screen.resize(150, 40)
    screen.wait("OSError: image file is truncated (46 bytes", "[bold]é.jpg", "q or Ctrl-C ends")
    daemon.kill()
    screen.wait("GONE", "the daemon is gone or stuck; it was running")
    again = start().wait_ready()
    screen.wait("running", f"pid {again.process.pid}", "saved 0")
    assert again.stop() == 0
    screen.wait("stopped", "drained")
    screen.type(b"xq")
    assert screen.wait_end() == 0
    wait_for(lambda: screen.written.endswith(b"\x1b[?25h") or b"\x1b[?1049l" in screen.written, "its end")
    assert screen.written.count(b"\x1b[?1049h") == screen.written.count(b"\x1b[?1049l") == 1
    assert screen.written.count(b"\x1b[?25l") <= screen.written.count(b"\x1b[?25h")
    assert termios.tcgetattr(screen.inner) == screen.modes
    assert "Traceback" not in screen.text


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "Ctrl-D"])
def test_however_it_ends_the_terminal_is_as_before(
    rooms: Rooms, terminal: Callable[..., Terminal], how: str
) -> None:
    rooms.health.write_bytes(content_of(full_health()))
    screen = terminal()
    screen.wait("running")
    if how == "SIGTERM":
        screen.process.send_signal(signal.SIGTERM)
    else:
        screen.type(b"\x03" if how == "Ctrl-C" else b"\x04")
    assert screen.wait_end() == 0
    assert termios.tcgetattr(screen.inner) == screen.modes
    wait_for(lambda: b"\x1b[?1049l" in screen.written, "the screen from before")
    assert b"Traceback" not in screen.written


def top(health: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80"}
    command = [*TOP, str(health), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)


def test_once_and_where_there_is_no_terminal(rooms: Rooms) -> None:
    missing = top(rooms.health, "--once")
    assert missing.returncode == 1
    assert "no daemon" in missing.stdout
    assert "is the daemon running with this health file?" in missing.stdout.replace("\n", " ")
    rooms.health.write_bytes(content_of(full_health()))
    for arguments in (["--once"], []):
        shown = top(rooms.health, *arguments)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "saved-0.jpg" in shown.stdout
        assert "broken-9" in shown.stdout
        assert "\x1b" not in shown.stdout
        assert max(map(len, shown.stdout.splitlines())) <= 80


def test_colours_that_are_asked_for_in_a_pipe_make_no_terminal_of_it(rooms: Rooms) -> None:
    rooms.health.write_bytes(content_of(full_health()))
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"}
    command = [*TOP, str(rooms.health)]
    shown = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, env=environment, check=True)
    assert b"saved-0.jpg" in shown.stdout
    assert b"\x1b[?1049h" not in shown.stdout


def test_svg_is_whole_and_needs_nothing_from_elsewhere(rooms: Rooms) -> None:
    rooms.health.write_bytes(content_of(full_health()))
    target = rooms.base / "top.svg"
    assert top(rooms.health, "--svg", str(target)).returncode == 0
    text = target.read_text()
    shown = "".join(ElementTree.fromstring(text).itertext()).replace("\xa0", " ")
    for part in ("maskdrop top", "running", "saved-0.jpg", "preprocess"):
        assert part in shown
    assert re.findall(r"url\((?!#)", text) == []
    assert top(rooms.base / "none.json", "--svg", str(target)).returncode == 1
    refused = top(rooms.health, "--svg", str(rooms.base / "no" / "top.svg"))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"maskdrop: {rooms.base}/no/top.svg: No such file or directory; name ")


def full_health(**changes: Any) -> Health:
    """A health file with everything in it, as full as it becomes."""
    times = {"settle": 500.0, "preprocess": 12.3, "infer": 80.0, "save": 9.9, "total": 650.1}
    now = timestamp()
    values: dict[str, Any] = {
        "state": State.RUNNING,
        "reason": "",
        "pid": 4711,
        "version": "1.0",
        "started_at": now,
        "updated_at": now,
        "interval_s": 3600.0,
        "counts": Counts(accepted=30, saved=20, quarantined=10, retried=1, left=2),
        "in_flight": 16,
        "backlog": 12_345,
        "queues": {"preprocess": 1, "infer": 2, "locate": 0, "save": 3, "quarantine": 0, "free_slots": 4},
        "stages": {
            stage: StageHealth(workers=40, ready=39, busy=0.5, waiting=2, ms={"p50": 1.0, "p99": None})
            for stage in ("preprocess", "infer", "save")
        },
        "plan": PlanHealth(40, 40, 40, threads=1, max_batch=32, slots=99, measured_ms={"infer": 20.0}),
        "workers": [WorkerHealth("infer", 4_000_000 + i, i > 1, i > 2, i) for i in range(40)],
        "throughput_per_s": 12.34,
        "latency_ms": {"p50": 30.0, "p99": None},
        "device": "cuda:0",
        "precision": "bf16",
        "model": "m" * 90,
        "latest": Latest(
            [SavedPicture(f"saved-{i}.jpg", now, times) for i in range(10)],
            [
                QuarantinedPicture(f"broken-{i}" + "画" * 150, now, "preprocess", "OSError", "x" * 160, times)
                for i in range(10)
            ],
        ),
    }
    return Health(**{**values, **changes})


def rendered(file: Path, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False, markup=False)
    screen, _ = picture_of(file, width, height)
    with console.capture() as capture:
        console.print(screen)
    return capture.get().splitlines()


REASON = "outbox /a/very/long/path: No space left on device; " * 8


@settings(max_examples=30)
@given(width=st.integers(48, 250), height=st.integers(17, 80), reason=st.sampled_from(["", "short", REASON]))
def test_it_fits_every_terminal(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, reason: str
) -> None:
    file = tmp_path_factory.mktemp("top") / "health.json"
    state = State.DEGRADED if reason else State.RUNNING
    file.write_bytes(content_of(full_health(state=state, reason=reason)))
    lines = rendered(file, width, height)
    assert len(lines) <= height
    assert "q or Ctrl-C ends" in lines[-1]
    shown = "\n".join(lines)
    assert ("degraded" if reason else "running") in lines[0]
    assert width < 80 or height < 24 or ("saved-0" in shown and "broken-0" in shown)
    console = Console(width=width)
    assert all(console.measure(line).maximum <= width for line in lines)


def test_nothing_in_a_health_file_plays_tricks_on_the_terminal(rooms: Rooms) -> None:
    trick = "\x1b[2J\x07[red]\u202e\x9b1m\nx"
    now, times = timestamp(), {"total": 1.0}
    latest = Latest(
        [SavedPicture(trick, now, times)], [QuarantinedPicture(trick, now, trick, trick, trick, times)]
    )
    changes = {"reason": trick, "model": trick, "device": trick, "version": trick}
    rooms.health.write_bytes(content_of(full_health(state=State.DEGRADED, latest=latest, **changes)))
    shown = rendered(rooms.health, 200, 24)
    assert all(line.isprintable() for line in shown)
    assert sum(line.count(r"\x1b[2J\x07[red]") for line in shown) >= 5, "shown, and as what it is"


KEYS = st.sampled_from(
    ["state", "reason", "counts", "stages", "workers", "latest", "queues", "updated_at", "latency_ms", "pid"]
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.just({"saved": [{}]}),
)


@given(changes=st.dictionaries(KEYS, VALUES, min_size=1), remove=st.sets(KEYS, max_size=3))
def test_no_file_breaks_it(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any], remove: set[str]
) -> None:
    file = tmp_path_factory.mktemp("top") / "health.json"
    file.write_bytes(content_of(full_health()))
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if key not in remove}))
    shown = "\n".join(rendered(file, 80, 24))
    assert "q or Ctrl-C ends" in shown
    assert shown.replace("\n", "").isprintable()


def test_it_tells_how_many_of_all_slots_are_in_use(rooms: Rooms) -> None:
    rooms.health.write_bytes(content_of(full_health()))
    assert "backlog 12,345   in flight 16 of 20" in "\n".join(rendered(rooms.health, 120, 40))
