"""Starting from the command line: with two folders alone, with every override, with wrong weights."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from drawing import face_bytes
from maskdrop import __version__
from running import Daemon, Rooms, maskdrop
from waiting import wait_for

Start = Callable[..., Daemon]


def test_inbox_and_outbox_alone_are_enough(tmp_path: Path) -> None:
    inbox = tmp_path / "new" / "inbox"
    command = [
        sys.executable,
        "-m",
        "maskdrop",
        "run",
        "--inbox",
        str(inbox),
        "--outbox",
        str(tmp_path / "o"),
    ]
    daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        wait_for(inbox.is_dir, "the inbox, made by the daemon")
        (inbox / "a.jpg").write_bytes(face_bytes(1))
        (inbox / "b.jpg").write_bytes(b"no picture")
        wait_for(lambda: (tmp_path / "new" / "archive" / "a.jpg").exists(), "the original in the archive")
        wait_for(lambda: (tmp_path / "new" / "quarantine" / "b.jpg").exists(), "the other in quarantine")
        daemon.terminate()
        _, log = daemon.communicate(timeout=60)
    finally:
        daemon.kill()
    assert daemon.returncode == 0, log
    assert (tmp_path / "o" / "a.jpg").exists()
    assert json.loads((tmp_path / "new" / "health.json").read_text())["counts"]["saved"] == 1


def test_every_override(start: Start, rooms: Rooms) -> None:
    elsewhere = rooms.base / "elsewhere"
    arguments = [
        *("--quarantine", str(elsewhere / "q"), "--archive", str(elsewhere / "a")),
        *("--health", str(elsewhere / "h" / "health.json"), "--device", "cpu"),
        *("--log-format", "json", "--log-file", str(elsewhere / "l" / "log")),
    ]
    daemon = start(*arguments)
    rooms.drop("a.jpg", face_bytes(1))
    rooms.drop("b.jpg", b"no picture")
    wait_for(lambda: (elsewhere / "a" / "a.jpg").exists(), "the original in the archive")
    wait_for(lambda: (elsewhere / "q" / "b.jpg").exists(), "the other in quarantine")
    assert daemon.stop() == 0
    health = json.loads((elsewhere / "h" / "health.json").read_text())
    assert health["device"] == "cpu"
    assert health["model"].startswith("tiny.safetensors")
    entries = [json.loads(line) for line in (elsewhere / "l" / "log").read_text().splitlines()]
    assert entries[-1]["message"] == "ended with exit code 0"
    assert rooms.pictures("archive") == rooms.pictures("quarantine") == []
    assert not rooms.health.exists()


def test_the_version_is_told_by_an_option_and_by_a_command() -> None:
    for words in (["--version"], ["version"]):
        told = maskdrop(words)
        assert (told.stdout, told.returncode) == (f"maskdrop {__version__}\n", 0)


def test_weights_of_another_network_end_the_daemon_with_one_clear_line(start: Start, rooms: Rooms) -> None:
    other = rooms.base / "other.pth"
    torch.save({"fc.weight": torch.ones(10, 512)}, other)
    rooms.drop("a.jpg", face_bytes(1))
    daemon = start("--weights", str(other), "--log-level", "error")
    assert daemon.wait_end() == 78
    (line,) = daemon.log.splitlines()
    assert " ERROR " in line
    assert str(other) in line
    assert "not BiSeNet face-parsing weights" in line
    assert "; give a face-parsing BiSeNet" in line
    assert rooms.pictures("inbox") == ["a.jpg"]
    assert daemon.health()["reason"] == "can't run as configured"
