"""When to try files again that can't be read or moved. Pure: time is passed in."""

from dataclasses import dataclass

from maskdrop.ticket import Identity

MOST_ASIDE_S = 600.0
"""Longest wait in seconds between two tries of an unchanged file, or the time between rescans if that is
longer."""


@dataclass(frozen=True)
class _Turn:
    """Until when a file waits, and for how long in all, in seconds."""

    identity: Identity
    until: float
    waits: float


class Aside:
    """Doubles the wait before each try of an unchanged file. So there is time for other files, even if these
    are many and the oldest."""

    def __init__(self, least: float) -> None:
        """Prepare.

        Args:
            least: seconds before a file is tried again for the first time.
        """
        self._least, self._most = least, max(least, MOST_ASIDE_S)
        self._turns: dict[str, _Turn] = {}

    def add(self, path: str, identity: Identity, now: float) -> None:
        """A try failed."""
        before = self._turns.get(path)
        again = before is not None and before.identity == identity
        waits = min(2 * before.waits, self._most) if before is not None and again else self._least
        self._turns[path] = _Turn(identity, now + waits, waits)

    def holds(self, path: str, identity: Identity, now: float) -> bool:
        """Whether the file must not be tried yet. A file that has changed may be."""
        turn = self._turns.get(path)
        return turn is not None and turn.identity == identity and now < turn.until

    def forget_old(self, now: float) -> None:
        """Forget files that have not come back for as long again as they waited."""
        self._turns = {path: turn for path, turn in self._turns.items() if now < turn.until + turn.waits}
