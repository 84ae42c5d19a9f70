"""What this process asks the system for, as Python's audit events tell (sys.addaudithook)."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def audited(wanted: str) -> Iterator[list[object]]:
    """The first arguments of all events of this name while the context lasts."""
    heard: list[object] = []
    listens = threading.Event()

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event == wanted and listens.is_set():
            heard.append(arguments[0])

    sys.addaudithook(hear)  # for good: there is no way to take it away
    listens.set()
    try:
        yield heard
    finally:
        listens.clear()
