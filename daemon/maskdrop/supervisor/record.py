"""What happened so far, in numbers: counts, throughput, durations, and the latest pictures."""

import statistics
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from maskdrop.death import Ending
from maskdrop.health.file import Latest, QuarantinedPicture, SavedPicture
from maskdrop.health.totals import Histogram
from maskdrop.ticket import Absence, Stage

_WINDOW_S = 10.0
_LATENCIES = 1_000

TIMED = ("settle", "preprocess", "infer", "locate", "infer again", "save", "total")
"""What is timed of a picture, in order; names as in the log's ``in ms``."""

LATEST = 10
"""Pictures of each kind that the health file names."""


class Durations:
    """How long one stage, or the whole, took: a histogram since start, percentiles of the latest thousand."""

    def __init__(self) -> None:
        self.histogram = Histogram()
        self._latest: deque[float] = deque(maxlen=_LATENCIES)
        self._percentiles: dict[str, float | None] | None = {"p50": None, "p99": None}

    def note(self, milliseconds: float) -> None:
        self.histogram.note(milliseconds / 1000)
        self._latest.append(milliseconds)
        self._percentiles = None

    def percentiles(self) -> dict[str, float | None]:
        """``p50`` and ``p99`` in milliseconds; None before the first picture. They are computed again only
        when there is something new: a daemon may ask each second."""
        if self._percentiles is None:
            values = [*self._latest] * (2 if len(self._latest) == 1 else 1)
            cuts = statistics.quantiles(values, n=100, method="inclusive")
            self._percentiles = {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)}
        return self._percentiles


@dataclass
class Record:
    """Counts since start, and the latest pictures. `Journal` is its only writer."""

    accepted: int = 0
    saved: int = 0
    retried: int = 0
    quarantined_at: Counter[Stage] = field(default_factory=Counter)
    left_as: Counter[Absence] = field(default_factory=Counter)
    deaths: Counter[tuple[Stage, Ending]] = field(default_factory=Counter)
    durations: dict[str, Durations] = field(default_factory=lambda: {name: Durations() for name in TIMED})
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))
    _saved: deque[SavedPicture] = field(default_factory=lambda: deque(maxlen=LATEST))
    _quarantined: deque[QuarantinedPicture] = field(default_factory=lambda: deque(maxlen=LATEST))

    @property
    def quarantined(self) -> int:
        return self.quarantined_at.total()

    @property
    def left(self) -> int:
        return self.left_as.total()

    def note_saved(self, now: float, milliseconds: Mapping[str, float], picture: SavedPicture) -> None:
        """A picture was saved, and took so long in each stage."""
        self.saved += 1
        self._ends.append(now)
        self._saved.appendleft(picture)
        self._note_durations(milliseconds)

    def note_quarantined(
        self, stage: Stage, milliseconds: Mapping[str, float], picture: QuarantinedPicture
    ) -> None:
        """A picture went to quarantine, and took so long in each stage it got through."""
        self.quarantined_at[stage] += 1
        self._quarantined.appendleft(picture)
        self._note_durations(milliseconds)

    def percentiles_of(self, stage: str) -> dict[str, float | None]:
        """``p50`` and ``p99`` in milliseconds of the last thousand pictures; None before the first one."""
        return self.durations[stage].percentiles()

    def latest(self) -> Latest:
        """The latest pictures, the newest first."""
        return Latest(list(self._saved), list(self._quarantined))

    def throughput(self, now: float) -> float:
        """Pictures saved a second, over the last ten seconds."""
        while self._ends and now - self._ends[0] > _WINDOW_S:
            self._ends.popleft()
        return len(self._ends) / _WINDOW_S

    def _note_durations(self, milliseconds: Mapping[str, float]) -> None:
        for stage, spent in milliseconds.items():
            self.durations[stage].note(spent)
