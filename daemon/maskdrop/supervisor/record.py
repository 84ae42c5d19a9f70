"""What happened so far, in numbers: counts, throughput, latency."""

import statistics
from collections import deque
from dataclasses import dataclass, field

_WINDOW_S = 10.0
_LATENCIES = 1_000


@dataclass
class Record:
    """Counts since start, and the latest pictures' times. The supervisor is its only writer."""

    accepted: int = 0
    saved: int = 0
    quarantined: int = 0
    retried: int = 0
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))

    def note_saved(self, now: float, milliseconds: float) -> None:
        """A picture was saved, so long after it was accepted."""
        self.saved += 1
        self._ends.append(now)
        self._latencies.append(milliseconds)

    def throughput(self, now: float) -> float:
        """Pictures saved a second, over the last ten seconds."""
        while self._ends and now - self._ends[0] > _WINDOW_S:
            self._ends.popleft()
        return len(self._ends) / _WINDOW_S

    def percentile(self, percent: int) -> float | None:
        """Latency in milliseconds of the last thousand pictures; None before the first two."""
        if len(self._latencies) < 2:
            return self._latencies[0] if self._latencies else None
        return statistics.quantiles(self._latencies, n=100, method="inclusive")[percent - 1]
