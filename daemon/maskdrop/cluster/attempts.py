"""Which blocks were begun and never ended: how a picture that kills its process is found."""

import faulthandler
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from maskdrop.cluster.cargo import Piece, Work
from maskdrop.ticket import Fault, Stage


class Attempts(Protocol):
    """A memory outside the processes that may die."""

    def begin(self, block: str) -> dict[int, int] | None:
        """Note that a block is begun.

        Returns:
            None the first time; else at which of its pictures, by their positions, a process has died
            alone, and how often.
        """

    def enter(self, block: str, position: int) -> None:
        """Note that a picture of the block is tried alone from now on."""

    def end(self, block: str) -> None:
        """Note that the block is done."""


class Register:
    """The owner of what was begun."""

    def __init__(self) -> None:
        self._alone: dict[str, int | None] = {}
        self._deaths: dict[str, Counter[int]] = {}

    def begin(self, block: str) -> dict[int, int] | None:
        if block not in self._alone:
            self._alone[block] = None
            return None
        deaths = self._deaths.setdefault(block, Counter())
        position = self._alone[block]
        if position is not None:
            deaths[position] += 1
            self._alone[block] = None
        return dict(deaths)

    def enter(self, block: str, position: int) -> None:
        self._alone[block] = position

    def end(self, block: str) -> None:
        self._alone.pop(block, None)
        self._deaths.pop(block, None)


Act = Callable[[list[Piece]], list[Piece]]


def attempted(pieces: list[Piece], stage: Stage, attempts: Attempts, most: int, act: Act) -> list[Piece]:
    """Do a block: all at once, or one by one where a process has died at it before.

    Args:
        most: how often a picture is tried (``workers.max_attempts``); the block's first death is one.
        act: gives as many pieces as it gets.

    Returns:
        What ``act`` gave; a picture at which processes die again and again is at fault.
    """
    if not pieces:
        return []
    block = f"{stage.value} {len(pieces)} {pieces[0].work.path}"
    deaths = attempts.begin(block)
    if deaths is None:
        done = act(pieces)
    else:
        done = []
        for position, piece in enumerate(pieces):
            died = deaths.get(position, 0)
            if piece.work.is_on_its_way and died >= max(1, most - 1):
                done.append(Piece(_blamed(piece, stage, died)))
            else:
                attempts.enter(block, position)
                done += act([piece])
    attempts.end(block)
    return done


def _blamed(piece: Piece, stage: Stage, died: int) -> Work:
    message = f"the process died each time that it was tried, {died} times alone"
    return replace(piece.work, fault=Fault(stage, "WorkerDied", message), attempts=died + 1)


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End this process where what is done within takes longer: it counts as a death there."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - no path
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
