"""The single steps of installing and uninstalling: described to people, or done, below a root folder."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskdrop.durable import replace_file
from maskdrop.service.environment import build_wheel, make_environment, pip_options
from maskdrop.service.layout import STATE, USER, sysusers_line

BUILD_PACKAGES = "gcc libc6-dev libsystemd-dev pkg-config python3-dev"
"""Debian packages that building systemd-python needs."""


class StepFailed(Exception):
    """A step can't be done; the message says why, and what to do."""


def below(root: Path, path: Path) -> Path:
    """Where an absolute path of the system lies below a root folder."""
    return root / path.relative_to("/")


@dataclass(frozen=True)
class WriteFile:
    """Write a file that belongs to root, whole or not at all."""

    target: Path
    content: bytes
    why: str

    def __str__(self) -> str:
        return f"write {self.target} ({self.why})"

    def do(self, root: Path) -> None:
        path = below(root, self.target)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, self.content, 0o644)


@dataclass(frozen=True)
class KeepFile:
    """Leave a file as it is, but say why."""

    target: Path
    why: str

    def __str__(self) -> str:
        return f"keep {self.target} ({self.why})"

    def do(self, root: Path) -> None:
        del root


@dataclass(frozen=True)
class RemoveFile:
    """Remove an installed file, and with ``and_folder`` its folder, if nothing else is in it."""

    target: Path
    and_folder: bool = False

    def __str__(self) -> str:
        return f"remove {self.target}"

    def do(self, root: Path) -> None:
        path = below(root, self.target)
        path.unlink(missing_ok=True)
        if self.and_folder and not any(path.parent.iterdir()):
            path.parent.rmdir()


@dataclass(frozen=True)
class WriteLink:
    """Write a symbolic link that belongs to root, replacing an old one atomically."""

    target: Path
    to: Path

    def __str__(self) -> str:
        return f"link {self.target} to {self.to}"

    def do(self, root: Path) -> None:
        path = below(root, self.target)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self.to)
        temporary.replace(path)


@dataclass(frozen=True)
class MakeUser:
    """Make the service's user and group, by systemd-sysusers, or by useradd where that is missing."""

    def __str__(self) -> str:
        return f"make the user and the group {USER}"

    def do(self, root: Path) -> None:
        if shutil.which("systemd-sysusers"):
            _run(["systemd-sysusers", f"--root={root}", "--inline", sysusers_line()])
            return
        prefix = [] if root == Path("/") else ["--prefix", str(root)]
        home = ["--home-dir", str(STATE), "--no-create-home", "--shell", "/usr/sbin/nologin"]
        _run(["useradd", *prefix, "--system", "--user-group", *home, USER])


@dataclass(frozen=True)
class MakeFolder:
    """Make a folder that belongs to the service's user."""

    target: Path
    mode: int

    def __str__(self) -> str:
        return f"make {self.target} ({self.mode:04o}, {USER}:{USER})"

    def do(self, root: Path) -> None:
        user, group = _identity(root)
        path = below(root, self.target)
        path.mkdir(parents=True)
        os.chown(path, user, group)
        path.chmod(self.mode)


@dataclass(frozen=True)
class MakeEnvironment:
    """Make a virtual environment with maskdrop in it."""

    target: Path
    source: str
    python: Path

    def __str__(self) -> str:
        return f"make the virtual environment {self.target}, with {self.source}"

    def do(self, root: Path) -> None:
        try:
            with tempfile.TemporaryDirectory() as work:
                source = Path(self.source)
                wheel = build_wheel(source, Path(work)) if source.is_dir() else source
                install, options = [f"{wheel}[systemd]"], pip_options(self.source)
                make_environment(below(root, self.target), self.target, self.python, install, options)
        except (subprocess.CalledProcessError, OSError) as error:
            remedy = f"systemd-python is built here: apt-get install {BUILD_PACKAGES}"
            raise StepFailed(f"{self.target}: can't be made ({error}); {remedy}") from error


@dataclass(frozen=True)
class RemoveEnvironment:
    """Remove the virtual environment that an installation made."""

    target: Path

    def __str__(self) -> str:
        return f"remove the virtual environment {self.target}"

    def do(self, root: Path) -> None:
        folder = below(root, self.target)
        if (folder / "pyvenv.cfg").is_file():
            shutil.rmtree(folder)


@dataclass(frozen=True)
class RunCommand:
    """Run one of systemd's commands."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"run {' '.join(self.words)}"

    def do(self, root: Path) -> None:
        del root
        _run(self.words)


Step = (
    WriteFile
    | KeepFile
    | RemoveFile
    | WriteLink
    | MakeUser
    | MakeFolder
    | MakeEnvironment
    | RemoveEnvironment
    | RunCommand
)


def do_step(step: Step, root: Path) -> None:
    """Do one step.

    Raises:
        StepFailed: the message names the file or command, and the remedy.
    """
    try:
        step.do(root)
    except OSError as error:
        raise StepFailed(f"can't {step}: {error.strerror}; are you root?") from error


def user_exists(root: Path) -> bool:
    """Whether the service's user is in the system below a root folder."""
    return _ids(root, "passwd") is not None


def _identity(root: Path) -> tuple[int, int]:
    user, group = _ids(root, "passwd"), _ids(root, "group")
    if user is None or group is None:
        raise StepFailed(f"there is no user or no group {USER} in {below(root, Path('/etc/passwd'))}")
    return user, group


def _ids(root: Path, table: str) -> int | None:
    """The user's or group's number; read from the root's own files, which needn't be this system's."""
    try:
        lines = below(root, Path("/etc") / table).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    found = [line.split(":") for line in lines if line.startswith(f"{USER}:")]
    return int(found[0][2]) if found else None


def _run(words: Sequence[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise StepFailed(f"{words[0]}: no such command; install the package that has it") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().replace("\n", "; ")
        raise StepFailed(f"{' '.join(words)}: exit code {done.returncode}: {said}")
