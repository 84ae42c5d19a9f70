"""The virtual environment a service runs from: whether it can, and making one."""

import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import maskdrop

HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
"""Folders that the unit's ProtectHome and PrivateTmp hide."""

_OLDEST = (3, 11)


def checkout() -> Path | None:
    """The source folder that this maskdrop runs from; None where it is installed as a package."""
    folder = Path(maskdrop.__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() else None


def present_environment() -> Path:
    """The environment that this process runs in."""
    return Path(sys.prefix)


def why_unusable(environment: Path) -> str | None:
    """Why the service couldn't run from this environment; None where it could.

    Where this very process runs from it, maskdrop's own code counts too: it may be a checkout elsewhere.
    """
    needed = [environment, environment / "bin" / "maskdrop", (environment / "bin" / "python").resolve()]
    if environment == present_environment():
        needed.append(Path(maskdrop.__file__))
    for path in needed:
        reason = _why_unreachable(path)
        if reason:
            return reason
    # The unit waits to be told that the daemon is ready (Type=notify).
    asked = [str(environment / "bin" / "python"), "-c", "import systemd.daemon"]
    if subprocess.run(asked, check=False, capture_output=True).returncode:
        return f"it has no systemd-python ({environment}/bin/pip install systemd-python)"
    return None


def service_python() -> Path | None:
    """A Python from which the service's environment can be made: this one's, or else the system's."""
    for candidate in (
        Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}"),
        Path("/usr/bin/python3"),
    ):
        if candidate.exists() and not _why_unreachable(candidate.resolve()) and _new_enough(candidate):
            return candidate
    return None


def make_environment(
    folder: Path, final: Path, python: Path, install: Sequence[str], pip_options: Sequence[str] = ()
) -> None:
    """Make a virtual environment in a folder, to be used at another path if that differs.

    pip goes into it too, so that people can add packages; but not where Debian's python3-venv is missing.

    Args:
        folder: where it is made now.
        final: where it will be when it is used.
        install: what pip is to install: requirements, wheels, source folders.

    Raises:
        CalledProcessError: venv or pip failed; they have said why.
    """
    can_have_pip = subprocess.run([python, "-c", "import ensurepip"], check=False, capture_output=True)
    without = [] if can_have_pip.returncode == 0 else ["--without-pip"]
    subprocess.run([python, "-m", "venv", *without, folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--upgrade"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*pip, *quiet, *pip_options, *install], check=True)
    if folder != final:
        _rewrite_paths(folder, final)
    # Some packages carry files for other versions of Python, which don't compile; nobody imports them.
    program = [
        str(folder / "bin" / "python"),
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode",
        "unchecked-hash",
    ]
    command = [*program, "-s", str(folder), "-p", str(final), str(folder / "lib")]
    subprocess.run(command, check=False, capture_output=True)


def _rewrite_paths(folder: Path, final: Path) -> None:
    """Scripts name their interpreter by its full path: make it the final one."""
    for path in [*(folder / "bin").iterdir(), folder / "pyvenv.cfg"]:
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if b"\0" not in content:
                path.write_bytes(content.replace(str(folder).encode(), str(final).encode()))


def _why_unreachable(path: Path) -> str | None:
    for folder in HIDDEN:
        if path.is_relative_to(folder):
            return f"{path} is in {folder}, which is hidden from the service"
    if not path.exists():
        return f"there is no {path}"
    for part in (path, *path.parents):
        if not part.stat().st_mode & stat.S_IXOTH and not (part == path and part.is_file()):
            return f"{part} can't be entered by other users than its own (chmod o+x)"
    return None


def _new_enough(python: Path) -> bool:
    program = f"import sys, venv; sys.exit(sys.version_info < {_OLDEST})"
    return subprocess.run([python, "-c", program], check=False, capture_output=True).returncode == 0
