"""What happened since the daemon started, in numbers that only grow."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

BUCKETS_S = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds of a histogram's buckets, in seconds: from a small picture's decoding on a fast
machine to a hundred million pixels on a slow one. One more bucket, without a bound, is above them."""


@dataclass
class Histogram:
    """How many durations fell into each bucket; the last of ``counts`` is for those above all bounds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def note(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def copy(self) -> "Histogram":
        return Histogram(list(self.counts), self.sum_s)


@dataclass(frozen=True)
class Totals:
    """Counts and times since the start, at one moment; never changed afterwards.

    Attributes:
        quarantined: pictures by stage.
        left: pictures by absence.
        deaths: workers by stage and kind of end.
        restarts: workers that were started in place of dead ones, by stage.
        busy_s: seconds that a stage's workers worked at pictures, added up, by stage.
        durations: by stage as in the log's ``in ms``, and as ``total`` for pictures that were saved.
    """

    quarantined: Mapping[str, int]
    left: Mapping[str, int]
    deaths: Mapping[tuple[str, str], int]
    restarts: Mapping[str, int]
    busy_s: Mapping[str, float]
    durations: Mapping[str, Histogram]
