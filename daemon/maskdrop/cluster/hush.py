"""Standard error for ourselves alone: Ray's C++ part writes there too, past Python."""

import contextlib
import os
import sys
from collections.abc import Iterator

from maskdrop.quiet import quiet_libraries


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Within, who writes to descriptor 2 is not heard, and Python's ``sys.stderr`` is. What takes
    ``sys.stderr`` over for a time, as a bar does, has to begin and to end within."""
    before = sys.stderr
    heard = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    with quiet_libraries():
        if before is sys.__stderr__:  # else it is a caller's own, and not descriptor 2's
            sys.stderr = heard
        try:
            yield
        finally:
            sys.stderr = before
            with contextlib.suppress(OSError):  # the terminal may be gone
                heard.close()
