"""Settled files that wait for a worker, oldest first. Pure."""

import heapq
from collections.abc import Iterable

from maskdrop.inbox.settle import Watched

_MOST_STALE = 64
"""The heap is rebuilt when it has this many entries more than two for each file. Without that, a file that
is touched again and again while none is taken would pile up stale entries."""


class Settled:
    """Each file once, as it was when it settled."""

    def __init__(self) -> None:
        self._files: dict[str, Watched] = {}
        self._oldest_first: list[tuple[tuple[int, int], str]] = []

    def __len__(self) -> int:
        return len(self._files)

    def get(self, path: str) -> Watched | None:
        return self._files.get(path)

    def add(self, watched: Watched) -> None:
        self._files[watched.path] = watched
        heapq.heappush(self._oldest_first, (watched.identity.age, watched.path))
        if len(self._oldest_first) > 2 * len(self._files) + _MOST_STALE:
            self._order()

    def paths(self) -> Iterable[str]:
        return self._files

    def forget(self, path: str) -> None:
        self._files.pop(path, None)

    def pop(self) -> Watched | None:
        """Take out the oldest, by `Identity.age`; None if there is none."""
        while self._oldest_first:
            age, path = heapq.heappop(self._oldest_first)
            watched = self._files.get(path)
            if watched is not None and watched.identity.age == age:
                del self._files[path]
                return watched
        return None

    def forget_newer(self, age: tuple[int, int]) -> None:
        """Forget all files beyond an `Identity.age`."""
        self._files = {path: w for path, w in self._files.items() if w.identity.age <= age}
        self._order()

    def _order(self) -> None:
        self._oldest_first = [(watched.identity.age, path) for path, watched in self._files.items()]
        heapq.heapify(self._oldest_first)
