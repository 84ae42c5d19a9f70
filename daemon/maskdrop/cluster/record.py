"""What became of a batch's pictures: this run's ledger, and their rows in the manifest."""

import logging

from maskdrop.batch.ledger import Entry, Ledger, Outcome
from maskdrop.cluster.breaker import Breaker
from maskdrop.cluster.cargo import End, Work
from maskdrop.cluster.manifest import Manifest, Row
from maskdrop.durable import FolderTrouble

logger = logging.getLogger("maskdrop")


class Record:
    """Owner of both. Rows are written from time to time; those that they replace are removed at the end."""

    def __init__(self, manifest: Manifest, breaker: Breaker, copies: bool = False) -> None:
        """Prepare.

        Args:
            copies: whether broken pictures are copied; then those whose rows name no copy count as not done.
        """
        self._manifest, self._breaker, self._copies = manifest, breaker, copies
        self._rows: dict[str, Row] = {}
        self._replaced: dict[str, set[str]] = {}
        self.ledger = Ledger()

    def read(self) -> None:
        """Learn what is done.

        Raises:
            ConfigurationError, FolderTrouble: as by `Manifest.read`.
        """
        self._rows = self._manifest.read()

    def known(self, path: str) -> str:
        """What a picture's row says of its content, as in `Work.known`."""
        row = self._rows.get(path)
        if row is None or (self._copies and row.error and not row.quarantine):
            return ""
        return row.known

    def note(self, work: Work) -> None:
        """Note a picture's end in the ledger and, unless its present row stays, in the manifest.

        Raises:
            PlaceTrouble: many pictures were left, because a place can't be used.
            SpoolFull: the ledger's disk is full.
        """
        assert work.end is not None, work
        row, end = self._rows.get(work.path), work.end
        if end.outcome is Outcome.DONE_BEFORE and row is not None:
            end = _broken_before(row) if row.error else end
        elif not _stays(row, work):
            self._put(row, work)
        ms = {stage: round(spent, 1) for stage, spent in work.ms.items()}
        ms["total"] = round(sum(work.ms.values()), 1)
        self.ledger.add(
            Entry(work.path, end.outcome, end.results, end.quarantine, end.error, end.message, ms)
        )
        self._breaker.note(end, work.path)

    def _put(self, row: Row | None, work: Work) -> None:
        if row is not None:
            self._replaced.setdefault(row.part, set()).add(work.path)
        try:
            self._manifest.add(work)
        except FolderTrouble as error:  # its rows are kept, and written with later ones
            logger.error("the manifest can't be written now: %s", error)

    @property
    def due_at(self) -> float:
        """As `Manifest.due_at`."""
        return self._manifest.due_at

    def write(self) -> None:
        """Write the rows that wait, if that can be done now."""
        try:
            self._manifest.write()
        except FolderTrouble as error:
            logger.error("the manifest can't be written now: %s", error)

    def close(self, tidies: bool) -> None:
        """Write the rows that wait.

        Args:
            tidies: whether to remove the rows that they replace; if not, the next run does.

        Raises:
            FolderTrouble: a part can't be written or read.
        """
        self._manifest.write()
        if tidies:
            self._manifest.drop(self._replaced)


def _broken_before(row: Row) -> End:
    return End(Outcome.BROKEN, quarantine=row.quarantine, error=row.error, message=row.message)


def _stays(row: Row | None, work: Work) -> bool:
    """Whether a picture's row is still true: it was done, and could not be read this time."""
    assert work.end is not None
    is_unread = work.end.outcome is Outcome.LEFT and not work.sha256
    return is_unread and row is not None and row.is_done
