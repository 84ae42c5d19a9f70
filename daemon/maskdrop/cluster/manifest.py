"""The manifest: a row for each picture, in Parquet files that are written whole and read as one."""

import io
import logging
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from maskdrop.batch.ledger import Outcome
from maskdrop.beneath import NotAFile
from maskdrop.cluster.cargo import Work, found_unread
from maskdrop.cluster.stores import MANIFEST, Store
from maskdrop.config_file import ConfigurationError, fault
from maskdrop.death import Ending
from maskdrop.durable import FolderTrouble
from maskdrop.names import printable

logger = logging.getLogger("maskdrop")

PART_ROWS = 10_000
"""Most rows in a part."""

PART_S = 30.0
"""Seconds after which rows are written, however few."""

SCHEMA = pa.schema(
    [
        pa.field("input", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("result", pa.list_(pa.string())),
        pa.field("classes", pa.list_(pa.string())),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("quarantine", pa.string()),
        pa.field("milliseconds", pa.float64()),
        pa.field("stages", pa.map_(pa.string(), pa.float64())),
        pa.field("time", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("hex", pa.string()),
    ]
)

_BASE = b"maskdrop.in"
"""Key of a part's metadata: the place below which its inputs lie. Older parts have none."""

_NEEDED = ["input", "size", "sha256", "outcome", "hex", "error", "message", "quarantine"]
"""Columns that the next run reads."""

_DONE = (Outcome.SAVED.value, Outcome.BROKEN.value)
"""Outcomes that would be the same again for the same content. Not so for pictures that were left, nor for
those that a process died at (``error`` says so): the machine may have been at fault."""


class _Damaged(Exception):
    """A file has a part's name, but isn't one; the message says why."""


def row_of(work: Work) -> dict[str, Any]:
    """The row of a picture that is done with. Odd names are shown escaped, and given exactly in ``hex``."""
    assert work.end is not None
    end, shown = work.end, printable(work.path)
    return {
        "input": shown,
        "size": work.size if work.size >= 0 else None,
        "sha256": work.sha256 or None,
        "outcome": end.outcome.value,
        "result": [printable(name) for name in end.results],
        "classes": list(end.classes),
        "error": end.error or None,
        "message": printable(end.message) or None,
        "quarantine": printable(end.quarantine) or None,
        "milliseconds": round(sum(work.ms.values()), 1),
        "stages": [(stage, round(spent, 1)) for stage, spent in work.ms.items()],
        "time": datetime.now(UTC),
        "hex": os.fsencode(work.path).hex() if shown != work.path else None,
    }


@dataclass(frozen=True)
class Row:
    """What the next run needs to know of a row: the part that it is in, and the content that it is about.

    Attributes:
        is_done: whether it would come out the same again.
        size: in bytes; -1: not known.
        error, message, quarantine: of a picture that is broken.
    """

    part: str
    sha256: str
    is_done: bool
    size: int = -1
    error: str = ""
    message: str = ""
    quarantine: str = ""

    @property
    def known(self) -> str:
        """As in `Work.known`."""
        if not self.is_done:
            return ""
        return self.sha256 or found_unread(self.error, self.size)


class Manifest:
    """Owner of the parts; rows wait here until they make one."""

    def __init__(
        self, store: Store, base: str = "", folder: str = MANIFEST, longest_s: float = PART_S
    ) -> None:
        """Prepare.

        Args:
            base: address of the place below which all inputs lie; "": not known.
            longest_s: seconds after which rows are written, however few.
        """
        self._longest_s = longest_s
        self._store, self._folder, self._base = store, folder, base
        self._waiting: list[dict[str, Any]] = []
        self._tried_at, self._failed = time.monotonic(), False
        self._number = 0
        self._renamed: dict[str, str] = {}
        self._removes = True
        self._run = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{os.urandom(4).hex()}"

    def read(self) -> dict[str, Row]:
        """The newest row of each input, by its path. Rows that newer ones have replaced are removed.

        Raises:
            ConfigurationError: a part has the inputs of another place, or is no part of a manifest.
            FolderTrouble: the parts can't be read, or one with replaced rows can't be rewritten.
        """
        rows: dict[str, Row] = {}
        old: dict[str, set[str]] = {}
        for part in self._parts():
            table = self._table(part, _NEEDED)
            self._check_base(table)
            for path, row in _rows(part, table):
                if path in rows:
                    gone = old.setdefault(rows[path].part, set())
                    if rows[path].part != part:
                        gone.add(path)
                rows[path] = row
        self.drop(old)
        return rows

    def add(self, work: Work) -> None:
        """Keep a row for the next part.

        Raises:
            FolderTrouble: a part was due, and can't be written; its rows are kept, and tried again later.
        """
        self._waiting.append(row_of(work))
        is_due = len(self._waiting) >= PART_ROWS and not self._failed
        if is_due or time.monotonic() >= self.due_at:
            self.write()

    @property
    def due_at(self) -> float:
        """When the waiting rows are to be written, in seconds of `time.monotonic`; infinite: none wait."""
        return self._tried_at + self._longest_s if self._waiting else math.inf

    def write(self) -> None:
        """Write the waiting rows, whole and durably.

        Raises:
            FolderTrouble: they can't be written, and are kept.
        """
        self._tried_at, self._failed = time.monotonic(), True
        if self._waiting:
            schema = SCHEMA.with_metadata({_BASE: self._base.encode()} if self._base else None)
            table = pa.Table.from_pylist(self._waiting, schema=schema)
            self._put(f"part-{self._run}-{self._number:06}.parquet", table)
            self._waiting = []
            self._number += 1
        self._failed = False

    def drop(self, replaced: Mapping[str, Iterable[str]]) -> None:
        """Remove the rows of these inputs from these parts, since newer parts have newer rows of them.

        If a part has several rows of another input, because somebody merged parts, the last of them stays.

        A part is rewritten under another name before it is removed, so every row is always in some part. The
        first part that can't be removed stays, as do all after it: only the newest row of an input counts.

        Raises:
            FolderTrouble: a part can't be read or written; it stays as it was.
        """
        for first, paths in replaced.items():
            if self._removes:
                self._drop_from(first, set(paths))

    def _drop_from(self, first: str, gone: set[str]) -> None:
        part = self._renamed.get(first, first)
        table = self._table(part, None)
        keep = _kept([path for path, _ in _rows(part, table)], gone)
        if any(keep):
            self._renamed[first] = renewed = _renewed(part)
            self._put(renewed, table.filter(pa.array(keep)))
        try:
            self._store.remove(f"{self._folder}/{part}")
        except FolderTrouble as error:  # the keys may not be allowed to
            self._removes = False
            logger.warning("replaced rows stay in the manifest, and don't count: %s", error)

    def _put(self, part: str, table: pa.Table) -> None:
        """Write a part. Only one is written at a time, so all share one unfinished name, and what a killed
        batch left under it is replaced."""
        self._store.put(f"{self._folder}/{part}", _encoded(table), unfinished=self._folder)

    def _parts(self) -> list[str]:
        """Names of all parts, the oldest first."""
        try:
            names = self._store.names(self._folder)
        except NotADirectoryError as error:
            raise self._foreign(self._folder, "is no folder of a manifest's parts") from error
        except OSError as error:
            raise self._trouble(self._folder, error) from error
        return [name for name in names if name.endswith(".parquet")]

    def _table(self, part: str, columns: list[str] | None) -> pa.Table:
        name = f"{self._folder}/{part}"
        try:
            return _decoded(self._store.get(name), columns)
        except NotAFile:
            problem = "it is no regular file"
        except _Damaged as error:
            problem = str(error)
        except OSError as error:
            raise self._trouble(name, error) from error
        raise self._foreign(name, f"is no part of a manifest ({problem})")

    def _foreign(self, name: str, problem: str) -> ConfigurationError:
        remedy = "move it elsewhere: pictures that only it has rows of are done again"
        return fault("OUT", f"{self._store.address}/{name}", problem, remedy)

    def _trouble(self, name: str, error: OSError) -> FolderTrouble:
        return FolderTrouble(f"{self._store.address}/{name}", error)

    def _check_base(self, table: pa.Table) -> None:
        """Check that a part is about this IN: rows name pictures by their paths below it, so those of another
        IN could be taken for rows of this one's pictures."""
        base = (table.schema.metadata or {}).get(_BASE, b"").decode("utf-8", "replace")
        if base and self._base and base != self._base:
            problem = f"the manifest in {self._store.address} has rows of another IN, {base}"
            remedy = "give another OUT, or a sub-folder of OUT for each IN"
            raise fault("IN", self._base, problem, remedy)


def _problem(schema: pa.Schema) -> str:
    """What a part's schema lacks for the next run; "": nothing."""
    for name in _NEEDED:
        index = schema.get_field_index(name)
        if index < 0:
            return f"it has no column {name}"
        if schema.field(index).type != SCHEMA.field(name).type:
            return f"its column {name} is of {schema.field(index).type}"
    return ""


def _rows(part: str, table: pa.Table) -> Iterator[tuple[str, Row]]:
    columns = (table[name].to_pylist() for name in _NEEDED)
    for shown, size, sha256, outcome, exact, *told in zip(*columns, strict=True):
        error, message, quarantine = (each or "" for each in told)
        path = os.fsdecode(bytes.fromhex(exact)) if exact else shown
        is_known = bool(sha256) or size is not None
        is_done = outcome in _DONE and is_known and error != Ending.DIED.value
        size = -1 if size is None else size
        yield path, Row(part, sha256 or "", is_done, size, error, message, quarantine)


def _kept(paths: Sequence[str], gone: set[str]) -> list[bool]:
    """For each row of a part, given its input, whether it stays: the last of each input that isn't gone."""
    last = {path: place for place, path in enumerate(paths) if path not in gone}
    return [last.get(path) == place for place, path in enumerate(paths)]


def _renewed(part: str) -> str:
    """The name of a part that replaces another: it sorts right behind the old one, before the next.

    So its rows count if both are there, until the next run removes the old one's.
    """
    found = re.fullmatch(r"(.+?)(?:\.r(\d+))?\.parquet", part)
    assert found is not None, part
    return f"{found[1]}.r{int(found[2] or 0) + 1:06}.parquet"


def _encoded(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _decoded(content: bytes, columns: list[str] | None) -> pa.Table:
    """The table of a part; older ones have no checksums.

    Raises:
        _Damaged: it is no part, or isn't as it was written.
    """
    try:
        file = parquet.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
        if problem := _problem(file.schema_arrow):
            raise _Damaged(problem)
        table = file.read(columns)
        table.validate(full=True)  # nothing else finds text that is no UTF-8
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # Arrow raises OSError for most damage
        raise _Damaged(str(error).partition("\n")[0]) from error
    return table
