"""How much of their time each stage's workers spend on pictures. Pure: times are passed in."""

from collections import deque
from collections.abc import Mapping

from maskdrop.ticket import Stage

WINDOW_S = 10.0
"""Shares cover about this many seconds, or the last interval of the health file if that is longer."""

_MOST_SAMPLES = 256


class BusyTime:
    """Adds up the worker-seconds of each stage.

    The supervisor says after each round of its loop how many workers are working on a picture. That
    can't change before the next round, because only the loop hears from workers. So the sum is exact
    and needs no clock of its own.
    """

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = dict.fromkeys(Stage, 0.0)
        self._at_work: Mapping[Stage, float] = {}
        self._noted_at = 0.0
        self._samples: deque[tuple[float, Mapping[Stage, float]]] = deque(maxlen=_MOST_SAMPLES)

    def note(self, now: float, at_work: Mapping[Stage, float]) -> None:
        """Note how many workers of each stage are working on a picture from now on. A worker that could take
        more pictures at the same time may count as a fraction."""
        for stage, workers in self._at_work.items():
            self.seconds[stage] += workers * (now - self._noted_at)
        self._at_work, self._noted_at = at_work, now

    def note_rest(self, now: float) -> None:
        """Note that nobody worked on a picture since the last sample, and add one, as `shares` does."""
        if self._samples:
            self._add_sample(now, self._samples[-1][1])

    def shares(self, now: float, workers: Mapping[Stage, int]) -> dict[Stage, float]:
        """For each stage, the share (0 to 1) of its workers' time that was spent on pictures since about
        `WINDOW_S` ago. Each call is also a sample for later ones."""
        self.note(now, self._at_work)
        self._add_sample(now, dict(self.seconds))
        since, then = self._samples[0]
        shares = {}
        for stage, count in workers.items():
            available = count * (now - since)
            spent = self.seconds[stage] - then[stage]
            shares[stage] = min(1.0, spent / available) if available > 0 else 0.0
        return shares

    def _add_sample(self, now: float, seconds: Mapping[Stage, float]) -> None:
        self._samples.append((now, seconds))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_S:
            self._samples.popleft()
