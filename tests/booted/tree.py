"""A Debian or Ubuntu tree, made by debootstrap once and kept for the next time.

It is of this machine's own release, so that this machine's Python and its packages run in it.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from booted.isolated import ISOLATED, finish

BOOTABLE = ("systemd", "systemd-sysv", "dbus")
"""What a tree must have to be booted: an init, and what ``systemctl`` talks to it through."""

MIRRORS = {"debian": "http://deb.debian.org/debian", "ubuntu": "http://archive.ubuntu.com/ubuntu"}
"""Where packages come from if apt doesn't say."""

MAKING_S = 600.0

_NO_SYNC = "security-mac,downgrade,unsafe-io"
"""dpkg's own defaults, and no fsync: a tree half made is thrown away anyway."""


class TreeMissing(Exception):
    """There is no tree and none can be made here; the message says why."""


def cache_folder() -> Path:
    """Where trees are kept: only root makes them, so beside the system's other caches."""
    base = os.environ.get("XDG_CACHE_HOME") or "/var/cache"
    return Path(base) / "maskdrop" / "trees"


def debian_tree(*packages: str) -> Path:
    """The tree with these packages beside the least there is; it must not be changed, only laid under
    something or copied.

    The first call makes it, which takes about a minute; calls beside it wait for that.

    Raises:
        TreeMissing: it is not there and can't be made.
    """
    suite, mirror = _release()
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    tree = folder / "+".join([suite, *sorted(set(packages))])
    with _locked(folder / ".lock"):
        if not tree.is_dir():
            _check_network(mirror, suite)
            _make(tree, suite, mirror, sorted(set(packages)))
    return tree


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _release() -> tuple[str, str]:
    """This machine's release and where apt gets it from.

    Raises:
        TreeMissing: debootstrap doesn't make it.
    """
    release = platform.freedesktop_os_release()
    system, suite = release.get("ID", ""), release.get("VERSION_CODENAME", "")
    if system not in MIRRORS or not suite:
        raise TreeMissing(
            f"this is {release.get('PRETTY_NAME')}: debootstrap makes releases of Debian and Ubuntu"
        )
    listed = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in listed.stdout.splitlines():
        uri, *names = line.split(" ")
        if names == [suite, "main"] and uri.startswith(("http://", "https://")):
            return suite, uri.rstrip("/")
    return suite, MIRRORS[system]


def _check_network(mirror: str, suite: str) -> None:
    try:
        with urllib.request.urlopen(f"{mirror}/dists/{suite}/InRelease", timeout=20):
            pass
    except OSError as error:
        raise TreeMissing(
            f"{mirror} is needed once, for a tree of {suite}, and can't be reached: {error}"
        ) from error


def _make(tree: Path, suite: str, mirror: str, packages: list[str]) -> None:
    unfinished = tree.with_name(f".{tree.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    debootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}"]
    made = finish(
        ["env", f"DPKG_FORCE={_NO_SYNC}", *ISOLATED, *debootstrap, suite, str(unfinished), mirror], MAKING_S
    )
    assert made.returncode == 0, f"debootstrap failed:\n{made.stdout[-4000:]}"
    for package in (unfinished / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    unfinished.rename(tree)
