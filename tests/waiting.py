"""Waiting for what must come true, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 90.0

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, seconds: float = PATIENCE_S) -> T:
    """The condition's first true value.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.02)
