"""Podman's settings for a person, by what this machine allows, and an image that others are built on."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from booted.isolated import finish, why_not_isolated
from container.person import HOME, Person

PROGRAMS = {"podman": "podman", "newuidmap": "uidmap", "debootstrap": "debootstrap", "nsenter": "util-linux"}
"""What is needed here, and the Debian package that has it."""

RUNTIMES = ("crun", "runc")
"""Any of them; crun gives up where control groups are of both versions."""

BASE = "docker.io/library/debian:bookworm-slim"
"""What the Containerfile is built on."""

_LIBRARIES = "libraries"

_ENVIRONMENT = {
    "PYTHONPATH": ":".join(f"/{_LIBRARIES}/{number}" for number in range(2)),
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",
}
"""What is other than in the real image: pip finds the libraries there already, and downloads none.

pip reads the last one as it reads ``--no-build-isolation``: 0 is no isolation.
"""

_BASE_S = _BUILD_S = 300.0


class CannotContain(Exception):
    """No containers can be run here; the message says why."""


@dataclass(frozen=True)
class Shown:
    """Folders of this machine that the person sees below /home.

    Attributes:
        checkout: this repository, for podman to build.
        packages: where this test run's Python has its packages.
    """

    checkout: Path
    packages: tuple[Path, ...]

    @classmethod
    def here(cls) -> "Shown":
        packages = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
        return cls(Path(__file__).parent.parent.parent, tuple(sorted(packages)))

    def by_name(self) -> dict[str, Path]:
        libraries = {f"{_LIBRARIES}/{number}": folder for number, folder in enumerate(self.packages)}
        return {"checkout": self.checkout, **libraries}


def why_not() -> str | None:
    """Why no container can be run here; None if nothing is known against it."""
    if os.geteuid() != 0:
        return "making a user for the container needs root"
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if not any(map(shutil.which, RUNTIMES)):
        missing.add(RUNTIMES[-1])
    if missing:
        return f"running containers needs more: apt-get install {' '.join(sorted(missing))}"
    for folder in (Shown.here().checkout, *Shown.here().packages):
        if folder.stat().st_mode & 0o5 != 0o5:
            return f"the container's user must be able to read it: chmod -R o+rX {folder}"
    return why_not_isolated()


def set_up(person: Person, tree: Path) -> None:
    """Give the person settings, and the base image, made of a Debian tree.

    Raises:
        CannotContain: podman can't run containers here.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (tree / "usr/bin" / version).exists():
        raise CannotContain(f"Debian's Python is not {version}, so it can't use this one's packages")
    reasons = []
    for driver in ("overlay", "vfs"):
        person.write(".config/containers/storage.conf", f'[storage]\ndriver = "{driver}"\n')
        for runtime in filter(shutil.which, RUNTIMES):
            person.write(".config/containers/containers.conf", _settings(runtime))
            reason = _why_not_so(person, tree)
            if reason is None:
                return
            reasons.append(f"with {driver} and {runtime}: {reason}")
        shutil.rmtree(person.home / ".local", ignore_errors=True)
    if shutil.which("runc") is None:
        reasons.append("another runtime may do: apt-get install runc")
    raise CannotContain(f"podman can't run containers here: {'; '.join(reasons)}")


def _settings(runtime: str) -> str:
    """The network is this machine's: nothing is sent or received, and what makes another may be missing.

    apt has no sources, so it finds that the base has all that the build asks for.
    """
    volumes = [f"/home/{_LIBRARIES}:/{_LIBRARIES}:ro", f"{HOME}/no-sources:/etc/apt/sources.list:ro"]
    return f"""
[containers]
netns = "host"
volumes = {volumes!r}
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "{runtime}"
"""


def _why_not_so(person: Person, tree: Path) -> str | None:
    """Have the image made, if it isn't there, and a container run; None if that succeeded."""
    person.write("no-sources", "")
    if person.attempt(f"podman image exists {BASE}").returncode != 0:
        environment = " ".join(f"--change 'ENV {name}={value}'" for name, value in _ENVIRONMENT.items())
        imported = _piped(tree, person.begin(HOME, f"podman import --quiet {environment} - {BASE}"))
        if imported:
            return imported
    ran = person.attempt(f"podman run --rm {BASE} true")
    return f"{ran.stdout.strip()[-500:]}" if ran.returncode else None


def _piped(tree: Path, command: Sequence[str]) -> str | None:
    """Give a command the tree as an archive; what it said if it failed.

    Devices are left out: nobody but root can make them.
    """
    archived = 'tar --directory="$0" --exclude="./dev/*" --create . | "$@"'
    done = finish(["bash", "-o", "pipefail", "-c", archived, str(tree), *command], _BASE_S)
    return done.stdout.strip()[-500:] if done.returncode else None
