"""Waiting for what must come true, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 90.0

_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, seconds: float = PATIENCE_S) -> T:
    """The condition's first true value.

    To look takes a fifth of the time at most: what is waited for needs the processors too.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(min(_LONGEST_PAUSE_S, max(_PAUSE_S, 4 * (now - began))))
