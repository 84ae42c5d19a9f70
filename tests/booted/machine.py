"""A machine that systemd-nspawn boots over a tree: its own systemd, nothing of it left at the end."""

import contextlib
import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from booted.cgroup import CannotBoot, OwnCgroup
from booted.isolated import ISOLATED, TookTooLong, finish
from waiting import PATIENCE_S, wait_for

PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
"""What is needed here, and the Debian package that has it."""

_POWEROFF = signal.SIGRTMIN + 4
"""systemd(1): as good as ``systemctl poweroff``."""


class Machine:
    """A booted machine.

    Attributes:
        root: its root folder, as seen from here; links in it that begin with / lead astray.
    """

    def __init__(self, name: str, nspawn: subprocess.Popen[bytes], console: Path, init: int) -> None:
        self.root = Path(f"/proc/{init}/root")
        self._name = name
        self._nspawn = nspawn
        self._console = console
        self._init = init

    def run(self, *command: str, seconds: float = PATIENCE_S) -> str:
        """What a command in the machine says; it must succeed.

        Raises:
            AssertionError: it failed, or took longer; the message has what it said.
        """
        done = self.attempt(*command, seconds=seconds)
        assert done.returncode == 0, f"{command!r} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def attempt(self, *command: str, seconds: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """A command in the machine that may fail, with what it said."""
        return finish(["nsenter", "--target", str(self._init), "--all", "--", *command], seconds)

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Put a file there, and the folders it lies in."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def read(self, path: str) -> bytes:
        return (self.root / path.lstrip("/")).read_bytes()

    def power_off(self) -> None:
        """Have it end its services and itself.

        Raises:
            AssertionError: it didn't.
        """
        os.kill(self._init, _POWEROFF)
        try:
            self._nspawn.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            said = self._console.read_text(errors="replace")
            raise AssertionError(f"the machine didn't power off; its console:\n{said[-4000:]}") from None


@contextlib.contextmanager
def booted(tree: Path, bindings: Mapping[str, Path]) -> Iterator[Machine]:
    """A machine whose root is the tree, as it was made, and what is written is kept in memory.

    Args:
        tree: stays untouched.
        bindings: folders of this machine by where it has them, read-only.

    Raises:
        CannotBoot: no control group can be made, or nspawn gave up.
        AssertionError: it began to boot, and didn't come to running.
    """
    name = f"maskdrop-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory(prefix=name) as folder, OwnCgroup(name) as cgroup:
        console = Path(folder) / "console"
        command = [*cgroup.entering, *ISOLATED, *_nspawn(name, tree, bindings)]
        with console.open("wb") as output:
            nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            machine = Machine(name, nspawn, console, _wait_init(nspawn, console))
            _wait_running(machine)
            yield machine
            machine.power_off()
        finally:
            nspawn.kill()
            nspawn.wait()


def _nspawn(name: str, tree: Path, bindings: Mapping[str, Path]) -> list[str]:
    options = [
        "--register=no",
        "--keep-unit",
        "--quiet",
        "--boot",
        f"--machine={name}",
        f"--directory={tree}",
    ]
    options += ["--volatile=overlay", "--link-journal=no", "--console=pipe"]
    # Machines at the same time would else share abstract sockets, with each other and with this one.
    options += ["--private-network"]
    for there, here in bindings.items():
        source = str(here).replace("\\", "\\\\").replace(":", "\\:")
        options.append(f"--bind-ro={source}:{there}")
    return ["systemd-nspawn", *options]


def _wait_init(nspawn: subprocess.Popen[bytes], console: Path) -> int:
    """Process number, here, of the machine's first process, once that is systemd."""

    def init() -> int | None:
        if nspawn.poll() is not None:
            said = console.read_text(errors="replace").strip()
            raise CannotBoot(f"systemd-nspawn can't boot a machine here: {said}")
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(nspawn.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    parent = process.parent()
                    if process.name() == "systemd" and parent and parent.name() == "systemd-nspawn":
                        return process.pid
        return None

    found = wait_for(init, "systemd in the machine")
    assert found is not None
    return found


def _wait_running(machine: Machine) -> None:
    """Wait until everything that is to start at boot has started."""

    def state() -> str | None:
        said = machine.attempt("systemctl", "is-system-running", "--wait").stdout.strip()
        return said if said in ("running", "degraded", "maintenance") else None

    try:
        came_to = wait_for(state, "the machine's systemd to answer")
    except TookTooLong as error:
        raise AssertionError(f"{error}\n{machine.attempt('systemctl', 'list-jobs').stdout}") from None
    if came_to != "running":
        raise AssertionError(f"booted, but {came_to}:\n{machine.attempt('systemctl', '--failed').stdout}")
