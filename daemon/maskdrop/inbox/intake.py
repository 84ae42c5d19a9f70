"""The inbox as the supervisor sees it: settled files to take, oldest first."""

import heapq
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from maskdrop.claim import put_all_back
from maskdrop.config import WatchSettings
from maskdrop.inbox.scan import Oddity, Seen, is_candidate, look, scan
from maskdrop.inbox.settle import SettleTracker, Watched
from maskdrop.inbox.watch import Change, Watch
from maskdrop.inbox.writers import Writers, writers_of
from maskdrop.names import printable
from maskdrop.ticket import Identity

logger = logging.getLogger("maskdrop")

SCAN_STEP = 2_000
"""Files looked at between two looks at everything else."""

WRITER_LOST_S = 60.0
"""After so long without a change a file counts as closed though no event said so, where the
kernel can't be asked: the event may have been lost."""


@dataclass(frozen=True)
class Candidate:
    """A settled file: its path relative to the inbox, its state, how long it took to settle."""

    path: str
    identity: Identity
    settle_ms: float


class Intake:
    """Owner of what is known of the inbox: files settling, files ready, files taken.

    All of it can be lost: a scan finds it again.
    """

    def __init__(self, inbox: Path, settings: WatchSettings, wake: Callable[[], None]) -> None:
        self._inbox = inbox
        self._settings = settings
        self._tracker = SettleTracker(settings.settle_ms / 1000)
        self._watch = Watch(inbox, settings.polling, settings.recursive, min(settings.rescan_s, 1.0), wake)
        self._ready: list[tuple[int, str, Candidate]] = []
        self._ready_paths: set[str] = set()
        self._taken: set[str] = set()
        self._set_aside: set[str] = set()
        self._oddities: set[str] = set()
        self._scan: Iterator[Seen | Oddity] | None = None
        self._next_scan = 0.0
        self.trouble: str | None = None

    @property
    def backlog(self) -> int:
        """Files in the inbox that are known and not taken."""
        return len(self._tracker) + len(self._ready)

    def start(self) -> None:
        """Put back what a daemon that died had claimed; watch, then scan, so that nothing can
        arrive unseen in between."""
        put_all_back(self._inbox)
        self._begin_scan(time.monotonic())

    def stop(self) -> None:
        """Take nothing more."""
        self._watch.stop()
        self._scan = None

    def advance(self, now: float) -> None:
        """Take in events, go on with a scan, move settled files to the ready ones."""
        events, overflowed = self._watch.take()
        for event in events:
            if event.is_folder:
                if is_candidate(event.path, self._settings.recursive):
                    self._next_scan = now
            elif is_candidate(event.path, self._settings.recursive):
                self._see(look(self._inbox, event.path), now, _writing(event.change))
        if overflowed:
            logger.warning("too many file events at once; scanning the inbox")
            self._next_scan = now
        if self._scan is None and now >= self._next_scan:
            self._begin_scan(now)
        if self._scan is not None:
            self._continue_scan(now)
        for watched in self._tracker.settled(now, SCAN_STEP):
            self._settle(watched, now)

    def wait(self, now: float) -> float:
        """Seconds until there is something to advance, if no event comes."""
        if self._scan is not None:
            return 0.0
        settles = self._tracker.next_at()
        due = self._next_scan if settles is None else min(self._next_scan, settles)
        return max(0.0, due - now)

    def take(self) -> Candidate | None:
        """The oldest settled file, or None. It won't be given again until it is released."""
        while self._ready:
            _, path, candidate = heapq.heappop(self._ready)
            self._ready_paths.discard(path)
            seen = look(self._inbox, path)
            if isinstance(seen, Seen) and seen.identity == candidate.identity:
                self._taken.add(path)
                return candidate
            self._see(seen, time.monotonic(), None)
        return None

    def release(self, path: str) -> None:
        """Forget a file that was taken. If one of that name is in the inbox, it is looked at anew."""
        self._taken.discard(path)
        self._see(look(self._inbox, path), time.monotonic(), None)

    def set_aside(self, path: str) -> None:
        """Leave a file that was taken alone until the next rescan."""
        self._taken.discard(path)
        self._set_aside.add(path)

    def _begin_scan(self, now: float) -> None:
        self._set_aside.clear()
        self._oddities = {path for path in self._oddities if isinstance(look(self._inbox, path), Oddity)}
        self._next_scan = now + self._settings.rescan_s
        if not self._watch.is_alive:
            self._watch.stop()
            try:
                self._watch.start()
            except OSError as error:
                self._note_trouble(f"the inbox {printable(self._inbox)} can't be watched: {error.strerror}")
        self._scan = scan(self._inbox, self._settings.recursive)

    def _continue_scan(self, now: float) -> None:
        assert self._scan is not None
        try:
            count = 0
            for seen in islice(self._scan, SCAN_STEP):
                count += 1
                self._see(seen, now, None)
        except OSError as error:
            self._note_trouble(f"the inbox {printable(self._inbox)} can't be read: {error.strerror}")
            self._scan = None
            return
        if count < SCAN_STEP:
            self._scan = None
            if self.trouble is not None and self._watch.is_alive:
                logger.info("the inbox can be read again")
                self.trouble = None

    def _note_trouble(self, trouble: str) -> None:
        if trouble != self.trouble:
            logger.error("%s; looking again at each rescan", trouble)
        self.trouble = trouble

    def _see(self, seen: Seen | Oddity | None, now: float, writing: bool | None) -> None:
        if seen is None:
            return
        if isinstance(seen, Oddity):
            self._tracker.forget(seen.path)
            if seen.path not in self._oddities:
                self._oddities.add(seen.path)
                logger.warning("left alone %s: a %s, not a file", printable(seen.path), seen.kind)
            return
        if seen.path in self._taken or seen.path in self._ready_paths or seen.path in self._set_aside:
            return
        self._tracker.observe(seen.path, seen.identity, now, writing)

    def _settle(self, watched: Watched, now: float) -> None:
        seen = look(self._inbox, watched.path)
        if not isinstance(seen, Seen):
            self._tracker.forget(watched.path)
            self._see(seen, now, None)
        elif seen.identity != watched.identity:
            self._tracker.observe(watched.path, seen.identity, now)
        elif not self._is_closed(watched, now):
            self._tracker.postpone(watched.path, now)
        else:
            self._tracker.forget(watched.path)
            candidate = Candidate(watched.path, watched.identity, (now - watched.since) * 1000)
            heapq.heappush(self._ready, (watched.identity.mtime_ns, watched.path, candidate))
            self._ready_paths.add(watched.path)

    def _is_closed(self, watched: Watched, now: float) -> bool:
        match writers_of(self._inbox, watched.path):
            case Writers.NONE:
                return True
            case Writers.SOME:
                return False
            case Writers.UNKNOWN:
                return not watched.writing or now - watched.since >= WRITER_LOST_S


def _writing(change: Change) -> bool:
    return change is Change.WRITING
