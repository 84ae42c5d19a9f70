"""Feeds a daemon, has it struck, starts it again as systemd would, and audits whenever none is alive."""

import contextlib
import fcntl
import hashlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chaos.auditor import Auditor, Entry, Findings, Places
from chaos.killer import Killer
from chaos.load import Dropping, droppings
from running import Daemon, Rooms
from waiting import wait_for

SETTINGS = """
[watch]
settle_ms = 100
rescan_s = 2
[workers]
preprocess = 2
save = 2
infer = 2  # so that one goes on while the other is dead
inference_threads = 2  # so that batches follow each other without a gap
max_batch = 4
max_attempts = 1000  # the killer kills innocents too
stage_timeout_s = 6
[save]
outputs = ["face", "labels", "json"]
[health]
interval_s = 0.2
"""
TAILS = (".jpg", ".labels.png", ".json")
BACKLOG = 60
"""Files kept in the inbox while there are any to drop."""

RESTART_SEC = 0.1
"""systemd's default (systemd.service(5), RestartSec=)."""

LONGEST_CALM_S = 4.0
IN_PLACE = 0.2
"""Share of files written in place, in two goes, instead of renamed into the inbox."""


@dataclass(frozen=True)
class Outcome:
    """What happened, for the test and its reader."""

    findings: Findings
    blows: Counter[str]
    exits: Counter[int]
    audits: int
    seconds: float


class Run:
    """One run of chaos."""

    def __init__(
        self, rooms: Rooms, weights: Path, faces: list[Path], seed: int, pictures: int, kills: int
    ) -> None:
        self._rooms, self._weights = rooms, weights
        self._chance = random.Random(seed)
        self._killer = Killer(seed)
        self._left: Iterator[Dropping] = droppings(seed, pictures, faces)
        self._dropped, self._all_dropped = 0, False
        self._pictures, self._kills = pictures, kills
        self._auditor = Auditor(Places(rooms.inbox, rooms.outbox, rooms.archive, rooms.quarantine, TAILS))
        self._half_written: list[tuple[BinaryIO, bytes]] = []
        self._exits: Counter[int] = Counter()
        self._audits = 0
        self.daemon = self._start()

    def run(self) -> Outcome:
        """Until every file is dropped, every blow dealt and every picture done."""
        began = time.monotonic()
        due_at, due_count = began + 3.0, 0.0
        while len(self._killer.blows) < self._kills or not self._all_dropped:
            now = time.monotonic()
            self._killer.wake(now)
            self._feed()
            if self.daemon.process.poll() is not None:
                self._restart()
            done = self._dropped - self._in_inbox()
            if len(self._killer.blows) < self._kills and (now >= due_at or done >= due_count):
                self._killer.strike(self.daemon.process.pid, now)
                due_at = now + self._chance.uniform(0, 2 * LONGEST_CALM_S)
                due_count = done + self._chance.uniform(0, 1.6 * self._pictures / self._kills)
            time.sleep(0.02)
        return self._end(began)

    def _end(self, began: float) -> Outcome:
        def is_done() -> bool:
            self._killer.wake(time.monotonic())
            self._finish_writing()
            if self.daemon.process.poll() is not None:
                self._restart()
            return not self._in_inbox()

        wait_for(is_done, "an empty inbox", 120)
        self.daemon.wait_health(lambda h: h["state"] == "running" and h["in_flight"] == 0, "calm")
        assert self.daemon.stop() == 0
        findings = self._audit(calm=True)
        blows = Counter(
            f"{blow.name} {'supervisor' if blow.is_supervisor else 'worker'}" for blow in self._killer.blows
        )
        return Outcome(findings, blows, self._exits, self._audits, time.monotonic() - began)

    def _start(self) -> Daemon:
        return Daemon(self._rooms, self._weights, SETTINGS, (), {"start_new_session": True})

    def _restart(self) -> None:
        """systemd's Restart=always; and the moment when nobody lives is the moment for an audit."""
        self._exits[self.daemon.process.wait()] += 1
        with contextlib.suppress(ProcessLookupError):  # what is left of the unit (KillMode=mixed)
            os.killpg(self.daemon.process.pid, signal.SIGKILL)
        self._finish_writing()
        with (self._rooms.inbox / ".maskdrop.lock").open("ab") as lock:
            wait_for(lambda: _locked(lock), "the last worker to be gone")
            self._audit(calm=False)
        time.sleep(RESTART_SEC)
        self.daemon = self._start()

    def _audit(self, *, calm: bool) -> Findings:
        findings = self._auditor.audit(calm=calm)
        self._audits += 1
        shown = "\n".join(findings.faults[:20])
        log = self.daemon.log[-4000:]
        assert not findings.faults, f"{len(findings.faults)} faults:\n{shown}\nlog:\n{log}"
        return findings

    def _feed(self) -> None:
        self._finish_writing()
        for _ in range(BACKLOG - self._in_inbox()):
            dropping = next(self._left, None)
            if dropping is None:
                self._all_dropped = True
                return
            self._drop(dropping)

    def _drop(self, dropping: Dropping) -> None:
        digest = hashlib.sha256(dropping.content).hexdigest()
        self._auditor.expect(Entry(dropping.path, digest, dropping.good))
        self._dropped += 1
        if self._chance.random() >= IN_PLACE or not dropping.content:
            self._rooms.drop(dropping.path, dropping.content)
            return
        target = self._rooms.inbox / dropping.path
        target.parent.mkdir(parents=True, exist_ok=True)
        half = len(dropping.content) // 2
        file = target.open("wb", buffering=0)
        file.write(dropping.content[:half])
        self._half_written.append((file, dropping.content[half:]))

    def _finish_writing(self) -> None:
        for file, rest in self._half_written:
            file.write(rest)
            file.close()
        self._half_written.clear()

    def _in_inbox(self) -> int:
        return sum(not name.startswith(".") for _, _, names in os.walk(self._rooms.inbox) for name in names)


def _locked(lock: BinaryIO) -> bool:
    """Take the inbox's lock, which every process of a daemon holds: nobody is left."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
