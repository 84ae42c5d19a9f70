"""Importing libraries that stay for as long as the process does."""

import contextlib
import gc
from collections.abc import Iterator


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
