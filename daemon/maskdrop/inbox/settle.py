"""When has a file settled? Pure: time and file states are passed in."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import islice

from maskdrop.ticket import Identity


@dataclass(frozen=True)
class Watched:
    """A file that may still be changing.

    Attributes:
        identity: its state when last seen.
        since: when that state was first seen, in seconds of a monotonic clock.
        quiet_from: from when the wait counts; later than ``since`` after a postponement.
        writing: whether an event said that somebody has it open for writing.
    """

    path: str
    identity: Identity
    since: float
    quiet_from: float
    writing: bool


class SettleTracker:
    """Files seen but not yet unchanged for long enough.

    Each change moves a file to the end of the order, so the files are always in the order
    in which they will settle, and asking for the next costs the same with 10 files or 100,000.
    """

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._watched: OrderedDict[str, Watched] = OrderedDict()

    def __len__(self) -> int:
        return len(self._watched)

    def __contains__(self, path: str) -> bool:
        return path in self._watched

    def observe(self, path: str, identity: Identity, now: float, writing: bool | None = None) -> None:
        """Note a file's state; a new state starts the wait anew. ``writing`` None: not known."""
        known = self._watched.get(path)
        if known is not None and known.identity == identity:
            if writing is not None and writing != known.writing:
                self._watched[path] = replace(known, writing=writing)
            return
        if writing is None:
            writing = known.writing if known is not None else False
        self._put(Watched(path, identity, now, now, writing))

    def postpone(self, path: str, now: float) -> None:
        """Wait for the whole settle time again, though nothing changed."""
        known = self._watched.get(path)
        if known is not None:
            self._put(replace(known, quiet_from=now))

    def forget(self, path: str) -> None:
        self._watched.pop(path, None)

    def forget_newer(self, age: tuple[int, int]) -> None:
        """Forget all files beyond an `Identity.age`."""
        for path in [path for path, w in self._watched.items() if w.identity.age > age]:
            del self._watched[path]

    def settled(self, now: float, most: int) -> list[Watched]:
        """Files unchanged for the settle time, so many at most. They stay watched until
        forgotten or postponed."""
        ready = []
        for watched in islice(self._watched.values(), most):
            if now < watched.quiet_from + self._settle_seconds:
                break
            ready.append(watched)
        return ready

    def next_at(self) -> float | None:
        """When the next file settles if nothing changes; None where nothing is watched."""
        for watched in self._watched.values():
            return watched.quiet_from + self._settle_seconds
        return None

    def _put(self, watched: Watched) -> None:
        self._watched.pop(watched.path, None)
        self._watched[watched.path] = watched
