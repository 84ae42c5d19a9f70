"""Batches on a GPU: while it computes one, the next is copied to it and the last one back.

A GPU does later what it is asked for: copies and layers wait in a stream, and follow each other there (CUDA
C++ Programming Guide, "Asynchronous Concurrent Execution"). Streams run side by side, and batches take turns
with two of them. So no tensor is ever used in two streams, and memory that a stream is done with serves its
next batch. A CPU does everything at once; there, beginning a batch completes it.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Generic, TypeVar

import torch

Labelled = TypeVar("Labelled")

TakeIn = Callable[[], list[Labelled]]
"""Returns a result for each of some pictures, once the device has done what it was asked for."""

STREAMS = 2
"""How many streams take turns: while one computes, the other one copies."""


@dataclass(frozen=True)
class _Asked(Generic[Labelled]):
    """Some pictures that the device was asked to label.

    Attributes:
        event: happens when the device is done with all of them.
        outcome: the results that were then taken in, or why the pictures can't be labelled.
    """

    part: slice
    event: Any
    take_in: TakeIn[Labelled]
    outcome: "Future[list[Labelled]]"

    def settle(self) -> None:
        """Take in the results, unless that was done."""
        if self.outcome.done():
            return
        try:
            self.outcome.set_result(self.take_in())
        except Exception as error:
            self.outcome.set_exception(error)


@dataclass(frozen=True)
class Queued(Generic[Labelled]):
    """Pictures that the device was asked to label, or has labelled: see `maskdrop.model.under_way.UnderWay`.

    Unless the device was done when they began, they count as unfinished until `results` takes them in. So to
    keep the device at work, the next batch has to begin before that.
    """

    asked: list[_Asked[Labelled]]

    @property
    def unfinished(self) -> list[int]:
        waiting = [one.part for one in self.asked if not one.outcome.done()]
        return [at for part in waiting for at in range(part.start, part.stop)]

    def results(self) -> list[Labelled]:
        for one in self.asked:
            one.event.synchronize()  # even where asking failed half-way: nothing may be written later
            one.settle()
        return [done for one in self.asked for done in one.outcome.result()]


class Streams:
    """Streams of one device that take turns. Making them waits for all that the device was asked for before.

    Args:
        module: PyTorch's module for that kind of device, such as ``torch.cuda``.
        at_once: whether `begin` waits until each part is done, so that nothing is waited for later.
    """

    def __init__(self, device: torch.device, module: Any, at_once: bool = False) -> None:
        self._device, self._module, self._at_once = device, module, at_once
        self.wait_for_rest()
        self._streams = cycle([self._module.Stream(device) for _ in range(STREAMS)])

    def begin(self, ask: Callable[[slice], TakeIn[Labelled]], parts: Iterable[slice]) -> Queued[Labelled]:
        """Ask the device to label pictures, part by part, each in the stream whose turn it is, up to the
        first part that is known to fail.

        Args:
            ask: asks the device to label a part, and waits for nothing.
        """
        asked = []
        for part in parts:
            one = self._asked(ask, part)
            asked.append(one)
            if self._at_once:
                one.event.synchronize()
            if one.event.query():
                one.settle()
            if one.outcome.done() and one.outcome.exception():
                break
        return Queued(asked)

    def _asked(self, ask: Callable[[slice], TakeIn[Labelled]], part: slice) -> _Asked[Labelled]:
        stream, event = next(self._streams), self._new_event()
        outcome: Future[list[Labelled]] = Future()
        take_in: TakeIn[Labelled] = list
        with self._as_current(), self._module.stream(stream):
            try:
                take_in = ask(part)
            except Exception as error:
                outcome.set_exception(error)
        event.record(stream)
        return _Asked(part, event, take_in, outcome)

    def wait_for_rest(self) -> None:
        """Wait until the device has nothing to do."""
        self._module.synchronize(self._device)

    def _as_current(self) -> AbstractContextManager[object]:
        """Make the device the current one. Leaving a stream restores that of the device that was current
        before: were it another (the first GPU, by default), that would begin a context there, which takes
        memory."""
        return nullcontext() if self._device.type == "cpu" else self._module.device(self._device)

    def _new_event(self) -> Any:
        """An event whose waiters sleep."""
        return self._module.Event() if self._device.type == "cpu" else self._module.Event(blocking=True)
