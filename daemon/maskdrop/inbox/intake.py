"""The inbox as the supervisor sees it: settled files to take, oldest first."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from maskdrop.beneath import open_folder, split
from maskdrop.claim import put_all_back, put_one_back
from maskdrop.config import WatchSettings
from maskdrop.inbox.aside import Aside
from maskdrop.inbox.downloads import Downloads
from maskdrop.inbox.lock import InboxHeld, InboxLock
from maskdrop.inbox.oddities import Oddities
from maskdrop.inbox.oldest import Oldest
from maskdrop.inbox.scan import Oddity, Seen, look, look_at, scan
from maskdrop.inbox.settle import SettleTracker, Watched
from maskdrop.inbox.settled import Settled
from maskdrop.inbox.supply import Candidate
from maskdrop.inbox.watch import Change, Watch
from maskdrop.inbox.writers import Writers, writers_at
from maskdrop.names import printable
from maskdrop.ticket import Identity

logger = logging.getLogger("maskdrop")

SCAN_STEP = 2_000
"""Files that a pass looks at before the supervisor's loop sees to everything else."""

MOST_KNOWN = 4_096
"""Files known at once, about 1 KiB of memory each. If there are more, the oldest are known, and another
pass finds the next ones when half of these are done."""

PATIENCE_S = 5.0
"""Seconds that the first files wait for a pass to end, so that the oldest go first."""

AT_LIMIT = (
    "some sub-folders of the inbox can't be watched: the limit of inotify watches is reached; raise "
    "fs.inotify.max_user_watches, until then a rescan finds what arrives there"
)

WRITER_LOST_S = 60.0
"""Seconds without a change after which a file counts as closed though no event said so, where the kernel
can't be asked: the event may have been lost."""


@dataclass
class _Pass:
    """A look through the whole inbox, some files at a time.

    Attributes:
        missing: paths that were known when it began, and have not been seen since.
    """

    entries: Iterator[Seen | Oddity]
    began: float
    missing: set[str]
    oldest: Oldest = field(default_factory=lambda: Oldest(MOST_KNOWN))


class Intake:
    """Owner of what is known of the inbox: files settling, files ready, files taken.

    All of it can be lost: a pass through the inbox finds it again. A pass with more than
    `MOST_KNOWN` files cuts: every file up to the cut is known, and none beyond it. While the lock
    is lost nothing is known, and so nothing is taken.
    """

    def __init__(
        self, inbox: Path, settings: WatchSettings, lock: InboxLock, wake: Callable[[], None]
    ) -> None:
        self._inbox = inbox
        self._lock = lock
        self._settings = settings
        self._tracker = SettleTracker(settings.settle_ms / 1000)
        self._watch = Watch(inbox, settings.polling, settings.recursive, min(settings.rescan_s, 1.0), wake)
        self._settled = Settled()
        self._taken: dict[str, bool] = {}  # whether something was seen at that path since
        self._aside = Aside(settings.rescan_s)
        self._downloads = Downloads()
        self._oddities = Oddities()
        self._pass: _Pass | None = None
        self._next_scan = 0.0
        self._cut: tuple[int, int] | None = None
        self._beyond = 0
        self._turned_away = self._folder_came = False
        self._is_ours = True
        self.trouble: str | None = None
        self.is_over = False  # something may always come

    @property
    def backlog(self) -> int:
        """Files in the inbox that are not taken: those known, and those a pass counted beyond its cut."""
        return self._known + self._beyond

    @property
    def _known(self) -> int:
        return len(self._tracker) + len(self._settled)

    def start(self) -> None:
        """Watch, then scan, so that nothing can arrive unseen in between."""
        self._begin_rescan(time.monotonic())

    def stop(self) -> None:
        """Take nothing more."""
        self._watch.stop()
        self._pass = None

    def leave(self) -> None:
        """Stop for good, while no worker holds a picture. What a dead worker had claimed is put back."""
        self.stop()
        if self._is_ours:
            put_all_back(self._inbox)

    def advance(self, now: float) -> None:
        """Take in events, go on with a pass, let files settle."""
        events, overflowed = self._watch.take()
        for event in events:
            if not event.is_folder:
                self._see(look(self._inbox, event.path), now, _writing(event.change))
            elif self._settings.recursive and self._is_ours:
                self._folder_came = True
        if overflowed:
            logger.warning("too many file events at once; scanning the inbox")
            self._next_scan = now
        if self._pass is None:
            if now >= self._next_scan:
                self._begin_rescan(now)
            elif self._wants_pass():
                self._begin_pass(now)
        if self._pass is not None:
            self._continue(self._pass, now)
        for watched in self._tracker.settled(now, SCAN_STEP):
            self._tracker.forget(watched.path)
            self._settled.add(watched)

    def _wants_pass(self) -> bool:
        knows_few = self._cut is not None and self._known < MOST_KNOWN // 2
        return self._folder_came or self._turned_away or knows_few

    def wait(self, now: float) -> float:
        """Seconds until there is something to advance, if no event comes."""
        if self._pass is not None or self._folder_came:
            return 0.0
        settles = self._tracker.next_at()
        due = self._next_scan if settles is None else min(self._next_scan, settles)
        return max(0.0, due - now)

    def take(self) -> Candidate | None:
        """The oldest settled file that is unchanged and that nobody is writing; None: there is none. It won't
        be given again until it is released or forgotten."""
        while (watched := self._settled.pop()) is not None:
            now = time.monotonic()
            seen, writers = self._ask(watched)
            if not isinstance(seen, Seen) or seen.identity != watched.identity:
                self._see(seen, now, None)
            elif not _is_closed(watched, writers, now):
                self._tracker.postpone(watched, now)
            else:
                self._taken[watched.path] = False
                return Candidate(watched.path, watched.identity, (now - watched.since) * 1000)
        return None

    def forget(self, path: str) -> None:
        """A file that was taken has left the inbox. Look for another one of its name, but only if something
        was seen there meanwhile."""
        if self._taken.pop(path, True):
            self._see(look(self._inbox, path), time.monotonic(), None)

    def release(self, path: str, identity: Identity) -> None:
        """Forget a file that was taken. If a file of that name is in the inbox, it is looked at again; the
        very same one is set aside, since to try it again at once could go on for ever."""
        self._taken.pop(path, None)
        seen = look(self._inbox, path)
        if isinstance(seen, Seen) and seen.identity == identity:
            self._aside.add(path, identity, time.monotonic())
        else:
            self._see(seen, time.monotonic(), None)

    def set_aside(self, path: str, identity: Identity) -> None:
        """Put a taken file back, and leave it alone until it changes or its wait is over (see `Aside`)."""
        self._taken.pop(path, None)
        self._aside.add(path, identity, time.monotonic())
        if self._is_ours:
            put_one_back(self._inbox, path, identity)

    def _ask(self, watched: Watched) -> tuple[Seen | Oddity | None, Writers]:
        """What lies there now, and, if it is a file, whether anybody is writing it."""
        try:
            parent, name = split(watched.path)
            with open_folder(self._inbox, parent) as folder:
                seen = look_at(folder, watched.path, self._inbox)
                if not isinstance(seen, Seen):
                    return seen, Writers.UNKNOWN
                if not seen.identity.size and self._has_download(folder, watched):
                    return seen, Writers.SOME
                return seen, writers_at(folder, name)
        except OSError:
            return None, Writers.UNKNOWN

    def _has_download(self, folder: int, watched: Watched) -> bool:
        return self._downloads.has_one_for(folder, watched.path, watched.since, time.monotonic())

    def _begin_rescan(self, now: float) -> None:
        """Look at everything again, after making sure that the lock is held and that events arrive."""
        self._aside.forget_old(now)
        self._next_scan = now + self._settings.rescan_s
        if not self._lock.is_ours or not self._watch.is_alive or self._watch.at_limit:
            self._watch.stop()
            try:
                self._lock.follow(self._inbox)
            except InboxHeld as held:
                self._let_go(str(held))
                return
            except OSError as error:
                self._let_go(f"the inbox {printable(self._inbox)} can't be locked: {error.strerror}")
                return
            self._is_ours = True
            try:
                self._watch.start()
            except OSError as error:
                self._note_trouble(f"the inbox {printable(self._inbox)} can't be watched: {error.strerror}")
        if self._watch.is_alive and self._watch.at_limit:
            self._note_trouble(AT_LIMIT)
        if not self._taken:  # what a daemon that died or lost the lock had claimed
            put_all_back(self._inbox)
        self._begin_pass(now)

    def _let_go(self, why: str) -> None:
        """Forget everything about an inbox that may be another daemon's by now."""
        self._note_trouble(why)
        self._is_ours = False
        self._tracker = SettleTracker(self._settings.settle_ms / 1000)
        self._settled = Settled()
        self._pass = self._cut = None
        self._beyond, self._turned_away, self._folder_came = 0, False, False

    def _begin_pass(self, now: float) -> None:
        self._turned_away = self._folder_came = False
        self._oddities.begin_pass()
        entries = scan(self._inbox, self._settings.recursive, unread=self._oddities.note_unread)
        self._pass = _Pass(entries, now, {*self._tracker.paths(), *self._settled.paths()})

    def _continue(self, current: _Pass, now: float) -> None:
        try:
            count = 0
            for seen in islice(current.entries, SCAN_STEP):
                count += 1
                current.missing.discard(seen.path)
                if isinstance(seen, Oddity):
                    self._note_oddity(seen)
                elif seen.path in self._taken:
                    self._taken[seen.path] = True
                elif not self._aside.holds(seen.path, seen.identity, now):
                    current.oldest.offer(seen)
        except OSError as error:
            self._note_trouble(f"the inbox {printable(self._inbox)} can't be read: {error.strerror}")
            self._pass = None
            return
        if count < SCAN_STEP:
            self._pass = None
            for path in current.missing:  # no event says that a file, or a folder of files, has gone
                self._tracker.forget(path)
                self._settled.forget(path)
            self._know(current.oldest, now)
            self._oddities.end_pass()
            if self.trouble is not None and self._watch.is_alive and not self._watch.at_limit:
                logger.info("the inbox can be read and watched again")
                self.trouble = None
        elif not self._known and now - current.began >= PATIENCE_S:
            self._know(current.oldest, now)

    def _know(self, oldest: Oldest, now: float) -> None:
        """Replace what is known by the oldest files that a pass has seen."""
        self._cut, self._beyond = oldest.cut, oldest.beyond
        if self._cut is not None:
            self._tracker.forget_newer(self._cut)
            self._settled.forget_newer(self._cut)
        for seen in oldest.files():
            self._see(seen, now, None)

    def _note_trouble(self, trouble: str) -> None:
        if trouble != self.trouble:
            logger.error("%s; looking again at each rescan", trouble)
        self.trouble = trouble

    def _note_oddity(self, oddity: Oddity) -> None:
        self._tracker.forget(oddity.path)
        self._oddities.note(oddity)

    def _see(self, seen: Seen | Oddity | None, now: float, writing: bool | None) -> None:
        if seen is None or not self._is_ours:
            return
        if self._pass is not None:
            self._pass.missing.discard(seen.path)
        if isinstance(seen, Oddity):
            self._note_oddity(seen)
            return
        if seen.path in self._taken:
            self._taken[seen.path] = True
            return
        if self._aside.holds(seen.path, seen.identity, now):
            return
        if (settled := self._settled.get(seen.path)) is not None:
            if settled.identity == seen.identity and writing in (None, settled.writing):
                return
            self._settled.forget(seen.path)
            self._tracker.postpone(settled, now)
        if seen.path not in self._tracker:
            if self._cut is not None and seen.identity.age > self._cut:
                return  # a pass finds it when its turn comes
            if self._known >= 2 * MOST_KNOWN:
                self._turned_away = True
                return
        self._tracker.observe(seen.path, seen.identity, now, writing)


def _is_closed(watched: Watched, writers: Writers, now: float) -> bool:
    if writers is Writers.UNKNOWN:
        return not watched.writing or now - watched.since >= WRITER_LOST_S
    return writers is Writers.NONE


def _writing(change: Change) -> bool:
    return change is Change.WRITING
