"""The real daemon in real folders: started, watched through its files, signalled, killed."""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import psutil

from cradle import started_by
from maskdrop.claim import CLAIMED
from nursery import Born, Nursery, order_of
from waiting import PATIENCE_S, wait_for

FULL = """
[watch]
settle_ms = 100
rescan_s = 2
[workers]
preprocess = 1
save = 1
inference_threads = 1
[face]
locate = "off"
[health]
interval_s = 0.2
"""
"""As few processes as work, for each start takes its time; pictures of the size that the network has by
default."""

QUICK = FULL + "[model]\ninput_size = 256\n"
"""The same with a quarter of the pixels. Other keys of that section can follow."""

EXECUTED = {**os.environ, "MASKDROP_EXEC": "1"}
"""The environment of a process that is executed, not forked, and executes its workers."""

PAIRS = QUICK.replace("preprocess = 1", "preprocess = 2").replace("save = 1", "save = 2")
"""The same with a second worker beside the first where there may be one."""


@cache
def nursery() -> Nursery:
    """One for each process that runs tests."""
    started = Nursery()
    atexit.register(started.close)
    return started


def maskdrop(
    words: Sequence[str], prefix: Sequence[str] = (), **options: Any
) -> "subprocess.CompletedProcess[str]":
    """What ``maskdrop`` with these words says, when it has ended; options are those of subprocess.run."""
    with tempfile.TemporaryFile("w+") as given:
        given.write(options.pop("input", None) or "")
        given.seek(0)
        process = begin(words, prefix, stdin=given, **options)
        try:
            said, told = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    return subprocess.CompletedProcess(words, process.wait(), said, told)


def begin(words: Sequence[str], prefix: Sequence[str] = (), **options: Any) -> "Born | subprocess.Popen[str]":
    """Start ``maskdrop`` with these words; options are those of subprocess.Popen, standard output and error
    pipes where nothing else is said."""
    streams = [options.pop(name, subprocess.PIPE) for name in ("stdout", "stderr")]
    order = None if prefix else order_of(list(words), options)
    if order is None:
        command = [*prefix, sys.executable, "-m", "maskdrop", *words]
        return subprocess.Popen(command, stdout=streams[0], stderr=streams[1], text=True, **options)
    said, told = map(_file, streams)
    return nursery().start(order, said, told, options.get("stdin"))


def _file(stream: int) -> "IO[str] | int":
    """What is read once it has all been written doesn't need a pipe."""
    if stream == subprocess.PIPE:
        return tempfile.TemporaryFile("w+")
    return Path(os.devnull).open("w") if stream == subprocess.DEVNULL else stream


@dataclass(frozen=True)
class Rooms:
    """The folders of one daemon."""

    base: Path
    inbox: Path
    outbox: Path
    quarantine: Path
    archive: Path
    health: Path

    @classmethod
    def make(cls, base: Path) -> "Rooms":
        rooms = cls(
            base, base / "inbox", base / "outbox", base / "quarantine", base / "archive", base / "health.json"
        )
        for folder in (rooms.inbox, rooms.outbox, rooms.quarantine, rooms.archive):
            folder.mkdir()
        return rooms

    def pictures(self, room: str) -> list[str]:
        """Relative paths of the pictures in a room; reasons, locks and temporary files are none, and
        what a killed daemon had claimed in the inbox counts as lying in its place."""
        folder: Path = getattr(self, room)
        paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        names = [str(path.relative_to(folder)).removeprefix(f"{CLAIMED}/") for path in paths]
        return sorted(name for name in names if not name.endswith(".reason.json"))

    def drop(self, name: str, content: bytes) -> Path:
        """Put a file into the inbox as a careful program does: under another name, then renamed."""
        target = self.inbox / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{os.urandom(6).hex()}"
        temporary.write_bytes(content)
        temporary.rename(target)
        return target


class Daemon:
    """A running maskdrop."""

    def __init__(
        self, rooms: Rooms, weights: Path, settings: str, arguments: Sequence[str], options: dict[str, Any]
    ) -> None:
        self.rooms = rooms
        self.log_path = rooms.base / "daemon.log"
        config = rooms.base / "maskdrop.toml"
        config.write_text(settings or QUICK)
        words = ["run", "--config", str(config), "--weights", str(weights)]
        if not options.pop("inbox_by_file", False):
            words += ["--inbox", str(rooms.inbox), "--outbox", str(rooms.outbox)]
        words += arguments
        with self.log_path.open("ab") as log:
            order = order_of(words, options)
            if order is not None:
                self.process: Born | subprocess.Popen[bytes] = nursery().start(order, log, log)
            else:
                command = [*options.pop("prefix", []), sys.executable, "-m", "maskdrop", *words]
                self.process = subprocess.Popen(command, stdout=log, stderr=log, **options)

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def health(self) -> dict[str, Any]:
        """The health file of this process; empty before it wrote one."""
        try:
            content = json.loads(self.rooms.health.read_bytes())
        except (OSError, ValueError):
            return {}
        return content if content["pid"] == self.process.pid else {}

    def wait_ready(self) -> "Daemon":
        """Also those workers that are only started once the first ones have measured themselves."""
        self.wait_health(
            lambda health: (
                health["state"] == "running" and all(worker["ready"] for worker in health["workers"])
            ),
            "state running and every worker ready",
        )
        return self

    def wait_health(self, condition: Any, what: str, seconds: float = PATIENCE_S) -> dict[str, Any]:
        """The first health file that fulfils the condition; fails at once if the daemon ends."""

        def fulfilled() -> dict[str, Any] | None:
            health = self.health()
            if health and condition(health):
                return health
            assert self.process.poll() is None, (
                f"the daemon ended with {self.process.returncode}:\n{self.log}"
            )
            return None

        try:
            found = wait_for(fulfilled, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\nhealth: {self.health()}\nlog:\n{self.log[-6000:]}") from None
        assert found is not None
        return found

    def wait_count(self, name: str, count: int, seconds: float = PATIENCE_S) -> dict[str, Any]:
        return self.wait_health(lambda h: h["counts"][name] >= count, f"{count} {name}", seconds)

    def wait_in_vain(self) -> None:
        """See that a degraded daemon goes on taking nothing, for many times QUICK's settle_ms, and several
        times a rescan_s of half a second."""
        self.wait_files(10, lambda health: (health["state"], health["counts"]["accepted"]) == ("degraded", 0))

    def wait_files(self, count: int, fits: Callable[[dict[str, Any]], bool] = lambda health: True) -> None:
        """Wait until so many more health files were written, each of which fits."""
        seen: set[str] = set()

        def are_enough(health: dict[str, Any]) -> bool:
            seen.add(health["updated_at"])
            assert fits(health), health
            return len(seen) > count

        self.wait_health(are_enough, f"{count} more health files")

    def wait_log(self, text: str, times: int = 1) -> None:
        """Wait until the log holds a text so many times."""
        wait_for(lambda: self.log.count(text) >= times, f"{text!r} in the log, {times} times")

    def workers(self, stage: str) -> list[int]:
        """Process numbers of a stage's living workers."""
        return [w["pid"] for w in self.health()["workers"] if w["stage"] == stage and w["alive"]]

    def processes(self) -> list[psutil.Process]:
        """The daemon and everything it started."""
        return [psutil.Process(self.process.pid), *started_by(self.process.pid)]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait_end(self, seconds: float = PATIENCE_S) -> int:
        return self.process.wait(seconds)

    def stop(self) -> int:
        """Drain and return the exit code."""
        self.terminate()
        return self.wait_end()

    def kill(self) -> None:
        """SIGKILL to the supervisor alone; its workers must see to themselves."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            psutil.wait_procs(children, timeout=30)

    def destroy(self) -> None:
        if self.process.poll() is None:
            self.kill()
