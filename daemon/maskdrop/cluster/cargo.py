"""What travels between a cluster's stages: pictures' records and pixels, many in one Arrow table."""

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskdrop.batch.ledger import Outcome
from maskdrop.ticket import Facts, Fault, Judged, Region

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class End:
    """What became of a picture.

    Attributes:
        results: addresses relative to OUT.
        classes: names of those in its labels.
        quarantine: address of its copy, relative to the quarantine; "" where there is none.
        error, message: why it is broken, or was left.
    """

    outcome: Outcome
    results: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    quarantine: str = ""
    error: str = ""
    message: str = ""


@dataclass(frozen=True)
class Work:
    """A picture on its way; as a ticket, but true on every machine.

    Attributes:
        path: relative to IN, as the os functions give it.
        size: in bytes; -1 until it is read, where the list doesn't tell.
        known: the SHA-256 of which the manifest has a row; "": none.
        is_shared: whether another input has the same stem in the same folder.
        is_small: whether its first labels show faces that deserve a second look.
        attempts: how often it was tried, once it is at fault.
        ms: milliseconds spent in each stage.
        end: once there is nothing more to do.
    """

    path: str
    size: int
    known: str = ""
    is_shared: bool = False
    sha256: str = ""
    facts: Facts | None = None
    fault: Fault | None = None
    attempts: int = 1
    is_small: bool = False
    regions: tuple[Region, ...] = ()
    judged: Judged | None = None
    ms: Mapping[str, float] = field(default_factory=dict)
    end: End | None = None

    @property
    def is_on_its_way(self) -> bool:
        """Whether the next stage has something to do with its pixels."""
        return self.end is None and self.fault is None


@dataclass(frozen=True)
class Piece:
    """A picture's record and what the next stages need of it.

    Attributes:
        pixels: uint8 (side, side, 3), or (views, side, side, 3).
        labels: uint8 (side, side), or (views, side, side).
        content: the original, where it isn't to be read once more.
    """

    work: Work
    pixels: Pixels | None = None
    labels: Pixels | None = None
    content: bytes | None = None


def packed(pieces: Iterable[Piece]) -> pa.Table:
    """A table with a row for each."""
    rows = list(pieces)
    columns: dict[str, Any] = {"work": pa.array([pickle.dumps(piece.work) for piece in rows], pa.binary())}
    for name in ("pixels", "labels", "content"):
        values = [getattr(piece, name) for piece in rows]
        if any(value is not None for value in values):
            columns[name] = pa.array([_flat(value) for value in values], pa.large_binary())
            columns[f"{name}_shape"] = pa.array([_shape(value) for value in values], pa.list_(pa.int32()))
    return pa.table(columns)


def unpacked(table: pa.Table) -> list[Piece]:
    """The rows of a table; pixels stay where they are, and can't be written to."""
    pieces = []
    for row in range(table.num_rows):
        given = {name: _array(table, name, row) for name in ("pixels", "labels")}
        content = table["content"][row].as_py() if "content" in table.column_names else None
        pieces.append(Piece(pickle.loads(table["work"][row].as_py()), **given, content=content))
    return pieces


def _flat(value: Pixels | bytes | None) -> bytes | memoryview | None:
    if value is None or isinstance(value, bytes):
        return value
    return np.ascontiguousarray(value).data.cast("B")


def _shape(value: Pixels | bytes | None) -> list[int] | None:
    return list(value.shape) if isinstance(value, np.ndarray) else None


def _array(table: pa.Table, name: str, row: int) -> Pixels | None:
    if name not in table.column_names or not table[name][row].is_valid:
        return None
    flat: Pixels = np.frombuffer(table[name][row].as_buffer(), dtype=np.uint8)
    return flat.reshape(table[f"{name}_shape"][row].as_py())
