"""Iterating over something slow in a thread of its own, so that a signal is noticed at once."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

_PORTION, _AHEAD = 1000, 8
"""Things handed over at a time, as each hand-over costs both threads; and how many portions may wait."""

_LOOK_S = 0.1
"""Seconds between two looks at ``is_over``; a signal's handler still runs at once, in the main thread."""


def handed_over(things: Iterable[T], is_over: Callable[[], bool]) -> Iterator[T]:
    """All things, in their order, until ``is_over`` says so, however long the next one takes to come.

    The thread is not joined: it may still be waiting for the next one.

    Raises:
        Exception: whatever iterating over ``things`` raised.
    """
    waiting: Queue[list[T] | Exception] = Queue(_AHEAD)
    is_left = Event()

    def hand_over(portion: list[T] | Exception) -> None:
        while not is_left.is_set():
            try:
                waiting.put(portion, timeout=_LOOK_S)
            except Full:
                continue
            return

    def go_through() -> None:
        try:
            left = iter(things)
            while (portion := list(islice(left, _PORTION))) and not is_left.is_set():
                hand_over(portion)
            hand_over([])
        except Exception as error:
            hand_over(error)

    Thread(target=go_through, name="listing", daemon=True).start()
    try:
        while not is_over():
            try:
                portion = waiting.get(timeout=_LOOK_S)
            except Empty:
                continue
            if isinstance(portion, Exception):
                raise portion
            if not portion:
                return
            yield from portion
    finally:
        is_left.set()
