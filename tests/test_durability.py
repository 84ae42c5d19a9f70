"""What is synced, and when, as docs/guarantees.md has it in a table: seen in real programs' calls."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import disk_record
from disk_record import Call
from drawing import face_bytes
from maskdrop.beneath import open_folder
from maskdrop.claim import CLAIMED
from running import EXECUTED, QUICK, Daemon, Rooms, maskdrop

Start = Callable[..., Daemon]


class Record:
    """Calls in their order, looked for from a place on."""

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls

    def moved(self, target: Path, source: Path | None = None) -> int:
        """Where something got this name at last, from this one if it is said."""
        wanted = [
            at
            for at, call in enumerate(self.calls)
            if (call.what, call.target) == ("move", str(target)) and source in (None, Path(call.path))
        ]
        assert wanted, f"nothing was moved to {target}"
        return wanted[-1]

    def first(self, what: str, path: Path, since: int = 0) -> int:
        """Where a call comes for the first time from a place on."""
        found = (at for at, call in enumerate(self.calls) if (call.what, call.path) == (what, str(path)))
        place = next((at for at in found if at >= since), None)
        assert place is not None, f"no {what} of {path} after call {since}"
        return place

    def check_whole_before_its_name(self, file: Path) -> int:
        """That a file was synced at its full size before it got its name; where it got it."""
        named = self.moved(file)
        temporary = Path(self.calls[named].path)
        assert temporary.parent == file.parent
        synced = self.first("sync", temporary)
        assert synced < named
        assert self.calls[synced].size == file.stat().st_size > 0
        return named

    def check_made_durably(self, top: Path, folder: Path, before: int) -> None:
        """That the folders on the way are synced in their parents, each after it was made."""
        while folder != top:
            assert self.first("sync", folder.parent, self.first("make", folder)) < before
            folder = folder.parent


@pytest.fixture
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recording")


def test_everything_is_on_disk_before_the_next_step(start: Start, rooms: Rooms, recording: Path) -> None:
    environment = {**EXECUTED, **disk_record.environment(recording)}
    daemon = start(settings=QUICK + "[save]\noutputs = ['face', 'labels']\n", env=environment).wait_ready()
    rooms.drop("sub/deep/a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    rooms.drop("bad/b.jpg", b"no picture")
    daemon.wait_count("quarantined", 1)
    assert daemon.stop() == 0
    record = Record(disk_record.recorded(recording))

    inbox, outbox = rooms.inbox / "sub" / "deep", rooms.outbox / "sub" / "deep"
    archive, claimed = rooms.archive / "sub" / "deep", rooms.inbox / CLAIMED / "sub" / "deep"
    named = [record.check_whole_before_its_name(outbox / name) for name in ("a.jpg", "a.labels.png")]
    published = record.first("sync", outbox, max(named))
    record.check_made_durably(rooms.outbox, outbox, published)
    taken = record.moved(claimed / "a.jpg", inbox / "a.jpg")
    archived = record.moved(archive / "a.jpg", claimed / "a.jpg")
    assert published < taken < archived
    record.check_made_durably(rooms.archive, archive, archived)
    assert record.first("sync", archive, archived) < record.first("sync", claimed, archived)
    record.first("sync", inbox, archived)

    quarantine, claimed = rooms.quarantine / "bad", rooms.inbox / CLAIMED / "bad"
    reason = record.check_whole_before_its_name(quarantine / "b.jpg.reason.json")
    moved = record.moved(quarantine / "b.jpg", claimed / "b.jpg")
    assert reason < moved
    record.check_made_durably(rooms.quarantine, quarantine, moved)
    assert record.first("sync", quarantine, moved) < record.first("sync", claimed, moved)
    record.first("sync", rooms.inbox / "bad", moved)


def test_a_reason_goes_only_when_its_picture_is_in_the_inbox_on_disk(rooms: Rooms, recording: Path) -> None:
    (rooms.quarantine / "sub").mkdir()
    picture, reason = (rooms.quarantine / "sub" / name for name in ("a.jpg", "a.jpg.reason.json"))
    picture.write_bytes(b"picture")
    reason.write_text('{"error": "Error"}')
    environment = {**EXECUTED, **disk_record.environment(recording)}
    done = maskdrop(["replay", "--inbox", str(rooms.inbox), "--all"], env=environment)
    assert done.returncode == 0, done.stderr
    record = Record(disk_record.recorded(recording))
    back = record.moved(rooms.inbox / "sub" / "a.jpg")
    synced = record.first("sync", rooms.inbox / "sub", back)
    aside = Path(next(call.target for call in record.calls if call.path == str(reason)))
    removed = record.first("remove", aside)
    assert synced < removed < record.first("sync", rooms.quarantine / "sub", removed)
    assert not reason.exists()


def test_a_copy_in_quarantine_is_whole_before_its_name(
    rooms: Rooms, recording: Path, tiny_weights: Path
) -> None:
    (rooms.inbox / "a.jpg").write_bytes(b"no picture")
    environment = {**EXECUTED, **disk_record.environment(recording)}
    (rooms.base / "maskdrop.toml").write_text(QUICK)
    words = ["batch", str(rooms.inbox), str(rooms.outbox), "--quarantine", str(rooms.quarantine)]
    words += ["--config", str(rooms.base / "maskdrop.toml"), "--weights", str(tiny_weights)]
    assert maskdrop(words, env=environment).returncode == 1
    record = Record(disk_record.recorded(recording))
    reason = record.check_whole_before_its_name(rooms.quarantine / "a.jpg.reason.json")
    copied = record.check_whole_before_its_name(rooms.quarantine / "a.jpg")
    assert reason < copied < record.first("sync", rooms.quarantine, copied)


def test_a_folder_that_another_worker_made_just_then_is_synced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, synced = os.mkdir, list[Path]()

    def too_late(name: str, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        raise FileExistsError(errno.EEXIST, name)

    monkeypatch.setattr(os, "mkdir", too_late)
    monkeypatch.setattr(os, "fsync", lambda folder: synced.append(Path(f"/proc/self/fd/{folder}").readlink()))
    with open_folder(tmp_path, "sub", 0o755):
        assert synced == [tmp_path]
