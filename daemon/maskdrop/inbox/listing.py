"""Goes through a folder once: gives each file once, and never touches anything in it."""

import logging
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from maskdrop.inbox.scan import Oddity, Seen, scan
from maskdrop.inbox.supply import Candidate
from maskdrop.names import printable
from maskdrop.ticket import Identity

logger = logging.getLogger("maskdrop")

COUNT_STEP = 2_000
"""Files counted before the supervisor's loop sees to everything else."""


class Listing:
    """Owner of how far the folder has been gone through. However many files there are, none is remembered.

    Attributes:
        counted: files counted so far.
        given: files that were taken.
        left_alone: links, pipes, sockets and devices, which are never opened.
        unread: folders that can't be read, and entries that can't be looked at.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counting: Iterator[Seen | Oddity] | None = None
        self._files: Iterator[Seen | Oddity] | None = None
        self.counted = self.given = self.left_alone = self.unread = 0
        self.trouble: str | None = None
        self.is_over = False

    @property
    def backlog(self) -> int:
        return max(0, self.counted - self.given)

    @property
    def total(self) -> int | None:
        """How many files there are; None while they are being counted."""
        return None if self._counting is not None else max(self.counted, self.given)

    def start(self) -> None:
        """Begin; when called again, go through everything again."""
        self._counting = scan(self._folder, recursive=True, one_device=False)
        self._files = scan(self._folder, recursive=True, one_device=False, unread=self._note_unread)
        self.is_over = False

    def stop(self) -> None:
        self._counting = self._files = None

    def advance(self, now: float) -> None:
        """Go on counting, while pictures are being worked on."""
        if self._counting is None:
            return
        step = 0
        try:
            for seen in islice(self._counting, COUNT_STEP):
                step += 1
                self.counted += isinstance(seen, Seen)
        except OSError:  # logged when the files are taken
            step = 0
        if step < COUNT_STEP:
            self._counting = None

    def wait(self, now: float) -> float:
        return 0.0 if self._counting is not None else math.inf

    def take(self) -> Candidate | None:
        """The next file, in no particular order; None after the last one."""
        try:
            for seen in self._files or ():
                if isinstance(seen, Seen):
                    self.given += 1
                    return Candidate(seen.path, seen.identity, 0.0)
                self.left_alone += 1
                logger.warning("left alone %s: a %s, not a file", printable(seen.path), seen.kind)
        except OSError as error:
            self._note_unread("", error)
        self.is_over = True
        return None

    def leave(self) -> None:
        """Stop for good."""
        self.stop()

    def forget(self, path: str) -> None:
        """Nothing to do: no file is given twice."""

    def release(self, path: str, identity: Identity) -> None:
        """Nothing to do: no file is given twice."""

    def set_aside(self, path: str, identity: Identity) -> None:
        """Nothing to do: no file is given twice."""

    def _note_unread(self, folder: str, error: OSError) -> None:
        self.unread += 1
        logger.error("%s can't be read: %s", printable(self._folder / folder), error.strerror)
