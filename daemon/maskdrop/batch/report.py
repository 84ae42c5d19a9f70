"""What a batch has done: a summary for people, JSON and CSV for programs, written picture by picture."""

import csv
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from maskdrop.batch.ledger import Entry, Ledger, Outcome
from maskdrop.names import printable, told_exactly

_COLUMNS = ("path", "outcome", "outputs", "quarantine", "error", "message", "total_ms", "work_ms", "hex")


class Passed(Protocol):
    """What a batch passed over: entries that are no files, and folders that can't be read."""

    left_alone: int
    unread: int


class Batch(Protocol):
    """What a report needs to know of a batch, whichever engine ran it.

    Attributes:
        total: files that are there; None until they are counted.
        end_signal: number of the signal that ended it early; 0: none.
        given_up: pictures that were in flight when its drain was cut short: the next run does them.
        statistics: what its engine reports about itself, if anything.
    """

    ledger: Ledger
    seconds: float

    @property
    def end_signal(self) -> int: ...

    @property
    def total(self) -> int | None: ...

    @property
    def done(self) -> int: ...

    @property
    def is_complete(self) -> bool: ...

    @property
    def given_up(self) -> int: ...

    @property
    def statistics(self) -> Sequence[str]: ...

    @property
    def passed(self) -> Passed | None: ...


def write_json(batch: Batch, out: TextIO) -> None:
    """One object, with a line for each picture."""
    out.write('{\n  "pictures": [')
    separator = "\n"
    for entry in batch.ledger:
        out.write(f"{separator}    {json.dumps(_told(entry))}")
        separator = ",\n"
    out.write(f"\n  ],\n  {json.dumps(_summary(batch))[1:-1]}\n}}\n")


def write_csv(batch: Batch, out: TextIO) -> None:
    """A heading, and a record for each picture (RFC 4180); several outputs are separated by line feeds."""
    writer: csv.DictWriter[str] = csv.DictWriter(out, _COLUMNS, restval="")
    writer.writeheader()
    for entry in batch.ledger:
        told = _told(entry)
        times = told.pop("ms")
        row = {**told, "outputs": "\n".join(told["outputs"]), "work_ms": round(entry.work_ms, 1)}
        writer.writerow({**row, "total_ms": times["total"]})


WRITERS: dict[str, Callable[[Batch, TextIO], None]] = {".json": write_json, ".csv": write_csv}
"""Writers, by the ending of the report's name."""


def write_report(batch: Batch, path: Path) -> None:
    """Write the report whole, or not at all.

    Raises:
        OSError: it can't be written.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=".maskdrop-", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123 - a descriptor
            WRITERS[path.suffix](batch, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def summary(batch: Batch) -> list[str]:
    """Lines for people: the slowest pictures, those broken or left, and last the number of each outcome."""
    lines = []
    if batch.ledger.slowest:
        lines.append("slowest:")
    for entry in batch.ledger.slowest:
        stages = ", ".join(f"{stage} {ms:.0f}" for stage, ms in entry.ms.items() if stage != "total")
        lines.append(f"  {entry.work_ms:.0f} ms  {printable(entry.path)} ({stages})")
    not_done = batch.ledger.not_done
    if not_done:
        lines.append("not done:")
    for entry in not_done:
        where = f", copied to {printable(entry.quarantine)}" if entry.quarantine else ""
        why = printable(f"{entry.error}: {entry.message}")
        lines.append(f"  {entry.outcome.value}  {printable(entry.path)}: {why}{where}")
    counts = batch.ledger.counts
    more = counts[Outcome.BROKEN] + counts[Outcome.LEFT] - len(not_done)
    if more:
        lines.append(f"  and {more:,} more; --report names them all")
    return [*lines, _summary_line(batch)]


def _summary_line(batch: Batch) -> str:
    counts = batch.ledger.counts
    rate = counts[Outcome.SAVED] / batch.seconds if batch.seconds else 0.0
    line = ", ".join(f"{counts[outcome]:,} {outcome.value}" for outcome in Outcome)
    line = f"{line} of {batch.total or 0:,} files in {batch.seconds:.1f} s ({rate:.1f} saved/s)"
    passed = batch.passed
    if passed is not None and passed.left_alone:
        line += f"; left alone {passed.left_alone:,} that are no files"
    if passed is not None and passed.unread:
        line += f"; {passed.unread:,} folders can't be read"
    if batch.given_up:
        line += f"; gave up {batch.given_up:,} that were in flight"
    return line + ("; interrupted: the same command goes on from here" if batch.end_signal else "")


def _summary(batch: Batch) -> dict[str, Any]:
    counts, passed = batch.ledger.counts, batch.passed
    return {
        "files": batch.total or 0,
        **{outcome.name.lower(): counts[outcome] for outcome in Outcome},
        "left_alone": passed.left_alone if passed is not None else 0,
        "unread_folders": passed.unread if passed is not None else 0,
        "seconds": round(batch.seconds, 3),
        "interrupted": bool(batch.end_signal),
        "given_up": batch.given_up,
        "slowest": [printable(entry.path) for entry in batch.ledger.slowest],
    }


def _told(entry: Entry) -> dict[str, Any]:
    return {
        **told_exactly(entry.path),
        "outcome": entry.outcome.value,
        "outputs": [printable(name) for name in entry.outputs],
        "quarantine": printable(entry.quarantine),
        "error": entry.error,
        "message": printable(entry.message),
        "ms": dict(entry.ms),
    }
