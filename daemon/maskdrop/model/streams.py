"""Batches on a device of its own: while it computes one, the next is copied to it and the last one back.

What such a device is asked for, it does later: copies and layers wait in a stream, and follow each other
there (CUDA C++ Programming Guide, "Asynchronous Concurrent Execution"). Streams go on side by side, and
batches take turns with two of them. So no tensor is ever used in two streams, and what a stream is through
with serves its next batch. A CPU does everything at once; there a batch is done when it has begun.
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
"""Gives what there is to tell of each of some pictures, when the device has done what it was asked for."""

STREAMS = 2
"""How many take turns: while one computes, the other one copies."""


@dataclass(frozen=True)
class _Asked(Generic[Labelled]):
    """Some pictures that the device was asked for.

    Attributes:
        event: happens when it has done all of that.
        outcome: what was taken in then, or why they can't be labelled.
    """

    part: slice
    event: Any
    take_in: TakeIn[Labelled]
    outcome: "Future[list[Labelled]]"

    def settle(self) -> None:
        """Take in what there is to tell, unless that was done."""
        if self.outcome.done():
            return
        try:
            self.outcome.set_result(self.take_in())
        except Exception as error:
            self.outcome.set_exception(error)


@dataclass(frozen=True)
class Queued(Generic[Labelled]):
    """Pictures that the device was asked for, or is done with: see `maskdrop.model.under_way.UnderWay`.

    They count as unfinished until somebody has asked for the results: then they are taken in, by whoever
    asked. A batch that is to keep the device at work has to begin before that.
    """

    asked: list[_Asked[Labelled]]

    @property
    def unfinished(self) -> list[int]:
        waiting = [one.part for one in self.asked if not one.outcome.done()]
        return [at for part in waiting for at in range(part.start, part.stop)]

    def results(self) -> list[Labelled]:
        for one in self.asked:
            one.event.synchronize()  # also where it failed half-way: nothing of it may come later
            one.settle()
        return [done for one in self.asked for done in one.outcome.result()]


class Streams:
    """Streams of one device that take turns. What it was asked for before they are made is waited for.

    Args:
        module: what PyTorch has of that kind of device, such as ``torch.cuda``.
        at_once: whoever asks for pictures waits for them there; nothing is left to be waited for later.
    """

    def __init__(self, device: torch.device, module: Any, at_once: bool = False) -> None:
        self._device, self._module, self._at_once = device, module, at_once
        self.wait_for_rest()
        self._streams = cycle([self._module.Stream(device) for _ in range(STREAMS)])

    def begin(self, ask: Callable[[slice], TakeIn[Labelled]], parts: Iterable[slice]) -> Queued[Labelled]:
        """Ask the device for some pictures, part by part, each in the stream whose turn it is, up to the
        first part that can't be asked for.

        Args:
            ask: asks for some pictures and waits for nothing.
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
        """Whoever leaves a stream sets that of the device he was on: if it were another one, something would
        be begun there that takes memory (a context, on the first GPU)."""
        return nullcontext() if self._device.type == "cpu" else self._module.device(self._device)

    def _new_event(self) -> Any:
        """One that is waited for asleep."""
        return self._module.Event() if self._device.type == "cpu" else self._module.Event(blocking=True)
