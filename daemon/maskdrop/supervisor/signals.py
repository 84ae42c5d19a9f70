"""Signals and wake-ups, made readable: the supervisor's loop waits for a socket."""

import contextlib
import signal
import socket
import time
from types import FrameType

ONE_REQUEST_S = 0.25
"""The same signal again within so many seconds is the same request: timeout(1) signals its child, then its
process group, which the child belongs to."""


class Signals:
    """Counts requests to end, notes those to read the configuration again, and wakes the loop for
    them and for the watching thread.

    Attributes:
        term_count: requests to end so far.
        last_term: number of the latest signal that asked for the end; 0 before the first.
    """

    def __init__(self) -> None:
        self.term_count = self.last_term = 0
        self._came_at = 0.0
        self._hup_pending = False
        self.wake_end, self._ring_end = socket.socketpair()
        self.wake_end.setblocking(False)
        self._ring_end.setblocking(False)

    def install(self, reloads: bool) -> None:
        """Take over SIGTERM and SIGINT, and ignore what else could end the daemon.

        Args:
            reloads: whether SIGHUP asks for a new configuration. If not, it asks for the end, unless it was
                ignored before, as under nohup(1).
        """
        signal.signal(signal.SIGTERM, self.handle_term)
        signal.signal(signal.SIGINT, self.handle_term)
        if reloads:
            signal.signal(signal.SIGHUP, self.handle_hup)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one may have come during start
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self.handle_term)
        signal.signal(signal.SIGIO, signal.SIG_IGN)  # see inbox/writers.py
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def handle_term(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number != self.last_term or now - self._came_at >= ONE_REQUEST_S:
            self.term_count += 1
            self._came_at = now
        self.last_term = number
        self.wake()

    def handle_hup(self, number: int, frame: FrameType | None) -> None:
        self._hup_pending = True
        self.wake()

    def take_hup(self) -> bool:
        """Whether SIGHUP has come since the last call, so that the configuration is to be read again."""
        if not self._hup_pending:
            return False  # the flag is not written: a signal may come at this very moment
        self._hup_pending = False
        return True

    def wake(self) -> None:
        """Wake the loop; safe from any thread and from a signal handler."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            self._ring_end.send(b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.wake_end.recv(4096)
