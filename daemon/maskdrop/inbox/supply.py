"""Where the supervisor gets pictures: from a folder that it watches, or one that it goes through once."""

from dataclasses import dataclass
from typing import Protocol

from maskdrop.ticket import Identity


@dataclass(frozen=True)
class Candidate:
    """A settled file: its path relative to the inbox, its state, how long it took to settle."""

    path: str
    identity: Identity
    settle_ms: float


class Supply(Protocol):
    """What `Intake` and `Listing` have in common.

    Attributes:
        trouble: why the folder can't be read or watched; None if it can.
    """

    trouble: str | None

    @property
    def backlog(self) -> int:
        """Files known and not taken."""

    @property
    def is_over(self) -> bool:
        """Whether no file will ever come any more."""

    def start(self) -> None:
        """Begin to look."""

    def stop(self) -> None:
        """Take nothing more."""

    def leave(self) -> None:
        """Stop for good. No worker holds a picture any more."""

    def advance(self, now: float) -> None:
        """Go on looking, for a moment."""

    def wait(self, now: float) -> float:
        """Seconds until there is something to advance, if no event comes."""

    def take(self) -> Candidate | None:
        """The next file, or None. It won't be given again until it is released."""

    def forget(self, path: str) -> None:
        """A file that was taken has left the folder. Another one of that name may have come."""

    def release(self, path: str, identity: Identity) -> None:
        """A file that was taken is gone or changed: whatever has its name is looked at again."""

    def set_aside(self, path: str, identity: Identity) -> None:
        """A file that was taken can't be read or moved for now."""
