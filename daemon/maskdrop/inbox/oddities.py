"""Things in the inbox that aren't files, or can't be read: each is logged once while it is there."""

import logging

from maskdrop.inbox.scan import Oddity
from maskdrop.names import printable

logger = logging.getLogger("maskdrop")

MOST_ODDITIES = 1_000
"""Paths remembered; any more are not logged."""


class Oddities:
    """Owner of what was logged, and of what the pass under way has met again."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._met: set[str] = set()

    def note(self, oddity: Oddity) -> None:
        self._log_once(oddity.path, f"a {oddity.kind}, not a file")

    def note_unread(self, path: str, error: OSError) -> None:
        self._log_once(path, f"{error.strerror}; looking again at each rescan")

    def begin_pass(self) -> None:
        self._met = set()

    def end_pass(self) -> None:
        """What the pass didn't meet is gone, and is logged again if it comes back."""
        self._logged = self._met

    def _log_once(self, path: str, why: str) -> None:
        if path not in self._logged and len(self._logged) < MOST_ODDITIES:
            logger.warning("left alone %s: %s", printable(path), why)
            self._logged.add(path)
        if path in self._logged:
            self._met.add(path)
