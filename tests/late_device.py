"""A device that does what it is asked for later, in streams: threads of this process.

It has what maskdrop needs of a module such as ``torch.cuda``. Each stream does one thing after the other; an
event happens when its stream has come to it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch

from maskdrop.model.streams import Queued, Streams, TakeIn


class LateDevice:
    """Streams that do what is submitted to the current one of them.

    Attributes:
        waited: how often somebody waited for an event, and for the whole device.
    """

    def __init__(self) -> None:
        self.waited = Counter[str]()
        self.streams: list[ThreadPoolExecutor] = []
        self.current: ThreadPoolExecutor | None = None
        self.is_current = False
        self.asked: list[Future[Any]] = []

    def Stream(self, device: object) -> ThreadPoolExecutor:  # noqa: N802
        self.streams.append(ThreadPoolExecutor(1))
        return self.streams[-1]

    def Event(self, blocking: bool) -> "LateEvent":  # noqa: N802
        assert blocking
        return LateEvent(self.waited)

    @contextmanager
    def device(self, device: object) -> Iterator[None]:
        self.is_current = True
        yield
        self.is_current = False

    @contextmanager
    def stream(self, stream: ThreadPoolExecutor) -> Iterator[None]:
        assert self.is_current, "another device's stream would be set when this one is left"
        self.current = stream
        yield
        self.current = None

    def synchronize(self, device: object) -> None:
        self.waited["device"] += 1
        wait(self.asked)

    def submit(self, work: Callable[[], Any]) -> "Future[Any]":
        assert self.current is not None
        self.asked.append(self.current.submit(work))
        return self.asked[-1]


class LateEvent:
    def __init__(self, waited: Counter[str]) -> None:
        self._waited = waited
        self._happened: Future[None] = Future()

    def record(self, stream: ThreadPoolExecutor) -> None:
        self._happened = stream.submit(lambda: None)

    def query(self) -> bool:
        return self._happened.done()

    def synchronize(self) -> None:
        self._waited["event"] += 1
        wait([self._happened])


class LateStreams(Streams):
    """All that is asked for, Python's part of it too, is done later."""

    def __init__(self) -> None:
        self.late = LateDevice()
        super().__init__(torch.device("meta"), self.late)

    def begin(self, ask: Callable[[slice], TakeIn[Any]], parts: Iterable[slice]) -> Queued[Any]:
        def ask_later(part: slice) -> TakeIn[Any]:
            taking_in = self.late.submit(lambda: ask(part))
            return lambda: taking_in.result()()

        return super().begin(ask_later, parts)
