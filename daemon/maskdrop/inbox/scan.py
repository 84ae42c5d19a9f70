"""Reading the inbox folder: which names are pictures to be, and which are left alone."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from maskdrop.ticket import Identity

UNFINISHED = (".part", ".tmp", ".crdownload")
"""Endings under which browsers and copy programs write files that are not whole yet."""


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
    """Whether a relative path may be a picture, going by its name alone."""
    parts = PurePath(path).parts
    if not parts or (len(parts) > 1 and not recursive):
        return False
    return not any(part.startswith(".") for part in parts) and not parts[-1].lower().endswith(UNFINISHED)


def look(inbox: Path, path: str) -> Seen | Oddity | None:
    """What lies at a relative path now, without following links; None: nothing, or a folder."""
    try:
        status = (inbox / path).lstat()
    except OSError:
        return None
    if stat.S_ISREG(status.st_mode):
        return Seen(path, Identity.of(status))
    if stat.S_ISDIR(status.st_mode):
        return None
    return Oddity(path, _KINDS.get(stat.S_IFMT(status.st_mode), "unknown kind of file"))


def scan(inbox: Path, recursive: bool) -> Iterator[Seen | Oddity]:
    """Everything in the inbox, one entry at a time; links to folders are not entered.

    Raises:
        OSError: the inbox itself can't be read. A sub-folder that can't be is passed over.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = os.scandir(inbox / folder)
        except OSError:
            if folder == "":
                raise
            continue
        with entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if not is_candidate(path, recursive):
                    continue
                if recursive and entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                    continue
                found = look(inbox, path)
                if found is not None:
                    yield found


_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
