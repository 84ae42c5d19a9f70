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
"""The error of a picture that was not begun any more; it is told nowhere."""


@dataclass(frozen=True)
class Begun:
    """What is known of a block that is begun.

    Attributes:
        deaths: None the first time; else at which of its pictures, by their positions, a process has died
            alone, and how often.
        reason: what was told of the latest of these deaths; "" where nothing could be.
        is_stopped: whether nothing new is to be begun.
    """

    deaths: dict[int, int] | None = None
    reason: str = ""
    is_stopped: bool = False


class Attempts(Protocol):
    """A memory outside the processes that may die."""

    def begin(self, block: str, pictures: int) -> Begun:
        """Note that a block of so many pictures is begun.

        Args:
            pictures: that set out on their way with it; 0 in later stages.
        """

    def enter(self, block: str, position: int) -> None:
        """Note that a picture of the block is tried alone from now on."""

    def fail(self, block: str, reason: str) -> None:
        """Note why this process is about to die at the block."""

    def end(self, block: str) -> None:
        """Note that the block is done."""


class Register:
    """The owner of what was begun in one execution."""

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
            Pictures that have set out.
        """
        self._is_stopped = True
        return sum(self._set_out.values())

    def begin(self, block: str, pictures: int, call: str = "") -> Begun:
        """As `Attempts.begin`.

        Args:
            call: of each call another one, by which one that arrives twice is known: it is no other attempt.
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
            if pictures:  # counted once, though it is decoded anew where a lost node had it
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
    """Do a block: all at once, or one by one where a process has died at it before.

    An error that nobody foresaw ends the process, as it does the daemon's workers: what it leaves behind,
    say of a device, is not for the next pictures.

    Args:
        most: how often a picture is tried (``workers.max_attempts``); the block's first death is one.
        act: gives as many pieces as it gets.

    Returns:
        What ``act`` gave; a picture at which processes die again and again is at fault, and has no end yet.

    Raises:
        CannotLabel: ``act`` did.
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
    """At fault, for this; who is already stays so, for what was found before."""
    work = piece.work
    message = f"the process died each time that it was tried, {died} times alone"
    message = f"{message}; {reason}" if reason else message
    fault = work.fault or Fault(stage, Ending.DIED.value, cut(message))
    return replace(work, fault=fault, attempts=died + 1)


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End this process where what is done within takes longer: it counts as a death there.

    By SIGALRM, which nobody handles: the kernel ends it, whatever code it is in and without a thread.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
