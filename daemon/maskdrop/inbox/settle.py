"""When a file has settled. Pure: time and file states are passed in."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from maskdrop.ticket import Identity

LEAST_WAIT_S = 0.1
"""Seconds before it is asked again whether somebody has a file open, however short the settle time is:
asking all the time would be a busy loop."""


@dataclass(frozen=True)
class Watched:
    """A file that may still be changing.

    Attributes:
        identity: its state when last seen.
        since: when that state was first seen, in seconds of a monotonic clock.
        quiet_from: when the wait began; later than ``since`` after a postponement.
        writing: whether an event said that somebody has it open for writing.
    """

    path: str
    identity: Identity
    since: float
    quiet_from: float
    writing: bool


class SettleTracker:
    """Files that have been seen but not yet unchanged for long enough.

    Each change moves a file to the end of its queue, so the files of a queue are always in the order
    in which they will settle, and asking for the next costs the same with 10 files or 100,000.
    """

    def __init__(self, settle_seconds: float) -> None:
        self._watched = _Queue(settle_seconds)
        self._postponed = _Queue(max(settle_seconds, LEAST_WAIT_S))

    def __len__(self) -> int:
        return len(self._watched.files) + len(self._postponed.files)

    def __contains__(self, path: str) -> bool:
        return self._known(path) is not None

    def paths(self) -> Iterator[str]:
        yield from self._watched.files
        yield from self._postponed.files

    def observe(self, path: str, identity: Identity, now: float, writing: bool | None = None) -> None:
        """Note a file's state; a new state starts the wait again. ``writing`` None: not known."""
        known = self._known(path)
        if known is not None and known.identity == identity:
            if writing is not None and writing != known.writing:
                queue = self._watched if path in self._watched.files else self._postponed
                if not writing and queue is self._postponed:  # closed: it waits no longer than others
                    del queue.files[path]
                    queue = self._watched
                queue.files[path] = replace(known, writing=writing)
            return
        if writing is None:
            writing = known.writing if known is not None else False
        self.forget(path)
        self._watched.files[path] = Watched(path, identity, now, now, writing)

    def postpone(self, watched: Watched, now: float) -> None:
        """Have an unchanged file wait the whole settle time again, and at least `LEAST_WAIT_S`."""
        self.forget(watched.path)
        self._postponed.files[watched.path] = replace(watched, quiet_from=now)

    def forget(self, path: str) -> None:
        self._watched.files.pop(path, None)
        self._postponed.files.pop(path, None)

    def forget_newer(self, age: tuple[int, int]) -> None:
        """Forget all files beyond an `Identity.age`."""
        for files in (self._watched.files, self._postponed.files):
            for path in [path for path, w in files.items() if w.identity.age > age]:
                del files[path]

    def settled(self, now: float, most: int) -> list[Watched]:
        """Files unchanged for the settle time, ``most`` of them at most. They stay watched until
        forgotten or postponed."""
        ready = self._postponed.settled(now, most)
        return ready + self._watched.settled(now, most - len(ready))

    def next_at(self) -> float | None:
        """When the next file settles if nothing changes; None if nothing is watched."""
        times = (queue.next_at() for queue in (self._watched, self._postponed))
        return min((at for at in times if at is not None), default=None)

    def _known(self, path: str) -> Watched | None:
        return self._watched.files.get(path) or self._postponed.files.get(path)


class _Queue:
    """Files that all wait equally long, in the order in which their waits began."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.files: OrderedDict[str, Watched] = OrderedDict()

    def settled(self, now: float, most: int) -> list[Watched]:
        ready = []
        for watched in islice(self.files.values(), most):
            if now < watched.quiet_from + self._seconds:
                break
            ready.append(watched)
        return ready

    def next_at(self) -> float | None:
        for watched in self.files.values():
            return watched.quiet_from + self._seconds
        return None
