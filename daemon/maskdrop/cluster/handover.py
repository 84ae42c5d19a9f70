"""Going through something slow in a thread of its own, so that a signal is seen at once meanwhile."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

_PORTION, _AHEAD = 1000, 8
"""Things that are handed over at once, for each time costs both threads something; and portions that wait."""

_LOOK_S = 0.1
"""Seconds after which it is looked whether it is over; a signal's handler runs in the main thread at once."""


def handed_over(things: Iterable[T], is_over: Callable[[], bool]) -> Iterator[T]:
    """All of them, in their order; no more once it is over, however long the next one takes to come.

    What the thread is waiting for then, is not waited for.

    Raises:
        Exception: what going through them raised.
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
