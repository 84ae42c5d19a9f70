"""What an intake gives, and in which order, where pictures can't be moved or workers have died."""

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskdrop.claim import CLAIMED
from maskdrop.config import WatchSettings
from maskdrop.inbox.intake import Intake
from maskdrop.inbox.lock import InboxLock
from maskdrop.inbox.supply import Candidate
from waiting import PATIENCE_S, wait_for

NEVER_S = 86_400


@contextmanager
def at_work(inbox: Path, rescan_s: float) -> Iterator[tuple[Intake, threading.Event]]:
    """An intake that has begun, and what it rings."""
    rung, lock = threading.Event(), InboxLock.take(inbox)
    intake = Intake(inbox, WatchSettings(settle_ms=0, rescan_s=rescan_s), lock, rung.set)
    intake.start()
    yield intake, rung
    intake.stop()
    lock.release()


def taken(intake: Intake, rung: threading.Event) -> Candidate:
    """The next file that it gives."""
    while True:
        rung.clear()
        intake.advance(time.monotonic())
        if (candidate := intake.take()) is not None:
            return candidate
        assert intake.wait(time.monotonic()) == 0 or rung.wait(PATIENCE_S)


def put(path: Path, second: int = 0) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"a picture")
    os.utime(path, (second, second))


def test_pictures_that_cant_be_moved_dont_keep_others_from_their_turn(tmp_path: Path) -> None:
    """They are the oldest, and to find out of all of them takes longer than from one rescan to the next."""
    for number in range(40):
        put(tmp_path / f"stuck-{number}.jpg", number)
    put(tmp_path / "new.jpg", 1000)
    tries: Counter[str] = Counter()
    with at_work(tmp_path, 0.1) as (intake, _):

        def comes_to_the_new_one() -> bool:
            intake.advance(time.monotonic())
            candidate = intake.take()
            if candidate is None or candidate.path == "new.jpg":
                return candidate is not None
            tries[candidate.path] += 1
            time.sleep(0.01)  # this is what it takes
            intake.set_aside(candidate.path, candidate.identity)
            return False

        wait_for(comes_to_the_new_one, "the new one's turn")
    assert len(tries) == 40


def test_a_new_folder_is_looked_through_and_what_was_set_aside_is_not_tried_for_that(tmp_path: Path) -> None:
    inbox, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    inbox.mkdir()
    put(inbox / "stuck.jpg", 1)
    put(elsewhere / "a.jpg", 1000)
    with at_work(inbox, NEVER_S) as (intake, rung):
        stuck = taken(intake, rung)
        intake.set_aside(stuck.path, stuck.identity)
        elsewhere.rename(inbox / "new")
        assert taken(intake, rung).path == "new/a.jpg"
        assert intake.take() is None
        put(inbox / "stuck.jpg", 2)
        assert taken(intake, rung).path == "stuck.jpg"


def test_what_a_worker_that_died_had_claimed_is_seen_again_at_a_rescan_and_at_the_end(tmp_path: Path) -> None:
    inbox, claimed = tmp_path / "inbox", tmp_path / "elsewhere"
    inbox.mkdir()
    put(claimed / "b.jpg")
    put(claimed / "job" / "a.jpg")
    with at_work(inbox, 0.1) as (intake, _):

        def given() -> Candidate | None:
            intake.advance(time.monotonic())
            return intake.take()

        assert given() is None
        claimed.rename(inbox / CLAIMED)
        both = wait_for(given, "one"), wait_for(given, "the other")
        assert sorted(one.path for one in both if one is not None) == ["b.jpg", "job/a.jpg"]
        assert not (inbox / CLAIMED / "job").exists()
        put(inbox / CLAIMED / "c.jpg")
        intake.advance(time.monotonic() + 1)  # two are at work: what is there may be their savers'
        assert (inbox / CLAIMED / "c.jpg").exists()
        intake.leave()
        assert (inbox / "c.jpg").exists()


def test_a_picture_that_was_taken_for_another_is_not_tried_at_once_again(tmp_path: Path) -> None:
    """Where a file system gives it another number each time, that would go on for ever."""
    put(tmp_path / "odd.jpg", 1)
    put(tmp_path / "new.jpg", 1000)
    with at_work(tmp_path, NEVER_S) as (intake, rung):
        odd = taken(intake, rung)
        intake.release(odd.path, odd.identity)
        assert taken(intake, rung).path == "new.jpg"
        assert intake.take() is None
        put(tmp_path / "odd.jpg", 2)
        assert taken(intake, rung).path == "odd.jpg"


def test_what_is_gone_is_not_counted_after_a_rescan(tmp_path: Path) -> None:
    """While nothing is taken, for want of room on a disk, say: folders may be renamed and removed."""
    with at_work(tmp_path, 0.1) as (intake, _):

        def counted(count: int) -> bool:
            intake.advance(time.monotonic())
            return intake.backlog == count

        for number in range(3):
            put(tmp_path / "sub" / f"{number}.jpg")
        wait_for(lambda: counted(3), "all in the backlog")
        (tmp_path / "sub").rename(tmp_path / "other")
        put(tmp_path / "new.jpg")
        wait_for(lambda: counted(4), "each once")
        shutil.rmtree(tmp_path / "other")
        wait_for(lambda: counted(1), "the only one that is there")
        candidate = intake.take()
        assert candidate is not None
        assert candidate.path == "new.jpg"
