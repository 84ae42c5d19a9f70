"""Which blocks were begun and never ended: how a picture that kills its process is found."""

import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from maskdrop.batch.ledger import Outcome
from maskdrop.cluster.cargo import End, Piece, Work
from maskdrop.death import Ending
from maskdrop.exit_codes import EX_FAILED
from maskdrop.ticket import Fault, Stage, cut


class CannotLabel(Exception):
    """The network can't be used as configured; the message says why and what to do."""


STOPPED = "Stopped"
"""The error of a picture that was not begun because the batch is stopping; never reported."""


@dataclass(frozen=True)
class Begun:
    """What is known of a block that is begun.

    Attributes:
        deaths: None at its first attempt; else how often a process died at each of its pictures while trying
            it alone, by the picture's position.
        reason: what the last dying process gave as its reason; "" if it could give none.
        is_stopped: whether the block must not begin, because the batch is stopping.
    """

    deaths: dict[int, int] | None = None
    reason: str = ""
    is_stopped: bool = False


class Attempts(Protocol):
    """A memory outside the processes that may die."""

    def begin(self, block: str, pictures: int) -> Begun:
        """Note that a block is begun.

        Args:
            pictures: how many enter the first stage with it; 0 in later stages.
        """

    def enter(self, block: str, position: int) -> None:
        """Note that a picture of the block is tried alone from now on."""

    def fail(self, block: str, reason: str) -> None:
        """Note why this process is about to die at the block."""

    def end(self, block: str) -> None:
        """Note that the block is done."""


class Register:
    """Owner of the record of what was begun in one execution."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Forget everything: another execution begins."""
        self._alone: dict[str, int | None] = {}
        self._deaths: dict[str, Counter[int]] = {}
        self._reasons: dict[str, str] = {}
        self._set_out: dict[str, int] = {}
        self._told: dict[str, tuple[str, Begun]] = {}
        self._is_stopped = False

    def stop(self) -> int:
        """Let nothing new begin.

        Returns:
            How many pictures have entered the first stage.
        """
        self._is_stopped = True
        return sum(self._set_out.values())

    def begin(self, block: str, pictures: int, call: str = "") -> Begun:
        """As `Attempts.begin`.

        Args:
            call: unique to each call, so that one that arrives twice doesn't count as another attempt.
        """
        last, told = self._told.get(block, ("", None))
        if told is None or not call or call != last:
            told = self._begin(block, pictures)
            self._told[block] = call, told
        return told

    def _begin(self, block: str, pictures: int) -> Begun:
        if pictures and self._is_stopped:
            return Begun(is_stopped=True)
        if block not in self._alone:
            self._alone[block] = None
            if pictures:  # counted once, even if the block is decoded again after its node was lost
                self._set_out[block] = pictures
            return Begun()
        deaths = self._deaths.setdefault(block, Counter())
        position = self._alone[block]
        if position is not None:
            deaths[position] += 1
            self._alone[block] = None
        return Begun(dict(deaths), self._reasons.get(block, ""))

    def enter(self, block: str, position: int) -> None:
        self._alone[block] = position

    def fail(self, block: str, reason: str) -> None:
        self._reasons[block] = reason

    def end(self, block: str) -> None:
        self._reasons.pop(block, None)
        self._alone.pop(block, None)
        self._deaths.pop(block, None)
        self._told.pop(block, None)


Act = Callable[[list[Piece]], list[Piece]]


def attempted(pieces: list[Piece], stage: Stage, attempts: Attempts, most: int, act: Act) -> list[Piece]:
    """Process a block: all at once, or picture by picture if a process has died at it before.

    An unforeseen error ends the process, as it ends the daemon's workers: the state that it leaves behind,
    such as a device's, must not reach the next pictures.

    Args:
        most: how often a picture is tried (``workers.max_attempts``); the block's first death counts as one.
        act: returns as many pieces as it is given.

    Returns:
        What ``act`` returned; a picture at which processes keep dying gets a fault, but no end yet.

    Raises:
        CannotLabel: raised by ``act``.
    """
    if not pieces:
        return []
    block = f"{stage.value} {len(pieces)} {pieces[0].work.path}"
    begun = attempts.begin(block, len(pieces) if stage is Stage.PREPROCESS else 0)
    if begun.is_stopped:
        stopped = End(Outcome.LEFT, error=STOPPED)
        return [Piece(replace(piece.work, end=stopped)) for piece in pieces]
    try:
        done = (
            act(pieces)
            if begun.deaths is None
            else _one_by_one(pieces, stage, attempts, begun, most, act, block)
        )
    except CannotLabel:
        raise
    except Exception as error:
        traceback.print_exc()
        attempts.fail(block, cut(f"{type(error).__name__}: {error}"))
        os._exit(EX_FAILED)
    attempts.end(block)
    return done


def _one_by_one(
    pieces: list[Piece], stage: Stage, attempts: Attempts, begun: Begun, most: int, act: Act, block: str
) -> list[Piece]:
    done = []
    for position, piece in enumerate(pieces):
        died = (begun.deaths or {}).get(position, 0)
        if piece.work.end is None and died >= max(1, most - 1):
            done.append(Piece(_blamed(piece, stage, died, begun.reason)))
        else:
            attempts.enter(block, position)
            done += act([piece])
    return done


def _blamed(piece: Piece, stage: Stage, died: int, reason: str) -> Work:
    """The picture with these deaths as its fault; a fault found earlier stays."""
    work = piece.work
    message = f"the process died each time that it was tried, {died} times alone"
    message = f"{message}; {reason}" if reason else message
    fault = work.fault or Fault(stage, Ending.DIED.value, cut(message))
    return replace(work, fault=fault, attempts=died + 1)


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End this process if the body takes longer, which counts as a death at its picture.

    SIGALRM has no handler here, so the kernel ends the process, whatever code it is in; no thread is needed.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
