"""This test run's Python, its packages and this checkout, as they appear in a machine.

There they lie below /opt, wherever they are here: a service may not look into anybody's home.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

CHECKOUT = "/opt/checkout"
"""Where the machine has this repository, read-only."""

_PYTHON = "/opt/python"
_PACKAGES = "/opt/python-packages"
_LIBRARIES = "/opt/python-libraries"

_REPOSITORY = Path(__file__).parent.parent.parent
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_OF_THE_SYSTEM = sys.base_prefix == "/usr"


def debian_packages() -> tuple[str, ...]:
    """What the tree must have so that this Python runs in it."""
    return ("python3",) if _OF_THE_SYSTEM else ()


def bindings() -> dict[str, Path]:
    """Folders of this machine, by where the booted one has them, to be bound in read-only."""
    bound = {CHECKOUT: _REPOSITORY}
    if not _OF_THE_SYSTEM:
        bound[_PYTHON] = Path(sys.base_prefix)
    for number, folder in enumerate(_package_folders()):
        bound[f"{_PACKAGES}/{number}"] = folder
    return bound


def program() -> str:
    """The interpreter's path in the machine."""
    return f"/usr/bin/{_VERSION}" if _OF_THE_SYSTEM else f"{_PYTHON}/bin/{_VERSION}"


def search_path() -> list[str]:
    """Folders of the machine from which a virtual environment there imports maskdrop and what it needs."""
    return [f"{CHECKOUT}/daemon", *(f"{_PACKAGES}/{number}" for number in range(len(_package_folders())))]


def _package_folders() -> list[Path]:
    return sorted({Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")})


def add_libraries(root: Path) -> str | None:
    """Copy shared libraries of this machine's that the interpreter needs and the tree lacks.

    Args:
        root: the machine's root as seen from here.

    Returns:
        Their folder in the machine, for the dynamic linker; None where nothing is lacking.
    """
    if _OF_THE_SYSTEM:
        return None
    base = Path(sys.base_prefix)
    folder = root / _LIBRARIES.lstrip("/")
    folder.mkdir()
    for library in _needed(base):
        if library.is_relative_to(base):
            (folder / library.name).symlink_to(f"{_PYTHON}/{library.relative_to(base)}")
        elif not os.path.lexists(root / str(library).lstrip("/")):
            shutil.copy(library, folder / library.name)
    return _LIBRARIES


def _needed(base: Path) -> set[Path]:
    """Shared libraries that the interpreter and its own extension modules are linked with."""
    modules = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    linked = subprocess.run(
        ["ldd", base / "bin" / _VERSION, *modules.glob("*.so")], capture_output=True, text=True, check=False
    )
    return {Path(path) for path in re.findall(r"=> (/.+) \(0x", linked.stdout)}


def site_packages(venv: str) -> str:
    """Where a virtual environment of the interpreter, at this path, has its packages."""
    return f"{venv}/lib/{_VERSION}/site-packages"
