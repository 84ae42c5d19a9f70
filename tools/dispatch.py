"""Spreads pictures that arrive in one folder over the inboxes of several daemons, by rename.

    python3 dispatch.py ARRIVING INBOX INBOX … [--most 64] [--settle 5] [--every 1] [--once]

For inboxes on one shared disk (NFS or another), one for each host. Each file goes to the inbox that has
fewest waiting, the oldest file first, and no inbox gets more than --most: so a quick host gets more than a
slow one, and a host that stands still keeps no more than that from the others. A file whose name is in use
in an inbox waits until that one is done; nothing is ever replaced. A file that can't be moved stays, is
reported once, and is tried again. An inbox that is gone gets nothing until it is back, and is never made.

A move is one rename, which a file system does whole or not at all: at any instant a picture is in ARRIVING
or in one inbox, whatever is killed. Where a rename can't refuse to replace, as over NFS, a move is a link and
then an unlink: a kill between the two leaves the picture in both. Another user's file, where it may not be
linked, is renamed over an empty file that reserves its name; a kill between the two leaves the empty file.
Only one dispatcher works for ARRIVING at a time; a second one says so and exits 75. Needs Python 3.11 and
nothing else: copy it where it is to run.

To take a dead host's pictures back, run it with --once, its inbox as ARRIVING, the others as inboxes, and
more for --most than it holds. If the inboxes are full, --once says so and exits 75.
"""

import argparse
import ctypes
import errno
import fcntl
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

UNFINISHED = (".part", ".tmp", ".crdownload")
LOCK = ".dispatch.lock"
EX_TEMPFAIL, EX_CONFIG = 75, 78

_HERE, _RENAME_NOREPLACE = -100, 1  # AT_FDCWD and a flag of renameat2(2)
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, order=True)
class Waiting:
    """A file in ARRIVING, as it was when looked at; the oldest first."""

    mtime_ns: int
    path: str
    size: int


class Quiet:
    """Which files have stood still for long enough, by this machine's clock and not the server's."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[Waiting, float] = {}

    def settled(self, files: list[Waiting], now: float) -> list[Waiting]:
        self._since = {file: self._since.get(file, now) for file in files}
        return sorted(file for file, since in self._since.items() if now - since >= self._seconds)


def pictures(folder: Path) -> Iterator[Waiting]:
    """Finished files below a folder; links, and hidden files and folders, are skipped."""
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or name.endswith(UNFINISHED):
                continue
            path = Path(at, name)
            try:
                status = path.lstat()
            except OSError:  # taken away, or in a folder that is closed
                continue
            if stat.S_ISREG(status.st_mode):
                yield Waiting(status.st_mtime_ns, str(path.relative_to(folder)), status.st_size)


@dataclass(frozen=True)
class Trouble:
    """Why a file stays in ARRIVING, or an inbox is given nothing."""

    path: str
    why: str


class Told:
    """Reports troubles, each once for as long as it lasts."""

    def __init__(self) -> None:
        self._before: set[Trouble] = set()

    def tell(self, troubles: list[Trouble]) -> None:
        for trouble in troubles:
            if trouble not in self._before:
                sys.stderr.write(f"{trouble.path!a}: {trouble.why}\n")
        self._before = set(troubles)


class Spread(NamedTuple):
    """How many files were moved, what keeps others, and whether any wait for room in an inbox."""

    moved: int
    troubles: list[Trouble]
    is_full: bool


def spread(arriving: Path, inboxes: list[Path], files: list[Waiting], most: int) -> Spread:
    """Move each file to the inbox that holds fewest."""
    there = [inbox for inbox in inboxes if inbox.is_dir()]
    gone = [str(inbox) for inbox in inboxes if inbox not in there]
    held = {inbox: {file.path for file in pictures(inbox)} for inbox in there}
    moved, troubles = 0, [Trouble(inbox, "no such folder; it is given nothing") for inbox in gone]
    for file in files if held else ():
        if any(file.path in names for names in held.values()):
            continue
        inbox = min(held, key=lambda inbox: len(held[inbox]))
        if len(held[inbox]) >= most:
            return Spread(moved, troubles, True)
        try:
            make_below(inbox, PurePath(file.path).parent)
            rename_new(arriving / file.path, inbox / file.path)
        except FileNotFoundError:
            continue  # the file was taken away, or the inbox was
        except OSError as error:  # such as a name that a daemon has put back since the look
            troubles.append(Trouble(file.path, f"{error.strerror or error}; it stays where it is"))
            continue
        held[inbox].add(file.path)
        moved += 1
    return Spread(moved, troubles, False)


def make_below(inbox: Path, folders: PurePath) -> None:
    """Make sub-folders, but never the inbox itself: if it is gone, nobody would watch a new one.

    Raises:
        FileNotFoundError: the inbox is gone.
        OSError: one can't be made.
    """
    at = inbox
    for name in folders.parts:
        at /= name
        at.mkdir(exist_ok=True)


def rename_new(source: Path, target: Path) -> None:
    """Rename, never replacing anything.

    Raises:
        FileExistsError: the new name is in use.
        OSError: it can't be done.
    """
    renameat2 = getattr(_libc, "renameat2", None)
    if renameat2 is not None:
        names = os.fsencode(source), os.fsencode(target)
        if renameat2(_HERE, names[0], _HERE, names[1], _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number), str(target))
    try:
        os.link(source, target, follow_symlinks=False)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        rename_over_own(source, target)
        return
    try:
        source.unlink()
    except PermissionError:  # and no other error: where an answer was lost, the target may be all there is
        target.unlink()
        raise


def rename_over_own(source: Path, target: Path) -> None:
    """The same for another user's file, which may not be linked (fs.protected_hardlinks): an empty file of
    our own reserves its name.

    Raises:
        FileExistsError: the new name is in use.
        OSError: it can't be done; where its outcome isn't known, the empty file stays.
    """
    with target.open("xb") as own:
        try:
            source.rename(target)
        except PermissionError:
            if os.path.samestat(os.fstat(own.fileno()), target.lstat()):
                target.unlink()
            raise


def lock(arriving: Path) -> int:
    """A descriptor that holds the lock of ARRIVING, until this process ends.

    Raises:
        BlockingIOError: another dispatcher has it.
    """
    descriptor = os.open(arriving / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("arriving", type=Path, help="folder in which pictures arrive")
    parser.add_argument("inboxes", type=Path, nargs="+", help="the daemons' inboxes, on the same file system")
    parser.add_argument("--most", type=int, default=64, help="pictures that wait in an inbox at most")
    parser.add_argument("--settle", type=float, default=5.0, help="seconds for which a file must stand still")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two looks")
    parser.add_argument("--once", action="store_true", help="end when nothing is left that can be moved")
    options = parser.parse_args()
    for folder in (options.arriving, *options.inboxes):
        if not folder.is_dir():
            sys.stderr.write(f"{folder}: no such folder; make it, or mount its disk\n")
            return EX_CONFIG
    if len({folder.stat().st_dev for folder in (options.arriving, *options.inboxes)}) > 1:
        sys.stderr.write("the folders are not on one file system: a rename would not be atomic\n")
        return EX_CONFIG
    try:
        lock(options.arriving)
    except BlockingIOError:
        sys.stderr.write(f"{options.arriving}: another dispatcher is at work there\n")
        return EX_TEMPFAIL
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    quiet, told = Quiet(options.settle), Told()
    while not over.is_set():
        files = list(pictures(options.arriving))
        settled = quiet.settled(files, time.monotonic())
        moved, troubles, is_full = spread(options.arriving, options.inboxes, settled, options.most)
        told.tell(troubles)
        if moved:
            sys.stdout.write(f"{moved} moved, {len(files) - moved} waiting\n")
            sys.stdout.flush()
        if options.once and not moved and len(settled) == len(files):
            if not is_full:
                break
            full = f"every inbox holds --most {options.most}, and some of {len(files)} files wait"
            sys.stderr.write(f"{full}: run it again when these are done, or with more for --most\n")
            return EX_TEMPFAIL
        over.wait(options.every)
    return 0


if __name__ == "__main__":
    sys.exit(main())
