"""What the supervisor is for: watching an inbox until told to stop, or going through a folder once."""

from collections.abc import Callable
from dataclasses import dataclass

from maskdrop.config import Settings
from maskdrop.inbox.intake import Intake
from maskdrop.inbox.supply import Supply
from maskdrop.supervisor.journal import Journal
from maskdrop.supervisor.premises import Premises

Wake = Callable[[], None]
"""Wakes the supervisor's loop; safe from any thread."""


@dataclass(frozen=True)
class Errand:
    """What differs between the daemon and a batch.

    Attributes:
        supply: makes the source of pictures for given premises.
        journal: logs and counts what happens to them.
        read_again: reads the settings again on SIGHUP, or raises ConfigurationError; None: SIGHUP
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
