"""Broken files: every kind lands in quarantine, with its reason; nothing else is touched."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from broken_files import broken_files
from drawing import draw_face, encode, face_bytes
from maskdrop import claim as claim_module
from maskdrop import quarantine as quarantine_module
from maskdrop.claim import check_mobility
from maskdrop.config import FolderSettings
from maskdrop.durable import write_synced
from maskdrop.folders import Folders
from maskdrop.leave_alone import OriginalStuck
from maskdrop.quarantine import LARGEST_COPY, quarantine, quarantine_copy
from maskdrop.ticket import Fault, Identity, Stage, Ticket
from running import EXECUTED, QUICK, Daemon, Rooms, maskdrop
from waiting import wait_for

sys.path.append("bench")

from slow_disk import environment

Start = Callable[..., Daemon]


def test_twenty_kinds_of_broken_file_and_good_ones_between(start: Start, rooms: Rooms) -> None:
    broken = broken_files()
    assert len(broken) >= 20
    for index, (name, content) in enumerate(broken.items()):
        rooms.drop(name, content)
        rooms.drop(f"good-{index}.jpg", face_bytes(index))
    daemon = start().wait_ready()
    daemon.wait_count("quarantined", len(broken))
    daemon.wait_count("saved", len(broken))
    assert rooms.pictures("quarantine") == sorted(broken)
    assert rooms.pictures("archive") == sorted(f"good-{i}.jpg" for i in range(len(broken)))
    assert rooms.pictures("inbox") == []
    for name, content in broken.items():
        assert (rooms.quarantine / name).read_bytes() == content
        reason = json.loads((rooms.quarantine / f"{name}.reason.json").read_text())
        assert reason["picture"] == name
        assert reason["stage"] == "preprocess"
        assert reason["error"]
        assert reason["message"]
        assert reason["size"] == len(content)
        assert reason["attempts"] == 0
        datetime.fromisoformat(reason["time"])
        assert f"quarantined {name} -> {name}: preprocess: {reason['error']}" in daemon.log
    reasons = {
        name: json.loads((rooms.quarantine / f"{name}.reason.json").read_text())["error"] for name in broken
    }
    assert reasons["empty.jpg"] == "EmptyFile"
    assert reasons["png-bomb.png"] == "TooManyPixels"
    assert reasons["text.jpg"] == "UnidentifiedImageError"
    assert all(worker["restarts"] == 0 for worker in daemon.health()["workers"])


def test_limits_formats_names_and_sub_folders(start: Start, rooms: Rooms) -> None:
    settings = QUICK + "[decode]\nmax_pixels = 10000\nmax_bytes = 20000\nformats = ['jpeg']\n"
    rooms.drop("fits.jpg", encode(draw_face(1, 100, 100)))
    rooms.drop("large.jpg", encode(draw_face(1, 101, 100)))
    rooms.drop("heavy.jpg", b"x" * 20_001)
    rooms.drop("a/b/other.png", face_bytes(2, "PNG", 20, 20))
    long_name = "n" * 250 + ".txt"
    rooms.drop(long_name, b"text")
    rooms.quarantine.joinpath("large.jpg").write_bytes(b"an older one")
    daemon = start(settings=settings).wait_ready()
    daemon.wait_count("quarantined", 4)
    daemon.wait_count("saved", 1)

    def error(name: str) -> str:
        return str(json.loads((rooms.quarantine / f"{name}.reason.json").read_text())["error"])

    assert error("large~2.jpg") == "TooManyPixels"
    assert rooms.quarantine.joinpath("large.jpg").read_bytes() == b"an older one"
    assert error("heavy.jpg") == "TooManyBytes"
    assert error("a/b/other.png") == "UnidentifiedImageError"
    (cut,) = [name for name in rooms.pictures("quarantine") if name.startswith("nnn")]
    assert json.loads((rooms.quarantine / f"{cut}.reason.json").read_text())["picture"] == long_name


def test_a_file_without_read_permission_is_left_and_tried_again(start: Start, rooms: Rooms) -> None:
    prefix: list[str] = []
    if os.geteuid() == 0:  # root reads everything, unless that capability is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("running as root without setpriv(1)")
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]
        if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
            pytest.skip("capabilities can't be taken away here")
    path = rooms.drop("secret.jpg", face_bytes(1))
    path.chmod(0)
    daemon = start(prefix=prefix).wait_ready()
    wait_for(lambda: "left secret.jpg: Permission denied" in daemon.log, "the report")
    rooms.drop("other.jpg", face_bytes(2))
    daemon.wait_count("saved", 1)
    assert rooms.pictures("inbox") == ["secret.jpg"]
    wait_for(lambda: daemon.log.count("left secret.jpg: Permission denied") >= 2, "another try at a rescan")
    path.chmod(0o644)
    daemon.wait_count("saved", 2)
    assert rooms.pictures("archive") == ["other.jpg", "secret.jpg"]


def test_a_file_without_read_permission_waits_for_a_rescan(start: Start, rooms: Rooms) -> None:
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("capabilities can't be taken away here")
    settings = QUICK.replace("rescan_s = 2", "rescan_s = 86400") + "[metrics]\nfile = 'metrics.prom'\n"
    rooms.drop("secret.jpg", face_bytes(1)).chmod(0)
    daemon = start(settings=settings, prefix=prefix, cwd=rooms.base).wait_ready()
    daemon.wait_count("left", 1)
    rooms.drop("other.jpg", face_bytes(2))
    daemon.wait_count("saved", 1)
    daemon.wait_files(10)
    assert daemon.log.count("left secret.jpg: ") == daemon.health()["counts"]["left"] == 1
    assert daemon.stop() == 0
    told = (rooms.base / "metrics.prom").read_text()
    assert re.search(r'^maskdrop_pictures_left_total\{absence="unreadable".*\} 1\.0$', told, re.MULTILINE)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_name_that_another_worker_takes_meanwhile_is_left_to_it(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch, keeps: bool
) -> None:
    """While this one writes its reason, another one has put the reason of its own picture there."""
    settings = FolderSettings(inbox=rooms.inbox, outbox=rooms.outbox)
    folders = Folders(rooms.inbox, rooms.outbox, rooms.quarantine, rooms.archive, keeps=keeps)
    picture = rooms.drop("a.jpg", b"broken")
    others = rooms.quarantine / "a.jpg.reason.json"
    rooms.quarantine.mkdir(exist_ok=True)

    def write_late(folder: int, name: str, content: bytes, mode: int) -> None:
        write_synced(folder, name, content, mode)
        if b"no picture" in content and not others.exists():
            others.write_text("another one's")

    monkeypatch.setattr(quarantine_module, "write_synced", write_late)
    ticket = Ticket(1, "a.jpg", Identity.of(picture.stat()))
    put = quarantine_copy if keeps else quarantine
    name = put(folders, ticket, Fault(Stage.PREPROCESS, "Error", "no picture"), 0, settings)
    assert name == "a~2.jpg"
    assert others.read_text() == "another one's"
    assert sorted(path.name for path in rooms.quarantine.iterdir()) == [
        "a.jpg.reason.json",
        "a~2.jpg",
        "a~2.jpg.reason.json",
    ]
    assert picture.exists() is keeps


def test_a_large_copy_gives_signs_of_life_and_is_whole(rooms: Rooms) -> None:
    settings = FolderSettings(inbox=rooms.inbox, outbox=rooms.outbox)
    folders = Folders(rooms.inbox, rooms.outbox, rooms.quarantine, None, keeps=True)
    content = os.urandom(2**20) * 40
    ticket = Ticket(1, "film.jpg", Identity.of(rooms.drop("film.jpg", content).stat()))
    fault, signs = Fault(Stage.PREPROCESS, "TooManyBytes", "no picture"), Counter[str]()
    name = quarantine_copy(folders, ticket, fault, 0, settings, goes_on=lambda: signs.update(["sign"]))
    assert (rooms.quarantine / name).read_bytes() == content
    assert signs["sign"] == 2  # between three parts of 16 MiB


def test_a_batch_ends_where_a_copy_takes_longer_than_a_worker_may_be_silent(
    tmp_path: Path, tiny_weights: Path
) -> None:
    pictures, config = tmp_path / "in", tmp_path / "maskdrop.toml"
    pictures.mkdir()
    with_slow_reads = environment(tmp_path, read_ms=600, below=pictures)
    (pictures / "film.jpg").write_bytes(b"no picture" * 8 * 2**20)
    silent = QUICK.replace("[workers]", "[workers]\nstage_timeout_s = 2")
    config.write_text(silent + "[decode]\nmax_bytes = 1_000_000\n")
    words = ["batch", str(pictures), str(tmp_path / "out"), "--quarantine", str(tmp_path / "quarantine")]
    words += ["--config", str(config), "--weights", str(tiny_weights)]
    done = maskdrop(words, env={**EXECUTED, **with_slow_reads})
    assert done.returncode == 1, done.stderr
    assert "was hung and killed" not in done.stderr
    assert (tmp_path / "quarantine" / "film.jpg").stat().st_size == 80 * 2**20


def test_what_is_in_a_sticky_folder_of_others_is_left_before_there_is_work_in_it(
    start: Start, rooms: Rooms
) -> None:
    prefix = ["setpriv", "--bounding-set=-fowner", "--inh-caps=-all"]
    if os.geteuid() != 0 or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("a folder of others' is made by root")
    rooms.inbox.chmod(0o1777)
    os.chown(rooms.inbox, 12345, -1)
    os.chown(rooms.drop("theirs.jpg", face_bytes(1)), 23456, -1)
    rooms.drop("ours.jpg", face_bytes(2))
    daemon = start(settings=QUICK, prefix=prefix).wait_ready()
    daemon.wait_log("left theirs.jpg: Operation not permitted when it was to be moved")
    daemon.wait_count("saved", 1)
    assert rooms.pictures("outbox") == ["ours.jpg"]
    os.chown(rooms.inbox / "theirs.jpg", os.geteuid(), -1)
    (rooms.inbox / "theirs.jpg").touch()
    daemon.wait_count("saved", 2)
    assert daemon.stop() == 0


def test_of_a_very_large_picture_the_reason_alone_is_copied(rooms: Rooms) -> None:
    settings = FolderSettings(inbox=rooms.inbox, outbox=rooms.outbox)
    folders = Folders(rooms.inbox, rooms.outbox, rooms.quarantine, None, keeps=True)
    picture = rooms.inbox / "film.mp4"
    picture.touch()
    os.truncate(picture, LARGEST_COPY + 1)  # which takes no room on the disk
    rooms.quarantine.mkdir(exist_ok=True)
    ticket = Ticket(1, "film.mp4", Identity.of(picture.stat()))
    fault = Fault(Stage.PREPROCESS, "TooManyBytes", "no picture")
    assert [quarantine_copy(folders, ticket, fault, 0, settings) for _ in range(2)] == ["", ""]
    assert [path.name for path in rooms.quarantine.iterdir()] == ["film.mp4.reason.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="files can't be given to others")
def test_what_is_in_a_sticky_folder_of_ours_may_go(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_module, "may_move_what_is_others", lambda: False)
    rooms.inbox.chmod(0o1777)
    os.chown(rooms.drop("theirs.jpg", b"picture"), 23456, -1)
    check_mobility(rooms.inbox, "theirs.jpg")
    os.chown(rooms.inbox, 12345, -1)
    with pytest.raises(OriginalStuck):
        check_mobility(rooms.inbox, "theirs.jpg")
