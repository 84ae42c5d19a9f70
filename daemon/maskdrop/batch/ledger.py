"""What became of each picture, kept on disk: a report on 100,000 takes no more memory than one on ten."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from maskdrop.spool import Spool

SLOWEST = 5
"""Pictures that the summary names as the slowest."""

MOST_NAMED = 20
"""Most broken or left pictures that the summary names."""

_WAITING = ("settle", "total")


class Outcome(StrEnum):
    """What became of a picture."""

    SAVED = "saved"
    DONE_BEFORE = "done before"
    BROKEN = "broken"
    LEFT = "left"


@dataclass(frozen=True)
class Entry:
    """A picture that is done with.

    Attributes:
        path: relative to the folder, as the os functions give it.
        outputs: its results, relative to the outbox.
        quarantine: its copy, relative to the quarantine; "" where there is none.
        error, message: why it is broken, or was left.
        ms: milliseconds spent in each stage, and ``total`` from its acceptance to its end.
    """

    path: str
    outcome: Outcome
    outputs: tuple[str, ...] = ()
    quarantine: str = ""
    error: str = ""
    message: str = ""
    ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def work_ms(self) -> float:
        """Milliseconds in which the picture was worked on: in all stages but settle."""
        return sum(spent for stage, spent in self.ms.items() if stage not in _WAITING)


class Ledger:
    """Entries in an unnamed temporary file, in the order in which they came, and what the summary names."""

    def __init__(self) -> None:
        self._spool = Spool("maskdrop-batch-")
        self._slowest: list[tuple[float, int, Entry]] = []
        self.counts: Counter[Outcome] = Counter()
        self.not_done: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Note a picture's end."""
        self._spool.add(asdict(entry))
        self.counts[entry.outcome] += 1
        if entry.outcome is Outcome.SAVED:
            heapq.heappush(self._slowest, (entry.work_ms, -self.counts.total(), entry))
            if len(self._slowest) > SLOWEST:
                heapq.heappop(self._slowest)
        elif entry.outcome is not Outcome.DONE_BEFORE and len(self.not_done) < MOST_NAMED:
            self.not_done.append(entry)

    @property
    def slowest(self) -> list[Entry]:
        """The saved pictures that took the most work, the slowest first."""
        return [entry for _, _, entry in sorted(self._slowest, reverse=True)]

    def __iter__(self) -> Iterator[Entry]:
        for told in self._spool:
            outcome, outputs = Outcome(told.pop("outcome")), tuple(told.pop("outputs"))
            yield Entry(outcome=outcome, outputs=outputs, **told)

    def close(self) -> None:
        self._spool.close()
