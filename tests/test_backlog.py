"""Many files at start: the oldest first, and what is known of them bounded."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskdrop.inbox.intake
from audited import audited
from drawing import face_bytes
from maskdrop.config import WatchSettings
from maskdrop.inbox.intake import MOST_KNOWN, Intake
from maskdrop.inbox.lock import InboxLock
from maskdrop.inbox.oldest import Oldest
from maskdrop.inbox.scan import Oddity, Seen, Unread, scan
from maskdrop.ticket import Identity
from running import QUICK, Daemon, Rooms
from waiting import PATIENCE_S, wait_for

Start = Callable[..., Daemon]

COUNT = 5_000
YEAR_2020_S = 1_577_836_800


def fill(inbox: Path, count: int, content: bytes, seed: int) -> list[str]:
    """Make files in sub-folders whose mtimes have nothing to do with their names; the names, oldest first."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    for folder in range(10):
        (inbox / f"{folder}").mkdir()
    names = [f"{number % 10}/{number:06}.jpg" for number in order]
    for age, name in enumerate(names):
        path = inbox / name
        path.write_bytes(content)
        os.utime(path, (YEAR_2020_S + age, YEAR_2020_S + age))
    return names


def test_the_oldest_of_5000_go_first(start: Start, rooms: Rooms) -> None:
    names = fill(rooms.inbox, COUNT, face_bytes(1, width=32, height=32), seed=1)
    daemon = start(settings=QUICK).wait_ready()
    daemon.wait_count("saved", 60)
    in_flight = daemon.health()["queues"]["free_slots"] + daemon.health()["in_flight"]
    assert daemon.health()["backlog"] > COUNT / 2
    assert daemon.stop() == 0
    done = rooms.pictures("archive")
    assert len(done) >= 60
    assert set(done) <= set(names[: len(done) + in_flight])
    assert sorted([*done, *rooms.pictures("inbox")]) == sorted(names)


def test_an_intake_gives_everything_in_order_and_knows_few_at_a_time(tmp_path: Path) -> None:
    """Three times as many as are known at once."""
    count = 3 * MOST_KNOWN
    names = fill(tmp_path, count, b"", seed=2)
    rung = threading.Event()
    lock = InboxLock.take(tmp_path)
    intake = Intake(tmp_path, WatchSettings(settle_ms=0, rescan_s=86_400), lock, rung.set)
    intake.start()
    taken: list[str] = []
    now = 0.0
    while intake._pass is not None:
        now += 0.01
        intake.advance(now)
    assert intake.backlog == count
    while len(taken) < count:
        now += 0.01
        intake.advance(now)
        assert intake._known <= 2 * MOST_KNOWN
        while (candidate := intake.take()) is not None:
            taken.append(candidate.path)
            (tmp_path / candidate.path).unlink()
            intake.release(candidate.path, candidate.identity)
    assert taken == names
    (tmp_path / "last.jpg").write_bytes(b"")
    while (candidate := intake.take()) is None:
        assert rung.wait(30)
        now += 0.01
        intake.advance(now)
    assert candidate.path == "last.jpg"
    intake.stop()
    lock.release()


def test_what_comes_under_the_name_of_a_picture_in_flight_is_given_next(tmp_path: Path) -> None:
    """By its event, without a rescan; where nothing came, nothing is looked for."""
    rung = threading.Event()
    lock = InboxLock.take(tmp_path)
    intake = Intake(tmp_path, WatchSettings(settle_ms=0, rescan_s=86_400), lock, rung.set)
    intake.start()

    def taken() -> str:
        while True:
            rung.clear()
            intake.advance(time.monotonic())
            if (candidate := intake.take()) is not None:
                return candidate.path
            assert intake.wait(time.monotonic()) == 0 or rung.wait(PATIENCE_S)

    for content in (b"first", b"second"):
        (tmp_path / "a.jpg").write_bytes(content)
        assert taken() == "a.jpg"
        (tmp_path / "a.jpg").unlink()
        (tmp_path / "b.jpg").write_bytes(content)
        assert taken() == "b.jpg"
        (tmp_path / "b.jpg").unlink()
        (tmp_path / "new").write_bytes(b"another")
        (tmp_path / "new").rename(tmp_path / "a.jpg")
        (tmp_path / "c.jpg").write_bytes(content)
        assert taken() == "c.jpg"  # so all that came before it was told of
        (tmp_path / "c.jpg").unlink()
        intake.forget("b.jpg")
        intake.forget("c.jpg")
        intake.advance(time.monotonic())
        assert intake.take() is None
        intake.forget("a.jpg")
        assert taken() == "a.jpg"
        (tmp_path / "a.jpg").unlink()
        intake.forget("a.jpg")
    intake.stop()
    lock.release()


def test_a_file_that_is_touched_again_and_again_is_given_once_as_it_is_then(tmp_path: Path) -> None:
    """While nothing is taken, for want of room on a disk, say."""
    rung, path = threading.Event(), tmp_path / "a.jpg"
    lock = InboxLock.take(tmp_path)
    intake = Intake(tmp_path, WatchSettings(settle_ms=0, rescan_s=86_400), lock, rung.set)
    intake.start()

    def has_settled() -> bool:
        intake.advance(time.monotonic())
        return bool(intake._settled)

    for age in range(40):
        rung.clear()
        path.write_bytes(bytes(age))
        os.utime(path, (YEAR_2020_S + age, YEAR_2020_S + age))
        assert rung.wait(PATIENCE_S)
        wait_for(has_settled, "a settled file")
    candidate = wait_for(lambda: intake.take() if has_settled() else None, "the file")
    assert candidate is not None
    assert candidate.identity == Identity.of(path.stat())
    assert intake.take() is None
    intake.stop()
    lock.release()


def test_what_takes_a_settled_files_place_is_not_opened(tmp_path: Path) -> None:
    """A pipe, which a lease would have to be asked for by opening it; a file is opened."""
    lock = InboxLock.take(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"picture")
    intake = Intake(tmp_path, WatchSettings(settle_ms=0, rescan_s=86_400), lock, lambda: None)
    intake.start()
    intake.advance(time.monotonic())
    assert intake.backlog == 2
    (tmp_path / "a.jpg").unlink()
    os.mkfifo(tmp_path / "a.jpg")
    with audited("open") as opened:
        candidate = intake.take()
    names = {name for name in opened if name in ("a.jpg", "b.jpg")}
    assert (candidate and candidate.path, names) == ("b.jpg", {"b.jpg"})
    assert intake.take() is None
    intake.stop()
    lock.release()


def test_files_of_one_time_are_gone_through_no_more_often_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive is unpacked while the daemon runs: three times as many as are known at once."""
    known, passes = 1024, list[Path]()
    monkeypatch.setattr(maskdrop.inbox.intake, "MOST_KNOWN", known)
    count = 3 * known

    def counted(inbox: Path, recursive: bool, unread: Unread) -> Iterator[Seen | Oddity]:
        passes.append(inbox)
        return scan(inbox, recursive, unread=unread)

    monkeypatch.setattr(maskdrop.inbox.intake, "scan", counted)
    lock = InboxLock.take(tmp_path)
    intake = Intake(tmp_path, WatchSettings(settle_ms=0, rescan_s=86_400), lock, lambda: None)
    intake.start()
    intake.advance(0.0)
    for number in range(count):
        (tmp_path / f"{number}.jpg").touch()
        os.utime(tmp_path / f"{number}.jpg", (YEAR_2020_S, YEAR_2020_S))
    taken: list[str] = []
    now = 0.0
    while len(taken) < count:
        now += 0.01
        intake.advance(now)
        candidate = intake.take()
        if candidate is not None:
            taken.append(candidate.path)
            (tmp_path / candidate.path).unlink()
            intake.release(candidate.path, candidate.identity)
    intake.stop()
    lock.release()
    assert len(set(taken)) == count
    assert len(passes) < count / 100  # a pass finds so many as are known, and some are begun while they come


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 10))
def test_the_oldest_of_a_stream(times: list[int], limit: int) -> None:
    oldest = Oldest(limit)
    for number, mtime in enumerate(times):
        oldest.offer(Seen(str(number), Identity(1, number, 1, mtime)))
    kept = [seen.identity.age for seen in oldest.files()]
    assert kept == sorted((mtime, number) for number, mtime in enumerate(times))[:limit]
    assert oldest.beyond == max(0, len(times) - limit)
    assert oldest.cut == (kept[-1] if len(times) > limit else None)
