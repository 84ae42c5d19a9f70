"""Libraries that stay as long as the process does: how they are imported, and how the process ends."""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def lasting_imports() -> Iterator[None]:
    """Keep the garbage collector off during these imports, and off all objects that exist after them.

    PyTorch makes a quarter of a million objects, none of which becomes garbage: the collector would go
    through all of them again and again, during the import, at every full collection, and at exit.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def leave(code: int) -> NoReturn:
    """End this process at once, once it has nothing left to send or write, and no child.

    Taking PyTorch apart, module by module, takes a sixth of the time of importing it; the kernel frees
    all of it at once.
    """
    with contextlib.suppress(OSError):  # its reader may be gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
