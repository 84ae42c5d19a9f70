"""Reading the inbox folder: which names may be pictures, and which are left alone."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from maskdrop.beneath import identity_below, open_folder, parts_of, split
from maskdrop.ticket import Identity

UNFINISHED = (".part", ".tmp", ".crdownload")
"""Endings that browsers and copy programs give to files that are not whole yet."""

MOST_IN_VAIN = 1_000
"""If none of the first so many entries can be looked at, it is their folder's trouble, not theirs."""

_ELSEWHERE = "folder on another file system"


@dataclass(frozen=True)
class Seen:
    """A regular file, its path relative to the inbox."""

    path: str
    identity: Identity


@dataclass(frozen=True)
class Oddity:
    """Something that is no regular file, and is never opened."""

    path: str
    kind: str


def is_candidate(path: str, recursive: bool) -> bool:
    """Whether a relative path may be a picture, or a folder of pictures, going by its name alone."""
    if not path or path.startswith(".") or "/." in path or (not recursive and "/" in path):
        return False
    return not any(part.endswith(UNFINISHED) for part in path.lower().split("/"))


def look(inbox: Path, path: str, one_device: bool = True) -> Seen | Oddity | None:
    """What lies at a relative path now, following no link; None: nothing within reach, or a folder.

    Args:
        one_device: leave folders on other file systems alone.
    """
    try:
        parent, _ = split(path)
        with open_folder(inbox, parent) as folder:
            return look_at(folder, path, inbox if one_device else None)
    except OSError:
        return None


def look_at(folder: int, path: str, inbox: Path | None) -> Seen | Oddity | None:
    """What lies at a relative path whose folder is open, following no link; None: a folder.

    Args:
        inbox: the path must be on its file system; None: on any.

    Raises:
        OSError: nothing lies there.
    """
    parent, name = split(path)
    if inbox is not None and (device := inbox.lstat().st_dev) != os.fstat(folder).st_dev:
        return _elsewhere(inbox, parent, device)
    return _seen(path, os.stat(name, dir_fd=folder, follow_symlinks=False))


Unread = Callable[[str, OSError], None]


def _tell_nobody(path: str, error: OSError) -> None:
    pass


def scan(
    inbox: Path, recursive: bool, one_device: bool = True, unread: Unread | None = None
) -> Iterator[Seen | Oddity]:
    """Everything in the inbox, one entry at a time; links to folders are not entered.

    Args:
        one_device: leave folders on other file systems alone.
        unread: called with each sub-folder that can't be read and each entry that can't be looked at, such
            as the mount point of a file system that is gone.

    Raises:
        OSError: the inbox itself can't be read, or nothing in it can be looked at. Whatever else can't be
            read is passed over.
    """
    unread = unread or _tell_nobody
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            for found in _scan_one(inbox, folder, recursive, one_device, unread):
                if isinstance(found, str):
                    waiting.append(found)
                else:
                    yield found
        except OSError as error:
            if folder == "":
                raise
            if not isinstance(error, FileNotFoundError):
                unread(folder, error)


def _scan_one(
    inbox: Path, folder: str, recursive: bool, one_device: bool, unread: Unread
) -> Iterator[Seen | Oddity | str]:
    """The entries of one folder; sub-folders as their paths. If the folder can't be searched, or none of
    several entries can be looked at, that is the folder's own trouble, and raised."""
    failed, looked = list[tuple[str, OSError]](), False
    with open_folder(inbox, folder) as descriptor, os.scandir(descriptor) as entries:
        if not os.access(".", os.X_OK, dir_fd=descriptor):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        device = os.fstat(descriptor).st_dev
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not is_candidate(path, recursive):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                if looked:
                    unread(path, error)
                else:
                    failed.append((path, error))
                    if len(failed) == MOST_IN_VAIN:
                        break
                continue
            if not looked:
                looked = True
                while failed:
                    unread(*failed.pop(0))
            if not stat.S_ISDIR(status.st_mode):
                found = _seen(path, status)
                if found is not None:
                    yield found
            elif one_device and status.st_dev != device:
                yield Oddity(path, _ELSEWHERE)
            elif recursive:
                yield path
    if len(failed) > 1:
        raise failed[0][1]
    for one in failed:
        unread(*one)


def _elsewhere(inbox: Path, folder: str, device: int) -> Oddity | None:
    """The first folder on the path that is not on this device; None: there is none (any more)."""
    for at in accumulate(parts_of(folder), "{}/{}".format):
        identity = identity_below(inbox, at)
        if identity is not None and identity.device != device:
            return Oddity(at, _ELSEWHERE)
    return None


def _seen(path: str, status: os.stat_result) -> Seen | Oddity | None:
    if stat.S_ISREG(status.st_mode):
        return Seen(path, Identity.of(status))
    if stat.S_ISDIR(status.st_mode):
        return None
    return Oddity(path, _KINDS.get(stat.S_IFMT(status.st_mode), "unknown kind of file"))


_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
