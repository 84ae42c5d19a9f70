"""Standard error for ourselves alone: Ray's C++ part writes there too, past Python."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

_STDERR = 2


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Within, who writes to descriptor 2 is not heard, and Python's ``sys.stderr`` is. What takes
    ``sys.stderr`` over for a time, as a bar does, has to begin and to end within."""
    before, heard = sys.stderr, os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    if _is_standard_error(before):
        before.flush()
        sys.stderr = open(  # noqa: SIM115 - a descriptor, closed by its number
            heard, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the terminal may be gone
            sys.stderr.flush()
        sys.stderr = before
        os.dup2(heard, _STDERR)
        os.close(heard)


def _is_standard_error(stream: object) -> bool:
    try:
        return isinstance(stream, io.IOBase) and stream.fileno() == _STDERR
    except OSError:  # it only looks like a file
        return False
