"""One batch from beginning to end: the daemon's supervisor and workers on a list of files."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from maskdrop.batch.ledger import Entry, Ledger, Outcome
from maskdrop.batch.settings import HEALTH_NAME
from maskdrop.config import Settings
from maskdrop.exit_codes import EX_CONFIG
from maskdrop.folders import Folders, prepare_to_keep
from maskdrop.inbox.listing import Listing
from maskdrop.supervisor.errand import Errand, Wake
from maskdrop.supervisor.journal import Journal
from maskdrop.supervisor.pipeline import Flight
from maskdrop.supervisor.premises import Premises, take_premises
from maskdrop.supervisor.supervisor import Supervisor
from maskdrop.systemd import ServiceManager
from maskdrop.ticket import DoneBefore, Left, Quarantined, Saved


class BatchJournal(Journal):
    """Also notes each picture's end in a ledger."""

    def __init__(self, ledger: Ledger, progress: Callable[[], None]) -> None:
        super().__init__()
        self._ledger, self._progress = ledger, progress

    def saved(self, flight: Flight, report: Saved, now: float) -> None:
        super().saved(flight, report, now)
        times = {**flight.milliseconds, "save": report.milliseconds}
        entry = Entry(flight.ticket.path, Outcome.SAVED, outputs=report.names, ms=times)
        self._note(entry, now - flight.accepted_at)

    def done_before(self, flight: Flight, report: DoneBefore) -> None:
        super().done_before(flight, report)
        entry = Entry(flight.ticket.path, Outcome.DONE_BEFORE, outputs=report.names)
        self._note(entry, time.monotonic() - flight.accepted_at)

    def quarantined(self, flight: Flight, report: Quarantined, now: float) -> None:
        super().quarantined(flight, report, now)
        assert flight.fault is not None
        entry = Entry(
            flight.ticket.path,
            Outcome.BROKEN,
            quarantine=report.name,
            error=flight.fault.error,
            message=flight.fault.message,
            ms=flight.milliseconds,
        )
        self._note(entry, now - flight.accepted_at)

    def left(self, flight: Flight, report: Left) -> None:
        super().left(flight, report)
        absence = report.absence.value
        entry = Entry(flight.ticket.path, Outcome.LEFT, error=absence, message=report.message)
        self._note(entry, time.monotonic() - flight.accepted_at)

    def _note(self, entry: Entry, seconds: float) -> None:
        """Add the entry of a picture that was in flight for so long; nothing settles in a batch."""
        spent = {**entry.ms, "total": seconds * 1000}
        ms = {stage: round(time, 1) for stage, time in spent.items() if stage != "settle"}
        self._ledger.add(replace(entry, ms=ms))
        self._progress()


class Batch:
    """A batch, and the owner of what became of its pictures.

    Attributes:
        seconds: how long it took, once it is over.
        end_signal: number of the signal that ended it early; 0: none.
    """

    def __init__(self, settings: Settings, skips_done: bool, progress: Callable[[], None]) -> None:
        """Prepare.

        Args:
            skips_done: whether to skip pictures whose results are there.
            progress: called after each picture.
        """
        self._settings, self._skips_done = settings, skips_done
        self.ledger = Ledger()
        self._journal = BatchJournal(self.ledger, progress)
        self.listing: Listing | None = None
        self.seconds = 0.0
        self.end_signal = 0

    def run(self) -> bool:
        """Do everything, or drain when a signal comes.

        Returns:
            Whether it could work as configured; if not, the log says why not.

        Raises:
            ConfigurationError: it can't run as configured.
            InboxHeld: another batch works for this outbox.
        """
        premises = take_premises(self._settings, prepare=self._prepare)
        began = time.monotonic()
        try:
            errand = Errand(self._supply, self._journal, read_again=None)
            supervisor = Supervisor(premises, ServiceManager(environment={}), errand)
        except BaseException:
            premises.leave()
            raise
        try:
            code = supervisor.run()
            with contextlib.suppress(OSError):
                (premises.folders.outbox / HEALTH_NAME).unlink()
        finally:
            supervisor.leave()
            self.seconds = time.monotonic() - began
        self.end_signal = supervisor.end_signal
        return code != EX_CONFIG

    @property
    def total(self) -> int | None:
        """Files that are there; None until they are counted."""
        return self.listing.total if self.listing is not None else None

    @property
    def statistics(self) -> tuple[str, ...]:
        """The daemon's workers say nothing beyond the report."""
        return ()

    @property
    def passed(self) -> Listing | None:
        """The listing of its folder, as far as it has come."""
        return self.listing

    @property
    def done(self) -> int:
        """Pictures that are done with, one way or another."""
        return self.ledger.counts.total()

    @property
    def given_up(self) -> int:
        """Pictures that were in flight when the drain was cut short: the next run does them."""
        return self.listing.given - self.done if self.listing is not None and self.end_signal else 0

    @property
    def is_complete(self) -> bool:
        """Whether every picture that is there has its results."""
        counts, listing = self.ledger.counts, self.listing
        if listing is None or not listing.is_over or listing.unread:
            return False
        return counts[Outcome.SAVED] + counts[Outcome.DONE_BEFORE] == listing.given

    def _prepare(self, settings: Settings) -> Folders:
        return prepare_to_keep(settings, self._skips_done)

    def _supply(self, premises: Premises, wake: Wake) -> Listing:
        self.listing = Listing(premises.folders.inbox)
        return self.listing
