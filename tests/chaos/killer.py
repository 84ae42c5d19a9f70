"""Sends signals to random processes of a daemon, the supervisor included, from a seed."""

import contextlib
import os
import random
import signal
from dataclasses import dataclass

import psutil

from cradle import started_by

LONGEST_STOP_S = 1.5
LONG_STOP_S = 20.0
LONG_STOPS = 0.3
"""Share of stopped workers that sleep for so long: the daemon must find those at work itself."""

TO_SUPERVISOR = 0.35


@dataclass(frozen=True)
class Blow:
    """A signal that was sent, and when the process is to be woken again, if it was stopped for a time."""

    pid: int
    name: str
    is_supervisor: bool
    wake_at: float | None = None


class Killer:
    """Chooses and sends. Processes come and go as they like, so a seed gives the same choices again, but
    not the same instants."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._asleep: list[Blow] = []
        self.blows: list[Blow] = []

    def strike(self, supervisor: int, now: float) -> Blow | None:
        """Send one signal to one process; None where there was nobody to send it to."""
        to_supervisor, which = self._chance.random() < TO_SUPERVISOR, self._chance.random()
        kind = self._chance.choices((signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM), (55, 30, 15))[0]
        pause, long = self._chance.uniform(0.02, LONGEST_STOP_S), self._chance.random() < LONG_STOPS
        try:
            children = sorted(child.pid for child in started_by(supervisor))
        except psutil.NoSuchProcess:
            return None
        pid = supervisor if to_supervisor or not children else children[int(which * len(children))]
        try:
            os.kill(pid, kind)
        except ProcessLookupError:
            return None
        is_supervisor = pid == supervisor
        if long and not is_supervisor:
            pause = LONG_STOP_S
        wake_at = now + pause if kind is signal.SIGSTOP else None
        blow = Blow(pid, kind.name, is_supervisor, wake_at)
        self.blows.append(blow)
        if blow.wake_at is not None:
            self._asleep.append(blow)
        return blow

    def wake(self, now: float) -> None:
        """Wake those whose time has come."""
        for blow in [blow for blow in self._asleep if blow.wake_at is not None and now >= blow.wake_at]:
            self._asleep.remove(blow)
            with contextlib.suppress(ProcessLookupError):
                os.kill(blow.pid, signal.SIGCONT)
