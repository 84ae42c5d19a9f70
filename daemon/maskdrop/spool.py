"""Records kept on disk instead of in memory: any number of them, read any number of times."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any


class SpoolFull(OSError):
    """A record can't be kept; the error's ``filename`` is the folder for temporary files."""

    @property
    def told(self) -> str:
        """What is wrong and what to do, on one line."""
        return f"{self.filename}: {self.strerror}; make room there, or set TMPDIR"


class Spool:
    """JSON objects in an unnamed temporary file, in the order in which they came."""

    def __init__(self, prefix: str) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix=prefix)  # noqa: SIM115

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a record, even while others read.

        Raises:
            SpoolFull: the disk is full, or fails.
        """
        try:
            self._file.seek(0, 2)
            self._file.write(json.dumps(record).encode("ascii") + b"\n")
        except OSError as error:
            raise SpoolFull(error.errno, error.strerror, tempfile.gettempdir()) from error

    def __iter__(self) -> Iterator[dict[str, Any]]:
        position = 0
        while True:
            self._file.seek(position)
            line = self._file.readline()
            if not line:
                return
            position += len(line)
            yield json.loads(line)

    def close(self) -> None:
        self._file.close()
