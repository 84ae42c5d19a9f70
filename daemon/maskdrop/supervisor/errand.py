"""What the supervisor is there for: to watch an inbox until told to stop, or to do one list of files."""

from collections.abc import Callable
from dataclasses import dataclass

from maskdrop.config import Settings
from maskdrop.inbox.intake import Intake
from maskdrop.inbox.supply import Supply
from maskdrop.supervisor.journal import Journal
from maskdrop.supervisor.premises import Premises

Wake = Callable[[], None]
"""Makes the supervisor's loop look; safe from any thread."""


@dataclass(frozen=True)
class Errand:
    """What differs between the daemon and a batch.

    Attributes:
        supply: makes what gives pictures, for premises.
        journal: what tells of them.
        read_again: gives the settings anew on SIGHUP, or raises ConfigurationError; None: SIGHUP
            drains as SIGTERM does, unless it is ignored.
    """

    supply: Callable[[Premises, Wake], Supply]
    journal: Journal
    read_again: Callable[[], Settings] | None


def watching(read_again: Callable[[], Settings]) -> Errand:
    """The daemon's errand."""

    def supply(premises: Premises, wake: Wake) -> Supply:
        return Intake(premises.folders.inbox, premises.settings.watch, premises.lock, wake)

    return Errand(supply, Journal(), read_again)
