"""The virtual environment that a service runs from: checking it, and making one."""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import maskdrop

HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
"""Folders that the unit's ProtectHome and PrivateTmp hide."""

_OLDEST = (3, 11)

_BY_SHELL = re.compile(rb"""\A#!/bin/sh\n'''exec' "?([^"\n]+?)"? "\$0" "\$@"\n' '''\n""")
"""How pip begins a script if the interpreter's path is too long for the kernel, as in a staging folder."""


def checkout() -> Path | None:
    """The source folder that this maskdrop runs from; None where it is installed as a package."""
    folder = Path(maskdrop.__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() else None


def pip_options(source: str) -> list[str]:
    """pip's options for the constraints of a checkout, if ``source`` is one."""
    constraints = Path(source) / "constraints.txt"
    return ["--constraint", str(constraints)] if constraints.is_file() else []


def present_environment() -> Path:
    """The environment that this process runs in."""
    return Path(sys.prefix)


def why_unusable(environment: Path) -> str | None:
    """Why the service can't run from this environment; None if it can.

    If this process itself runs from it, maskdrop's own code has to be reachable too: it may be a checkout
    elsewhere.
    """
    needed = [environment, environment / "bin" / "maskdrop", (environment / "bin" / "python").resolve()]
    if environment == present_environment():
        needed.append(Path(maskdrop.__file__))
    for path in needed:
        reason = _why_unreachable(path)
        if reason:
            return reason
    # Needed because the unit waits until the daemon says that it is ready (Type=notify).
    asked = [str(environment / "bin" / "python"), "-c", "import systemd.daemon"]
    if subprocess.run(asked, check=False, capture_output=True).returncode:
        return f"it has no systemd-python ({environment}/bin/pip install systemd-python)"
    return None


def service_python() -> Path | None:
    """A Python that can make the service's environment: this one's, or else the system's."""
    for candidate in (
        Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}"),
        Path("/usr/bin/python3"),
    ):
        if candidate.exists() and not _why_unreachable(candidate.resolve()) and _new_enough(candidate):
            return candidate
    return None


def make_environment(
    folder: Path,
    final: Path,
    python: Path,
    install: Sequence[str],
    options: Sequence[str] = (),
    with_pip: bool = True,
) -> None:
    """Make a virtual environment in a folder, for use there or at another path.

    pip goes into it too, so that people can add packages, unless Debian's python3-venv is missing or
    ``with_pip`` is False.

    Args:
        folder: where it is made now.
        final: where it will be when it is used.
        install: what pip is to install: requirements, wheels, source folders.
        options: of pip's install command.
        with_pip: whether pip itself is wanted in it.

    Raises:
        CalledProcessError: venv or pip failed; they have said why.
    """
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    can_have_pip = subprocess.run([python, "-c", "import ensurepip"], check=False, capture_output=True)
    without = [] if with_pip and can_have_pip.returncode == 0 else ["--without-pip"]
    link = folder / "bin" / "python"
    is_dangling = link.is_symlink() and not link.exists()  # after the system's Python was replaced
    clear = ["--clear"] if is_dangling else []
    subprocess.run([python, "-m", "venv", *clear, *without, folder], check=True, env=own)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--upgrade"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-compile"]
    there = (folder / "bin" / "maskdrop").exists()
    subprocess.run([*pip, *quiet, *options, *install], check=True, env=own)
    if there:
        # pip takes builds of the same version number for the same, and a checkout's all have one number.
        subprocess.run([*pip, *quiet, "--force-reinstall", "--no-deps", *install], check=True, env=own)
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
    subprocess.run(command, check=False, capture_output=True, env=own)


def build_wheel(source: Path, work: Path) -> Path:
    """Build a wheel of a checkout, from a copy, since setuptools leaves files beside the sources.

    Raises:
        CalledProcessError: pip failed; it has said why.
    """
    copy = work / "source"
    for name in ("daemon", "systemd", "etc"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(source / name, copy / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel", "--no-deps"]
    isolation = ["--no-build-isolation"] if _has_setuptools() else []
    subprocess.run([*pip, *isolation, "--wheel-dir", str(work), str(copy)], check=True)
    return next(work.glob("maskdrop-*.whl"))


def _has_setuptools() -> bool:
    """Whether wheels can be built with the setuptools that is installed, without asking an index for it."""
    program = "import sys, setuptools; sys.exit(int(setuptools.__version__.split('.')[0]) < 69)"
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0


def _rewrite_paths(folder: Path, final: Path) -> None:
    """Scripts name their interpreter by its full path: make it the final one."""
    for path in [*(folder / "bin").iterdir(), folder / "pyvenv.cfg"]:
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if b"\0" not in content:
                content = content.replace(str(folder).encode(), str(final).encode())
                path.write_bytes(_BY_SHELL.sub(rb"#!\1\n", content))


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
