"""File systems on which nothing can be linked, or a link is a file of its own: all is done there, too."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

import odd_links
from drawing import face_bytes
from running import EXECUTED, QUICK, Daemon, Rooms, maskdrop

Start = Callable[..., Daemon]


def check_that_all_is_done(daemon: Daemon, rooms: Rooms) -> None:
    """Pictures whose names collide, by inbox and by result, and broken ones."""
    pictures = {"a.jpg": face_bytes(1), "a.jpeg": face_bytes(2), "sub/b.jpg": face_bytes(3)}
    for name, content in pictures.items():
        rooms.drop(name, content)
    for name in ("bad.jpg", "sub/bad.jpg"):
        rooms.drop(name, b"no picture")
    daemon.wait_count("saved", 3)
    daemon.wait_count("quarantined", 2)
    rooms.drop("a.jpg", face_bytes(4))
    rooms.drop("bad.jpg", b"no picture either")
    daemon.wait_count("saved", 4)
    daemon.wait_count("quarantined", 3)
    assert daemon.stop() == 0
    assert daemon.health()["counts"]["left"] == 0
    assert rooms.pictures("inbox") == []
    results = set(rooms.pictures("outbox"))
    marked = {f"a~{hashlib.sha256(face_bytes(number)).hexdigest()[:8]}.jpg" for number in (1, 2, 4)}
    assert results >= {"a.jpg", "sub/b.jpg"}
    assert results <= {"a.jpg", "sub/b.jpg", *marked}
    assert len(results) == 4
    assert all((rooms.outbox / name).stat().st_size for name in results)
    archived = {
        hashlib.sha256((rooms.archive / name).read_bytes()).digest() for name in rooms.pictures("archive")
    }
    assert archived == {hashlib.sha256(face_bytes(number)).digest() for number in (1, 2, 3, 4)}
    broken = rooms.pictures("quarantine")
    assert broken == ["bad.jpg", "bad~2.jpg", "sub/bad.jpg"]
    assert all((rooms.quarantine / f"{name}.reason.json").stat().st_size for name in broken)


@pytest.mark.parametrize("links", ["none", "files"])
def test_without_links_all_is_done_and_put_back(
    start: Start, rooms: Rooms, tmp_path_factory: pytest.TempPathFactory, links: Literal["none", "files"]
) -> None:
    environment = {**EXECUTED, **odd_links.environment(tmp_path_factory.mktemp("library"), links)}
    check_that_all_is_done(start(settings=QUICK, env=environment).wait_ready(), rooms)
    where = ["--inbox", str(rooms.inbox), "--quarantine", str(rooms.quarantine)]
    done = maskdrop(["replay", *where, "--all"], env=environment)
    assert done.returncode == 0, done.stderr
    assert rooms.pictures("inbox") == ["bad.jpg", "bad~2.jpg", "sub/bad.jpg"]
    assert list(rooms.quarantine.rglob("*.json")) == []


def test_where_a_renamed_file_is_another_one_nothing_is_begun(
    start: Start, rooms: Rooms, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = odd_links.environment(tmp_path_factory.mktemp("library"), "renames")
    daemon = start(settings=QUICK, env={**EXECUTED, **environment})
    assert daemon.wait_end() == 78
    assert "can't be told from another one; choose a file system whose inode numbers stay" in daemon.log


@pytest.fixture
def merged(tmp_path: Path) -> Iterator[Path]:
    """A real file system of that kind."""
    if shutil.which("mergerfs") is None:
        pytest.skip("no mergerfs: apt-get install mergerfs")
    branch, folder = tmp_path / "branch", tmp_path / "merged"
    branch.mkdir()
    folder.mkdir()
    done = subprocess.run(["mergerfs", str(branch), str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mergerfs can't mount here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_on_mergerfs_all_is_done(merged: Path, tiny_weights: Path) -> None:
    rooms = Rooms.make(merged)
    daemon = Daemon(rooms, tiny_weights, QUICK, (), {})
    try:
        check_that_all_is_done(daemon.wait_ready(), rooms)
    finally:
        daemon.destroy()
