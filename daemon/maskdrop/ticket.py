"""What travels through the pipeline instead of pixels: tickets, and facts about pictures."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Stage(Enum):
    """The three kinds of worker, in a picture's order."""

    PREPROCESS = "preprocess"
    INFER = "infer"
    SAVE = "save"


@dataclass(frozen=True)
class Identity:
    """Which file, and which state of it: any change to the file changes this."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @property
    def age(self) -> tuple[int, int]:
        """Sorts files by the time they were written, and those with the same time (copies of a whole folder
        may have that) by inode."""
        return self.mtime_ns, self.inode

    @classmethod
    def of(cls, status: os.stat_result) -> "Identity":
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Ticket:
    """One picture on its way: a number, its path relative to the inbox, the file meant."""

    number: int
    path: str
    identity: Identity


@dataclass(frozen=True)
class Facts:
    """What preprocess learnt: SHA-256 of the file, upright width and height in pixels, and whether
    the file may have metadata that results carry over."""

    sha256: str
    width: int
    height: int
    has_metadata: bool = True


@dataclass(frozen=True)
class Region:
    """A rectangle of an upright picture, in its pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True)
class Judged:
    """How sure the network is of a picture's labels; reported only if a sidecar is wanted.

    Attributes:
        model: SHA-256 of the weights' file.
        confidence: mean over the pixels of the probability of their label (softmax).
        by_class: for each class that is present, its number and the same mean over its pixels.
    """

    model: str
    confidence: float
    by_class: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Cost:
    """What a picture costs a stage.

    Attributes:
        milliseconds: from beginning to end, including waits for a disk or a device.
        processor_ms: processor time of all threads together.
    """

    milliseconds: float
    processor_ms: float


@dataclass(frozen=True)
class Fault:
    """Why a picture can't be processed."""

    stage: Stage
    error: str
    message: str


# Tasks: from the supervisor to a worker.


@dataclass(frozen=True)
class Prepare:
    """Decode the picture into the slot."""

    ticket: Ticket
    slot: int


@dataclass(frozen=True)
class Infer:
    """Label the picture in the slot, or, on a second look, so many views of its faces.

    Attributes:
        company: pictures in flight in all stages, including this one.
    """

    number: int
    slot: int
    views: int = 0
    company: int = 1


@dataclass(frozen=True)
class Locate:
    """Find the faces in the slot's labels, and put a view of each into the slot."""

    ticket: Ticket
    slot: int


@dataclass(frozen=True)
class Save:
    """Write the results of the picture in the slot, then put the original away.

    Attributes:
        regions: where the slot's views are in the picture; empty: the labels are the whole picture's.
        judged: None unless a sidecar is wanted.
        milliseconds: time spent in each stage so far.
    """

    ticket: Ticket
    slot: int
    facts: Facts
    regions: tuple[Region, ...] = ()
    judged: Judged | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Quarantine:
    """Move the picture to quarantine with its reason."""

    ticket: Ticket
    fault: Fault
    attempts: int


@dataclass(frozen=True)
class Stop:
    """Finish what is in hand, then end."""


Task = Prepare | Infer | Locate | Save | Quarantine | Stop


# Reports: from a worker to the supervisor. They are kept small: a write of up to 4,096 bytes (PIPE_BUF,
# pipe(7)), pickled, is whole or absent, whenever its writer is killed. A longer one, with many pictures
# or long names, may be cut short; the supervisor then reads no report.

MESSAGE_LIMIT = 400
"""Longest message in a report, in characters."""


def cut(told: object) -> str:
    """A message, or an error as text, cut to `MESSAGE_LIMIT` characters."""
    return str(told)[:MESSAGE_LIMIT]


@dataclass(frozen=True)
class Ready:
    """The worker can take tasks. An inference worker says what it runs, and on which device; a worker
    that was to measure says what a picture costs."""

    device: str = ""
    model: str = ""
    precision: str = ""
    cost: Cost | None = None


@dataclass(frozen=True)
class Unfit:
    """The worker can never work as configured; the message says why and what to do."""

    message: str


@dataclass(frozen=True)
class Prepared:
    """The picture is in its slot, at the network's size."""

    number: int
    facts: Facts
    milliseconds: float


@dataclass(frozen=True)
class Refused:
    """The picture is at fault."""

    number: int
    fault: Fault


class Absence(Enum):
    """Why a file was left alone."""

    GONE = "gone"
    CHANGED = "changed"
    STUCK = "unreadable"
    """It is there but can't be read, moved, or saved under its name; it is tried again later."""


@dataclass(frozen=True)
class Left:
    """The file is gone, is another one now, or can't be dealt with now."""

    number: int
    absence: Absence
    message: str


@dataclass(frozen=True)
class DoneBefore:
    """An earlier batch saved everything that is wanted of this very content; names as in the outbox."""

    number: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Started:
    """The batch the inference worker computes from now on."""

    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Inferred:
    """Labels are in the slots. The faces in the ``small`` pictures are so small that they deserve a
    second look. If sidecars are wanted, each picture is judged, in the order of ``numbers``."""

    numbers: tuple[int, ...]
    milliseconds: float
    small: tuple[int, ...] = ()
    judged: tuple[Judged, ...] = ()


@dataclass(frozen=True)
class Located:
    """Views of the faces are in the slot; without any, the first labels stand."""

    number: int
    regions: tuple[Region, ...]
    milliseconds: float


@dataclass(frozen=True)
class Saved:
    """Results are on disk and the original is put away; names as in the outbox."""

    number: int
    names: tuple[str, ...]
    milliseconds: float


@dataclass(frozen=True)
class Quarantined:
    """The picture is in quarantine, or only reported where there is none.

    Attributes:
        name: its path relative to the quarantine folder; empty if it isn't there.
    """

    number: int
    name: str


@dataclass(frozen=True)
class Stalled:
    """A folder is at fault (disk full, read-only, vanished), not the picture."""

    number: int
    message: str


Report = (
    Ready
    | Unfit
    | Prepared
    | Refused
    | Left
    | DoneBefore
    | Started
    | Inferred
    | Located
    | Saved
    | Quarantined
    | Stalled
)
