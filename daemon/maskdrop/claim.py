"""Takes an original out of everybody's reach before its last move.

Between a look at a file and its rename, its owner may put another file in its place; then
a picture that nobody has processed would be archived or deleted. So the original is first
renamed into a hidden folder of the inbox, looked at there, and only then moved on. What
turns out to be another file goes back under its name. A crash in between leaves it in the
hidden folder, that is, in the inbox: the next start puts it back.
"""

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskdrop.beneath import identity_at, identity_below, open_folder, open_folder_at, split
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.durable import FolderTrouble, LinkRefused, move_new, rename_new, sync_folder
from maskdrop.leave_alone import OriginalChanged, OriginalStuck, StuckByFolder, UnfitName
from maskdrop.machine.capabilities import may_move_what_is_others
from maskdrop.names import numbered, printable
from maskdrop.ticket import Identity, Ticket

logger = logging.getLogger("maskdrop")

CLAIMED = ".maskdrop.claimed"
"""Hidden folder in the inbox, for originals whose last move is under way, under their paths in the inbox."""

_OURS_ALONE = 0o700
_ANYBODYS = 0o777
_STUCK = (errno.EACCES, errno.EPERM, errno.EXDEV)
_OF_THE_NAME = (errno.ENOTDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
"""Errors of one name: it passes through a file, or the file system doesn't take such names."""

_OF_THE_FOLDER = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV)
"""Errors of a sub-folder, if the tree's base can be written."""

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""Errors of a sub-folder, if another disk is mounted on it."""


def trouble_in(what: str, base: Path, path: str, error: OSError) -> FolderTrouble | OriginalStuck:
    """What an error in a folder tree means: it can't take this one file, or it can take none now.

    Args:
        path: the file's path there, relative to the tree's base.
    """
    if error.errno == errno.EFBIG and _is_folder(base):
        limit = "raise the limit of a file's size (ulimit -f, LimitFSIZE)"
        return UnfitName(f"the {what} {base} can't take it: {error.strerror}; {limit}")
    if error.errno in _OF_THE_NAME and _is_folder(base):
        return UnfitName(f"the {what} {base} can't take it under its name: {error.strerror}")
    parent, _ = split(path)
    if parent and _is_of_the_folder(base, parent, error):
        message = f"the {what}'s folder {base / parent} can't take it: {error.strerror}"
        return StuckByFolder(message, error)
    return FolderTrouble(f"{what} {base}", error)


def _is_of_the_folder(base: Path, parent: str, error: OSError) -> bool:
    """Whether an error is the trouble of a folder below a base, and not of the base too."""
    if not _is_folder(base) or not os.access(base, os.W_OK | os.X_OK):
        return False
    if error.errno not in _OF_THE_DISK:
        return error.errno in _OF_THE_FOLDER
    folder = None
    while parent and (folder := identity_below(base, parent)) is None:
        parent, _ = split(parent)  # it was still to be made
    return folder is not None and folder.device != base.lstat().st_dev


def _is_folder(path: Path) -> bool:
    """Whether the path is a folder itself, not a link to one: nothing is opened through links."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


@dataclass(frozen=True)
class Claimed:
    """Where a claimed original is: a descriptor of its folder, and its name there."""

    folder: int
    name: str


@contextlib.contextmanager
def claim(inbox: Path, ticket: Ticket) -> Iterator[Claimed]:
    """Hold the ticket's very file while it is moved on. If it is still there at the end, it goes back.

    Raises:
        OriginalChanged: the ticket's file is not in the inbox any more.
        OriginalStuck: it can't be moved.
        FolderTrouble: nothing can be moved in the inbox now.
    """
    parent, name = split(ticket.path)
    try:
        with open_folder(inbox, f"{CLAIMED}/{parent}", _OURS_ALONE) as folder:
            if identity_at(folder, name) != ticket.identity:
                _fetch(inbox, parent, name, folder, ticket)
            try:
                yield Claimed(folder, name)
            finally:
                _put_back(inbox, parent, name, folder)
            sync_folder(folder)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), open_folder(inbox, parent) as left:
            sync_folder(left)
    except OSError as error:
        own = inbox / CLAIMED
        is_other = error.errno in (errno.ENOTDIR, errno.ELOOP) and not _is_folder(own)
        raise FolderTrouble(str(own) if is_other else f"inbox {inbox}", error) from error


def check_mobility(inbox: Path, path: str) -> None:
    """Check that a picture's folder lets it go before any work is put into it, which would be wasted again
    and again. If nothing can be moved in the inbox, everything waits, and `claim` reports it.

    Raises:
        OriginalStuck: the folder doesn't let it go.
    """
    parent, name = split(path)
    with contextlib.suppress(OSError), open_folder(inbox, parent) as folder:
        if not parent or os.access(".", os.W_OK | os.X_OK, dir_fd=folder):
            reason = errno.EPERM if _is_kept_by_others(folder, name) else 0
        else:
            reason = errno.EACCES if os.access(inbox, os.W_OK | os.X_OK) else 0
        if reason:
            raise OriginalStuck(f"{os.strerror(reason)} when it was to be moved")


def _is_kept_by_others(folder: int, name: str) -> bool:
    """Whether the folder is sticky, as /tmp is, neither it nor the file is ours (inode(7)), and we are not
    privileged to move it all the same."""
    status = os.fstat(folder)
    if not status.st_mode & stat.S_ISVTX or status.st_uid == os.geteuid():
        return False
    return os.lstat(name, dir_fd=folder).st_uid != os.geteuid() and not may_move_what_is_others()


def is_claimed(inbox: Path, ticket: Ticket) -> bool:
    """Whether a worker that died had already claimed the ticket's very file."""
    return identity_below(inbox, f"{CLAIMED}/{ticket.path}") == ticket.identity


def put_all_back(inbox: Path) -> None:
    """Return to the inbox whatever a daemon or worker that died had claimed. No worker may hold a
    picture."""
    try:
        with open_folder(inbox, CLAIMED) as top:
            for at, folders, names, folder in os.fwalk(".", topdown=False, dir_fd=top):
                for name in names:
                    _put_back(inbox, at, name, folder)
                for name in folders:
                    _remove_empty(folder, name)
    except FileNotFoundError:
        return
    except OSError as error:
        logger.error("%s can't be cleared: %s", printable(inbox / CLAIMED), error.strerror)


def put_one_back(inbox: Path, path: str, identity: Identity) -> None:
    """Return one picture, whose worker died, to the inbox if it is among the claimed ones."""
    parent, name = split(path)
    with contextlib.suppress(OSError), open_folder(inbox, f"{CLAIMED}/{parent}") as folder:
        if identity_at(folder, name) == identity:
            _put_back(inbox, parent, name, folder)


def _fetch(inbox: Path, parent: str, name: str, folder: int, ticket: Ticket) -> None:
    """Move the ticket's file into the folder of claimed ones."""
    _make_room(inbox, parent, name, folder)
    try:
        with open_folder(inbox, parent) as source:
            if identity_at(source, name) != ticket.identity:
                raise OriginalChanged
            _take(source, name, folder, ticket)
            crash_point(CrashPoint.ORIGINAL_CLAIMED)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OriginalChanged from error
    except OSError as error:
        if error.errno in _STUCK and os.access(inbox, os.W_OK | os.X_OK):
            raise OriginalStuck(f"{error.strerror} when it was to be moved") from error
        raise
    if identity_at(folder, name) != ticket.identity:
        _put_back(inbox, parent, name, folder)
        raise OriginalChanged


def _take(source: int, name: str, folder: int, ticket: Ticket) -> None:
    """Rename the ticket's file into the folder of claimed ones, unless something has its name there."""
    try:
        rename_new(source, name, folder, name)
    except LinkRefused:
        # Only our own save workers give names there, each to its own picture: a free name stays free.
        if identity_at(folder, name) is not None:
            raise
        if identity_at(source, name) != ticket.identity:
            raise OriginalChanged from None
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=folder)


def _make_room(inbox: Path, parent: str, name: str, folder: int) -> None:
    """Make sure that the name is free among the claimed ones. Another file, left by a worker that died just
    then, goes back; folders left behind by pictures that have moved on are removed.

    Raises:
        OriginalStuck: a picture is still being moved in a folder of that name.
    """
    if identity_at(folder, name) is None:
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), open_folder_at(folder, name) as left:
        for _, folders, _, below in os.fwalk(".", topdown=False, dir_fd=left):
            for empty in folders:
                _remove_empty(below, empty)
        _remove_empty(folder, name)
        if identity_at(folder, name) is not None:
            raise OriginalStuck("a picture in a folder of its name is still being moved")
    _put_back(inbox, parent, name, folder)


def _put_back(inbox: Path, parent: str, name: str, folder: int) -> None:
    """Rename what has the name in the folder of claimed ones, if anything, to its place in the inbox,
    or beside it if another file has taken that. If it can't be renamed, it stays.
    """
    if identity_at(folder, name) is None:
        return
    try:
        with open_folder(inbox, parent, _ANYBODYS) as target:
            for new_name in numbered(name):
                with contextlib.suppress(FileExistsError):
                    move_new(folder, name, target, new_name)
                    sync_folder(target)
                    return
    except OSError as error:
        where = printable(f"{CLAIMED}/{parent}/{name}")
        logger.error("%s can't be put back into the inbox: %s", where, error.strerror)


def _remove_empty(folder: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=folder)
