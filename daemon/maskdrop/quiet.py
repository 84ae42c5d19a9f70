"""Keeps libraries that write to standard error by themselves from filling the log."""

import contextlib
import os
from collections.abc import Iterator

_STDERR = 2


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Discard whatever is written to descriptor 2 meanwhile. Only for processes with one thread.

    libtiff writes a line for each damaged scanline, and Pillow gives no way to stop it: a
    small file could fill the log. What is wrong with a picture, the exception says.
    """
    kept = os.dup(_STDERR)
    nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(nothing, _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(nothing)
        os.close(kept)
