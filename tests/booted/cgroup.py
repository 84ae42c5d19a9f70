"""Control groups of a machine's own, so that machines at the same time don't meet in one."""

import contextlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_SYSTEMD_RUNS = Path("/run/systemd/system")
"""sd_booted(3)."""

_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit; shift; done; shift; exec "$@"'

_REMOVAL_S = 10.0


class CannotBoot(Exception):
    """No machine can be booted here; the message says why."""


class OwnCgroup:
    """Control groups for one command and what it starts, removed at the end.

    Attributes:
        entering: begins the command.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._folders: list[Path] = []
        self.entering: list[str] = []

    def __enter__(self) -> Self:
        if _SYSTEMD_RUNS.is_dir():  # they are systemd's, and it is asked for one
            unit = f"--unit={self._name}"
            self.entering = [
                "systemd-run",
                "--scope",
                "--quiet",
                "--collect",
                unit,
                "--property=Delegate=yes",
                "--",
            ]
            return self
        self._folders = [folder / self._name for folder in _present()]
        try:
            for folder in self._folders:
                folder.mkdir()
        except OSError as error:
            raise CannotBoot(f"a machine needs control groups of its own: {error}") from error
        self.entering = ["sh", "-c", _ENTER, "sh", *map(str, self._folders), "--"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for folder in self._folders:
            _remove(folder)


def _present() -> list[Path]:
    """This process's control groups in the hierarchies that systemd puts units into."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    points = {}
    for _, point, kind, options, *_ in mounts:
        if kind == "cgroup2":
            points[""] = point
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            points["name=systemd"] = point
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return [Path(points[name] + group) for _, name, group in groups if name in points]


def _remove(folder: Path) -> None:
    """Remove a group and those below it; killed processes leave them a moment later."""
    deadline = time.monotonic() + _REMOVAL_S
    while folder.is_dir():
        for inner, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):
                Path(inner).rmdir()
        if time.monotonic() > deadline:
            raise AssertionError(f"processes are left in {folder}")
        time.sleep(0.02)
