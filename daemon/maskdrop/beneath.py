"""Reaching what lies below a folder by descriptors, so that no link on the way is ever followed.

A path is checked at one moment and used at another; a descriptor stays what it was. So a
relative path is walked one component at a time, each opened below the one before it with
O_NOFOLLOW, and files are opened, renamed and removed relative to the last descriptor.
Whoever replaces a folder by a link in between makes the walk fail, or comes too late.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from maskdrop.ticket import Identity

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotAFile(OSError):
    """A folder, FIFO or device has the name of a file that was wanted."""


@contextlib.contextmanager
def open_folder(base: Path, relative: str | PurePath = "", make_mode: int | None = None) -> Iterator[int]:
    """A descriptor of the folder at a relative path below a base.

    Args:
        base: an absolute path without links, as the configuration's folders are once resolved.
        make_mode: permissions, less the umask, of sub-folders that are missing; None: none is made.

    Raises:
        FileNotFoundError: it is missing. The base itself is never made, because a mount point
            without its disk would then fill the disk beneath.
        NotADirectoryError: a component is a link or a file.
        PermissionError: a folder may not be read, or the path leads upwards.
    """
    descriptor = os.open(base, _FOLDER)
    try:
        for name in parts_of(relative):
            below = _enter(descriptor, name, make_mode)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def open_folder_at(folder: int, name: str) -> Iterator[int]:
    """A descriptor of a folder in another one, never following a link.

    Raises:
        OSError: it is missing, a link or a file, or may not be read.
    """
    descriptor = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def parts_of(relative: str | PurePath) -> list[str]:
    """A relative path's components.

    Raises:
        PermissionError: it is absolute, or leads upwards.
    """
    text = str(relative)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or ".." in parts:
        raise PermissionError(errno.EPERM, "a name leads out of its folder", text)
    return parts


def split(relative: str) -> tuple[str, str]:
    """A relative path as its folder and its name.

    Raises:
        PermissionError: it is absolute, leads upwards, or names nothing.
    """
    parts = parts_of(relative)
    if not parts:
        raise PermissionError(errno.EPERM, "no name", relative)
    return "/".join(parts[:-1]), parts[-1]


def open_file(folder: int, name: str) -> int:
    """A descriptor for reading a file; never follows a link, nor waits for a FIFO's writer.

    Raises:
        OSError: it is missing or may not be read; with ELOOP: it is a link.
    """
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)


def open_regular(folder: int, name: str) -> BinaryIO:
    """A regular file, opened for reading as `open_file` does.

    Raises:
        NotAFile: it is a folder, FIFO or device. Nothing is left open.
        OSError: as `open_file`.
    """
    with contextlib.ExitStack() as undo:
        descriptor = open_file(folder, name)
        undo.callback(os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAFile(errno.EINVAL, "no regular file", name)
        file = open(descriptor, "rb")  # noqa: PTH123, SIM115 - a descriptor, not a path; the caller closes it
        undo.pop_all()
    return file


def is_folder(path: Path) -> bool:
    """Whether a folder is there, as far as this user may find out. `Path.is_dir` of Python 3.11 raises where
    the user may not."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def identity_at(folder: int, name: str) -> Identity | None:
    """The identity of whatever has this name in a folder, never following a link; None: nothing has it."""
    try:
        return Identity.of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None


def identity_below(base: Path, relative: str) -> Identity | None:
    """The identity of what lies at a relative path, or None where that can't be reached."""
    try:
        parent, name = split(relative)
        with open_folder(base, parent) as folder:
            return identity_at(folder, name)
    except OSError:
        return None


def _enter(folder: int, name: str, make_mode: int | None) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if make_mode is None:
            raise
    with contextlib.suppress(FileExistsError):  # another worker was faster, but may not have synced it
        os.mkdir(name, make_mode, dir_fd=folder)
    os.fsync(folder)
    return os.open(name, _FOLDER, dir_fd=folder)
