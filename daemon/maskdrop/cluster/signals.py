"""Signals that end a batch on a cluster: the first one has it drain, a later one hurries it."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from types import FrameType

from maskdrop.exit_codes import SIGNAL_EXIT
from maskdrop.supervisor.signals import ONE_REQUEST_S

LIMIT_S = 5.0
"""Seconds after which a hurried batch that isn't over is ended, whatever it is doing."""


class Signals:
    """Notes requests to end, and makes sure that an urgent one is heeded.

    Attributes:
        number: of the signal that made the latest request; 0: none.
        is_urgent: whether another signal came, or the first one again after ``same_s`` seconds or more.
    """

    def __init__(
        self, told: Callable[[], None], same_s: float = ONE_REQUEST_S, limit_s: float = LIMIT_S
    ) -> None:
        """Prepare.

        Args:
            told: called at the first request and at an urgent one, in any thread.
        """
        self._told, self._same_s, self._limit_s = told, same_s, limit_s
        self._heeded: list[int] = []
        self._over = Event()
        self.number = 0
        self.is_urgent = False

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Within, signals are requests to end; main thread only. If one has come, signals stay ignored
        afterwards: all that is left to do is to report how far the batch got."""
        hung_up = signal.getsignal(signal.SIGHUP)
        self._heeded = [signal.SIGINT, signal.SIGTERM]
        if hung_up is not signal.SIG_IGN:  # as it is under nohup(1)
            self._heeded.append(signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in self._heeded}
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        watching = Thread(target=self._watch, args=(reading,), name="signals", daemon=True)
        watching.start()
        woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self.heed()
        try:
            yield
        finally:
            self._over.set()
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if self.number else handler)
            signal.set_wakeup_fd(woken)
            os.close(writing)
            watching.join()
            os.close(reading)

    def heed(self) -> None:
        """Install the handlers; call it again after a library has installed its own."""
        for number in self._heeded:
            signal.signal(number, self._first)

    def _first(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number = number
            self._told()

    def _watch(self, reading: int) -> None:
        """Watch in a thread: Python's handlers wait until a library's function returns, this doesn't."""
        first, came_at = 0, 0.0
        while numbers := os.read(reading, 1):
            number, now = numbers[0], time.monotonic()
            if number not in self._heeded:
                continue
            if not first:
                first, came_at = number, now
            elif number != first or now - came_at >= self._same_s:
                self.number, self.is_urgent = number, True
                self._told()
                if not self._over.wait(self._limit_s):
                    os._exit(SIGNAL_EXIT + self.number)
