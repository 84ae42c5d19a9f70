"""The oldest files of a stream of any length, in bounded memory. Pure."""

import heapq

from maskdrop.inbox.scan import Seen
from maskdrop.ticket import Identity


class Oldest:
    """Gathers the oldest files of one pass through the inbox, by `Identity.age`, and counts the rest."""

    def __init__(self, limit: int) -> None:
        """Keep ``limit`` files at most."""
        self._limit = limit
        self._newest_first: list[tuple[int, int, str, Identity]] = []
        self.beyond = 0

    def offer(self, seen: Seen) -> None:
        """Take one more file of the stream into account."""
        mtime_ns, inode = seen.identity.age
        entry = (-mtime_ns, -inode, seen.path, seen.identity)
        if len(self._newest_first) < self._limit:
            heapq.heappush(self._newest_first, entry)
        else:
            heapq.heappushpop(self._newest_first, entry)
            self.beyond += 1

    @property
    def cut(self) -> tuple[int, int] | None:
        """The age up to which every file was kept; None if all of them were. If the file of that very age has
        several names, some of them may not have been kept.
        """
        if not self.beyond:
            return None
        mtime_ns, inode, *_ = self._newest_first[0]
        return -mtime_ns, -inode

    def files(self) -> list[Seen]:
        """The kept files, oldest first."""
        return [Seen(path, identity) for *_, path, identity in sorted(self._newest_first, reverse=True)]
