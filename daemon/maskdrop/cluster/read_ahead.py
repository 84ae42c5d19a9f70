"""Originals that are fetched before their turn comes, where each costs a request."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from maskdrop.cluster.cargo import Work
from maskdrop.cluster.stores import Store
from maskdrop.decoding import BrokenPicture

AHEAD = 16
"""Originals fetched at the same time, of a block's 16 to 64."""

_LARGEST = 4 * 2**20
"""Most bytes of an original that is fetched ahead: all that wait take no more memory than one large one."""


class ReadAhead:
    """Reads a block's originals in their order, and fetches the next ones meanwhile."""

    def __init__(
        self, store: Store, works: Sequence[Work], most: int, pool: ThreadPoolExecutor | None
    ) -> None:
        self._store, self._most, self._pool = store, most, pool
        self._early = min(_LARGEST, most)
        self._next = iter(works)
        self._under_way: dict[str, Future[bytes]] = {}
        for _ in range(AHEAD):
            self._fetch_next()

    def read(self, path: str) -> bytes:
        """As `Store.read`; large originals are read only now."""
        early = self._under_way.pop(path, None)
        self._fetch_next()
        if early is not None:
            try:
                return early.result()
            except BrokenPicture as error:
                if error.error != "TooManyBytes":
                    raise
        return self._store.read(path, self._most)

    def _fetch_next(self) -> None:
        work = next(self._next, None)
        if work is not None and self._pool is not None and work.size <= self._early:
            self._under_way[work.path] = self._pool.submit(self._store.read, work.path, self._early)


@contextmanager
def reading_ahead(store: Store, works: Sequence[Work], most: int) -> Iterator[ReadAhead]:
    """A reader of these originals, of ``most`` bytes each at most. A single one, and those in a folder, are
    read only when their turn comes."""
    if not store.is_remote or len(works) < 2:
        yield ReadAhead(store, works, most, None)
        return
    pool = ThreadPoolExecutor(AHEAD, "ahead")
    try:
        yield ReadAhead(store, works, most, pool)
    finally:
        pool.shutdown(cancel_futures=True)
