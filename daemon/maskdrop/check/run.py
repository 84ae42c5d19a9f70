"""One check from beginning to end: count, decode, and put broken files away if that is wanted."""

import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from maskdrop.check.act import folder_for_us_alone, put_away
from maskdrop.check.findings import Finding, Findings, Tally
from maskdrop.check.pool import Checked, Pool
from maskdrop.check.worker import Verdict
from maskdrop.config_file import DecodingTables
from maskdrop.inbox.scan import Oddity, Seen, Unread, scan
from maskdrop.names import fits
from maskdrop.ticket import Identity, Ticket

Progress = Callable[[Tally, Findings], None]

_NO_FILE = Identity(0, 0, 0, 0)


class Interrupt:
    """Ctrl-C and SIGTERM as a readable descriptor. They never stop the check while it puts a file away."""

    def __init__(self) -> None:
        self.number = 0
        self.wake_end, self._ring_end = socket.socketpair()
        self._ring_end.setblocking(False)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Within, the signals are noted instead of ending the process."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._heed) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def came(self) -> bool:
        return self.number != 0

    def _heed(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        with suppress(BlockingIOError):
            self._ring_end.send(b"\0")


class Check:
    """A check of one folder, and the owner of what it has found."""

    def __init__(
        self,
        folder: Path,
        tables: DecodingTables,
        patterns: tuple[str, ...],
        progress: Progress,
        reports: Collection[os.stat_result] = (),
    ) -> None:
        """Prepare.

        Args:
            folder: absolute and without links.
            patterns: globs of names, or of paths if they contain a ``/``; none: every file.
            progress: called after each file.
            reports: files that the check's output goes to, which are no pictures.
        """
        self._folder, self._tables, self._patterns = folder, tables, patterns
        self._reports = frozenset((report.st_dev, report.st_ino) for report in reports)
        self._progress = progress
        self.interrupt = Interrupt()
        self.tally = Tally()
        self.findings = Findings()

    def make_ready(self) -> None:
        """Before anything is moved or deleted, put back what a killed check had claimed.

        Raises:
            InboxHeld: the folder is the inbox of a daemon at work.
            OSError: its lock file can't be opened.
        """
        with folder_for_us_alone(self._folder):
            pass

    def count(self) -> None:
        """Count the files, so that the time left can be shown.

        Raises:
            OSError: the folder can't be read.
        """
        for seen in self._scan():
            if self.interrupt.came():
                return
            if isinstance(seen, Seen):
                self.tally.total += 1
            else:
                self.tally.left_alone += 1

    def decode_all(self, processes: int) -> None:
        """Decode every file that was counted.

        Raises:
            OSError: the folder can't be read.
            PoolUnfit: no process can be started.
        """
        began = time.monotonic()
        processes = max(1, min(processes, self.tally.total))
        wake = self.interrupt.wake_end.fileno()
        pool = Pool(self._folder, self._tables.decode, self._tables.workers, processes, wake)
        try:
            for checked in pool.check(self._tickets(), self.interrupt.came):
                self._note(checked)
                self.tally.seconds = time.monotonic() - began
                self._progress(self.tally, self.findings)
        finally:
            self.tally.seconds = time.monotonic() - began
            self.tally.interrupted = self.interrupt.came()

    def put_away_all(self, target: Path | None) -> None:
        """Move broken files below ``target``, or delete them; can be interrupted between two files.

        Raises:
            InboxHeld: the folder is the inbox of a daemon at work. Nothing was done.
            SpoolFull: what was done can't be recorded; the findings stay as they were.
            OSError: its lock file can't be opened.
        """
        done = Findings()
        with folder_for_us_alone(self._folder):
            for finding in self.findings:
                come_to_it = not self.interrupt.came()
                done.add(put_away(self._folder, finding, target) if come_to_it else finding)
        self.findings.close()
        self.findings = done
        self.tally.interrupted = self.interrupt.came()

    def _scan(self, unread: Unread | None = None) -> Iterator[Seen | Oddity]:
        found = scan(self._folder, recursive=True, unread=unread)
        return (seen for seen in found if self._is_wanted(seen.path) and not self._is_report(seen))

    def _is_wanted(self, path: str) -> bool:
        return not self._patterns or any(fits(path, pattern) for pattern in self._patterns)

    def _is_report(self, seen: Seen | Oddity) -> bool:
        return isinstance(seen, Seen) and (seen.identity.device, seen.identity.inode) in self._reports

    def _tickets(self) -> Iterator[Ticket]:
        number = 0
        for seen in self._scan(self._note_unread):
            if isinstance(seen, Seen):
                number += 1
                yield Ticket(number, seen.path, seen.identity)

    def _note_unread(self, folder: str, error: OSError) -> None:
        """Note a folder as one finding: nobody knows how many pictures are in it."""
        message = error.strerror or str(error)
        self.findings.add(Finding(folder, Verdict.UNREAD, type(error).__name__, message, _NO_FILE))

    def _note(self, checked: Checked) -> None:
        self.tally.checked += 1
        self.tally.total = max(self.tally.total, self.tally.checked)
        ticket, answer = checked.ticket, checked.answer
        if answer.verdict is not Verdict.WHOLE:
            found = Finding(ticket.path, answer.verdict, answer.error, answer.message, ticket.identity)
            self.findings.add(found)
