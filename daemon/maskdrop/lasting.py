"""Libraries that stay for as long as the process does: their import, and its end."""

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def lasting_imports() -> Iterator[None]:
    """What is there when this ends is never looked through for garbage, nor while it is imported.

    PyTorch makes a quarter of a million objects, and none of them becomes garbage: the collector would
    pass over all of them again and again, on the way in, with every full collection, and at exit.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def leave(code: int) -> NoReturn:
    """End this process, of which nothing else is on its way anywhere, and no child is left.

    Taking PyTorch apart, module by module, takes a sixth of the time that importing it does; the kernel
    takes all of it at once.
    """
    with contextlib.suppress(OSError):  # nobody may be there to read it any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
