"""The oldest files of a stream of any length, in bounded memory. Pure."""

import heapq

from maskdrop.inbox.scan import Seen
from maskdrop.ticket import Identity


class Oldest:
    """Gathers the oldest files of one pass through the inbox, by mtime, and counts the rest."""

    def __init__(self, limit: int) -> None:
        """Keep ``limit`` files at most."""
        self._limit = limit
        self._newest_first: list[tuple[int, str, Identity]] = []
        self.beyond = 0

    def offer(self, seen: Seen) -> None:
        """Take one more file of the stream into account."""
        entry = (-seen.identity.mtime_ns, seen.path, seen.identity)
        if len(self._newest_first) < self._limit:
            heapq.heappush(self._newest_first, entry)
        else:
            heapq.heappushpop(self._newest_first, entry)
            self.beyond += 1

    @property
    def cut(self) -> int | None:
        """The mtime in nanoseconds up to which every file was kept; None where all of them were.
        Of files with this very time some may be among those beyond it.
        """
        return -self._newest_first[0][0] if self.beyond else None

    def files(self) -> list[Seen]:
        """The kept files, oldest first."""
        return [Seen(path, identity) for _, path, identity in sorted(self._newest_first, reverse=True)]
