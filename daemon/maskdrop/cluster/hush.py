"""Standard error for ourselves alone: Ray's C++ code writes there too, past Python."""

import contextlib
import os
import sys
from collections.abc import Iterator

from maskdrop.quiet import quiet_libraries


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Within, descriptor 2 is silenced, and only Python's ``sys.stderr`` is heard. Anything that replaces
    ``sys.stderr`` for a time, as a progress bar does, has to begin and end within."""
    before = sys.stderr
    heard = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    with quiet_libraries():
        if before is sys.__stderr__:  # else it is a caller's own, which doesn't write to descriptor 2
            sys.stderr = heard
        try:
            yield
        finally:
            sys.stderr = before
            with contextlib.suppress(OSError):  # the terminal may be gone
                heard.close()
