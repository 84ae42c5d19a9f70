"""What travels between a cluster's stages: pictures' records and pixels, many in one Arrow table."""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from maskdrop.batch.ledger import Outcome
from maskdrop.leave_alone import LeaveAlone, UnfitName
from maskdrop.ticket import Facts, Fault, Judged, Region, cut

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class End:
    """What became of a picture.

    Attributes:
        results: addresses relative to OUT.
        classes: names of those in its labels, at the picture's own size.
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
    """A picture on its way: like a ticket, but valid on every machine.

    Attributes:
        path: relative to IN, as the os functions give it.
        size: in bytes; -1 until it is read, if the listing doesn't give it.
        known: the SHA-256 in the manifest's row, or the text of `found_unread`; "": no row.
        is_shared: whether another input wants the same names for its results.
        is_small: whether its first labels show faces that deserve a second look.
        attempts: how often it was tried, once it is at fault.
        ms: milliseconds spent in each stage.
        end: None until there is nothing more to do.
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


def found_unread(error: str, size: int) -> str:
    """What identifies a broken picture that was never read, and so has no SHA-256."""
    return f"{error} of {size} bytes" if size >= 0 else ""


@dataclass(frozen=True)
class Piece:
    """A picture's record and what the next stages need of it.

    Attributes:
        pixels: uint8 (side, side, 3), or (views, side, side, 3).
        labels: uint8 (side, side), or (views, side, side).
        content: the original's bytes, where it isn't to be read again.
    """

    work: Work
    pixels: Pixels | None = None
    labels: Pixels | None = None
    content: bytes | None = None


def left_for(work: Work, error: Exception) -> Piece:
    """The picture, left because of this error."""
    name = type(error).__name__
    if isinstance(error, LeaveAlone) and not isinstance(error, UnfitName):
        name = error.absence.value
    return Piece(replace(work, end=End(Outcome.LEFT, error=name, message=cut(error))))


def packed(pieces: Iterable[Piece]) -> pa.Table:
    """A table with a row for each piece."""
    rows = list(pieces)
    columns: dict[str, Any] = {"work": pa.array([pickle.dumps(piece.work) for piece in rows], pa.binary())}
    for name in ("pixels", "labels"):
        values = [getattr(piece, name) for piece in rows]
        if any(value is not None for value in values):
            columns[name] = _column(values)
            shapes = [None if value is None else list(value.shape) for value in values]
            columns[f"{name}_shape"] = pa.array(shapes, pa.list_(pa.int32()))
    contents = [piece.content for piece in rows]
    if any(content is not None for content in contents):
        columns["content"] = pa.array(contents, pa.large_binary())
    return pa.table(columns)


def unpacked(table: pa.Table) -> list[Piece]:
    """The pieces in a table; their pixels are not copied, and are read-only."""
    works = [pickle.loads(work) for work in table["work"].to_pylist()]
    has_content = "content" in table.column_names
    contents = table["content"].to_pylist() if has_content else [None] * table.num_rows
    return list(map(Piece, works, _arrays(table, "pixels"), _arrays(table, "labels"), contents))


def stacked(values: Sequence[Pixels]) -> Pixels:
    """Arrays of one shape, stacked along a new first axis. If they already lie one behind the other, nothing
    is copied, and the result is read-only."""
    flat: Pixels = np.frombuffer(_in_a_row(values), np.uint8)
    return flat.reshape(len(values), *values[0].shape)


def _column(values: Sequence[Pixels | None]) -> pa.Array:
    ends = np.cumsum([0, *(0 if value is None else value.size for value in values)], dtype=np.int64)
    valid = pa.array([value is not None for value in values]).buffers()[1]  # Arrow's bitmap
    data = _in_a_row([value for value in values if value is not None])
    return pa.Array.from_buffers(pa.large_binary(), len(values), [valid, pa.py_buffer(ends), data])


def _in_a_row(values: Sequence[Pixels]) -> pa.Buffer:
    """The bytes of all: in place if each begins where the one before it ends, else copied once. pyarrow's
    builder would copy them again each time it grows."""
    sizes = [value.size for value in values]
    begins = [value.__array_interface__["data"][0] for value in values]
    ends = [begin + size for begin, size in zip(begins, sizes, strict=True)]
    if values and begins[1:] == ends[:-1] and all(value.flags.c_contiguous for value in values):
        return pa.foreign_buffer(begins[0], sum(sizes), list(values))
    data: Pixels = np.empty(sum(sizes), np.uint8)
    for value, end in zip(values, accumulate(sizes), strict=True):
        data[end - value.size : end].reshape(value.shape)[...] = value
    return pa.py_buffer(data)


def _arrays(table: pa.Table, name: str) -> list[Pixels | None]:
    """A column's values, taken from its buffers: pyarrow would copy each single value."""
    if not table.num_rows or name not in table.column_names:
        return [None] * table.num_rows
    chunked = table[name]
    column = chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()  # always copies
    shapes = table[f"{name}_shape"].to_pylist()
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    flat: Pixels = np.frombuffer(b"" if data is None else data, np.uint8)
    return [
        None if shape is None else flat[begin:end].reshape(shape)
        for shape, (begin, end) in zip(shapes, pairwise(ends), strict=True)
    ]
