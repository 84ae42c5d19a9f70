"""Many processes that check pictures. One that dies takes no picture but its own with it.

``concurrent.futures`` and ``multiprocessing.Pool`` don't say at which picture a process died, and
then end or wait forever. Here each process has its own pipes and answers in order, so the first
ticket without an answer is the one that it was working on.
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from maskdrop.check.worker import Answer, Verdict, serve
from maskdrop.config import DecodeSettings, WorkerSettings
from maskdrop.death import Ending, cause_of_death
from maskdrop.ticket import Ticket

DEPTH = 2
"""Tickets that a process has in hand: the one it works on, and the next, so that it need not wait."""

_STILLBORN = 3
"""Processes in a row that die before they are ready, after which the check gives up."""

_LEAVE_S = 5.0


class PoolUnfit(Exception):
    """No process can be started. The message says why."""


@dataclass(frozen=True)
class Checked:
    """A ticket and what was found about its file."""

    ticket: Ticket
    answer: Answer


class _Process:
    """One process, its pipes, and the tickets it has not answered yet, in order."""

    def __init__(self, folder: Path, settings: DecodeSettings) -> None:
        context = get_context("spawn")
        theirs_tickets, self._tickets = context.Pipe(duplex=False)
        self.answers, theirs_answers = context.Pipe(duplex=False)
        self._process = context.Process(
            target=serve, args=(folder, settings, theirs_tickets, theirs_answers), daemon=True
        )
        # Blocked signals stay blocked in the new process until it can ignore them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs_tickets.close()
        theirs_answers.close()
        self.hand: deque[Ticket] = deque()
        self.is_ready = self.is_hung = False
        self.heard_at = time.monotonic()
        self.sentinel: int = self._process.sentinel

    def give(self, ticket: Ticket) -> None:
        if not self.hand:
            self.heard_at = time.monotonic()
        self.hand.append(ticket)
        with suppress(OSError):  # it just died, and its sentinel says so
            self._tickets.send(ticket)

    def take(self) -> Answer | None:
        """The answer that waits to be read; None if there is none, or the process died while sending it."""
        try:
            answer: Answer | None = self.answers.recv() if self.answers.poll() else None
        except (EOFError, OSError):
            return None
        self.heard_at = time.monotonic()
        return answer

    def kill(self) -> None:
        self._process.kill()

    def leave(self) -> None:
        """Ask it to end."""
        self._tickets.close()

    def bury(self) -> str:
        """Wait for the process to end, and return what it died of."""
        self._process.join(_LEAVE_S)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        cause = cause_of_death(self._process.exitcode)
        pipes: tuple[Connection[Any, Any], ...] = (self._tickets, self.answers)
        for pipe in pipes:
            pipe.close()
        self._process.close()
        return cause


class Pool:
    """Owner of the processes. It takes tickets from a stream, at most `DEPTH` for each process at a time, so
    memory doesn't grow with their number."""

    def __init__(
        self, folder: Path, decode: DecodeSettings, workers: WorkerSettings, processes: int, wake: int
    ) -> None:
        """Prepare. ``wake`` is a descriptor that becomes readable when there is a reason to stop."""
        self._folder, self._settings, self._limits = folder, decode, workers
        self._count, self._wake = processes, wake
        self._processes: list[_Process] = []
        self._again: deque[Ticket] = deque()
        self._attempts: dict[int, int] = {}
        self._stillborn = 0

    def check(self, tickets: Iterator[Ticket], should_stop: Callable[[], bool]) -> Iterator[Checked]:
        """What is found about each ticket's file, in no particular order.

        Raises:
            PoolUnfit: processes die before they can work.
        """
        more = True
        try:
            while not should_stop():
                more = self._hand_out(tickets) and more
                if not more and not self._again and not any(p.hand for p in self._processes):
                    break
                yield from self._take_in()
            else:
                for process in self._processes:
                    process.kill()
        finally:
            for process in self._processes:
                process.leave()
            for process in self._processes:
                process.bury()
            self._processes = []

    def _hand_out(self, tickets: Iterator[Ticket]) -> bool:
        """Give every process what it can take; False once the stream has ended."""
        while len(self._processes) < self._count:
            self._processes.append(_Process(self._folder, self._settings))
        for depth in range(DEPTH):
            for process in self._processes:
                if len(process.hand) > depth or any(t.number in self._attempts for t in process.hand):
                    continue
                if self._again and not process.hand:  # alone, so that no other picture is suspected
                    process.give(self._again.popleft())
                elif (ticket := next(tickets, None)) is not None:
                    process.give(ticket)
                elif not self._again:
                    return False
        return True

    def _take_in(self) -> Iterator[Checked]:
        """Wait for whatever comes first: answers, deaths, the wake-up, or a process's deadline."""
        busy = [self._deadline(p) for p in self._processes if p.hand]
        timeout = max(0.0, min(busy) - time.monotonic()) if busy else None
        ends: list[Any] = [end for p in self._processes for end in (p.answers, p.sentinel)]
        ready = wait([*ends, self._wake], timeout)
        for process in list(self._processes):
            if process.answers in ready or process.sentinel in ready:
                yield from self._answers_of(process)
            if process.sentinel in ready:
                yield from self._after_death(process)
            elif process.hand and time.monotonic() >= self._deadline(process):
                process.is_hung = True
                process.kill()

    def _deadline(self, process: _Process) -> float:
        limits = self._limits
        return process.heard_at + (limits.stage_timeout_s if process.is_ready else limits.start_timeout_s)

    def _answers_of(self, process: _Process) -> Iterator[Checked]:
        while (answer := process.take()) is not None:
            if answer.number == 0:
                process.is_ready, self._stillborn = True, 0
                continue
            ticket = process.hand.popleft()
            assert ticket.number == answer.number, (ticket, answer)
            self._attempts.pop(ticket.number, None)
            yield Checked(ticket, answer)

    def _why(self, cause: str, process: _Process) -> str:
        if not process.is_hung:
            return cause
        if process.is_ready:
            return f"nothing heard for {self._limits.stage_timeout_s:g} s (workers.stage_timeout_s)"
        return f"silence: not ready after {self._limits.start_timeout_s:g} s (workers.start_timeout_s)"

    def _after_death(self, process: _Process) -> Iterator[Checked]:
        self._processes.remove(process)
        cause = self._why(process.bury(), process)
        if not process.is_ready:
            self._stillborn += 1
            if self._stillborn >= _STILLBORN:
                raise PoolUnfit(f"{_STILLBORN} processes died before they could work, the last of {cause}")
            self._again.extendleft(reversed(process.hand))
            return
        if not process.hand:
            return
        suspect, *others = process.hand
        self._again.extend(others)
        attempts = self._attempts[suspect.number] = self._attempts.get(suspect.number, 0) + 1
        if attempts < self._limits.max_attempts:
            self._again.appendleft(suspect)
            return
        del self._attempts[suspect.number]
        message = f"the process was lost at it in {attempts} tries; last: {cause}"
        ending = Ending.HUNG if process.is_hung else Ending.DIED
        yield Checked(suspect, Answer(suspect.number, Verdict.BROKEN, ending.value, message))
