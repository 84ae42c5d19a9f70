"""Writing and moving files so that a crash leaves the old state or the new one, nothing in between.

Pictures and their results are named by a folder's descriptor and a name in it: see beneath.py.
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

FOLDER_SYNCS = 4
"""Waits for the disk (syncs) that saving one picture takes if its original is archived, besides one for each
result (docs/guarantees.md)."""

_RENAME_NOREPLACE = 1
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_NO_LINK = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK)
_libc = ctypes.CDLL(None, use_errno=True)


class FolderTrouble(Exception):
    """A folder can't take files now: the disk is full, read-only, gone or forbidden."""

    def __init__(self, action: str, error: OSError) -> None:
        super().__init__(f"{action}: {error.strerror or error}")
        self.error = error


class LinkRefused(PermissionError):
    """The file system has no rename without replacement, and the file can't be linked instead.

    It is another user's, we may not write it, and fs.protected_hardlinks is set (proc_sys_fs(5)); or the file
    system has no links (exFAT), or gives a link an inode of its own (sshfs, mergerfs), so that nobody could
    tell it from another file.
    """


def rename_new(source: int, name: str, target: int, new_name: str) -> None:
    """Rename atomically from one folder to another, never replacing anything.

    Raises:
        FileExistsError: the new name is in use.
        LinkRefused: the file would have to be linked, and may not be.
        OSError: any other failure of renameat2(2), or of link(2) where the file system
            has no rename without replacement.
    """
    renameat2 = getattr(_libc, "renameat2", None)
    if renameat2 is not None:
        done = renameat2(source, os.fsencode(name), target, os.fsencode(new_name), _RENAME_NOREPLACE)
        if done == 0:
            return
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number), new_name)
    _link(source, name, target, new_name)
    try:
        os.unlink(name, dir_fd=source)
    except PermissionError:  # and no other error: if an answer was lost, only the new name may be left
        os.unlink(new_name, dir_fd=target)
        raise


def _link(source: int, name: str, target: int, new_name: str) -> None:
    """Give a file a second name.

    Raises:
        FileExistsError: the new name is in use.
        LinkRefused: it can't be linked.
    """
    before = os.stat(name, dir_fd=source, follow_symlinks=False)
    try:
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        raise LinkRefused(error.errno, error.strerror, new_name) from error
    linked = os.stat(new_name, dir_fd=target, follow_symlinks=False)
    if os.path.samestat(before, linked):
        return
    now = os.stat(name, dir_fd=source, follow_symlinks=False)  # it may have been written meanwhile
    states = [(status.st_size, status.st_mtime_ns) for status in (before, now, linked)]
    if states.pop() not in states:
        raise FileExistsError(errno.EEXIST, "somebody replaced the link", new_name)
    os.unlink(new_name, dir_fd=target)
    raise LinkRefused(errno.EPERM, "a link has an inode of its own there", new_name)


def move_new(source: int, name: str, target: int, new_name: str) -> None:
    """`rename_new` where that is possible. If the file can't be linked, an empty file keeps the new name for
    it until the rename; a kill between the two leaves the empty file.

    Raises:
        FileExistsError: the new name is in use.
        OSError: it can't be moved.
    """
    try:
        rename_new(source, name, target, new_name)
    except LinkRefused:
        descriptor = os.open(new_name, _NEW_FILE, 0o600, dir_fd=target)
        try:
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        except PermissionError:  # and no other error: if an answer was lost, it may be renamed by now
            _remove_this(target, new_name, descriptor)
            raise
        finally:
            os.close(descriptor)


def _remove_this(folder: int, name: str, descriptor: int) -> None:
    """Remove an open file, unless another one has its name by now."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=folder, follow_symlinks=False)):
            os.unlink(name, dir_fd=folder)


def has_rename_new(folder: int, probe: str) -> bool:
    """Whether the folder's file system has renames without replacement; tried with a file made for it.

    Args:
        probe: a name that nothing has there, as it is and with ``.new`` appended.

    Raises:
        OSError: no file can be made there.
    """
    write_synced(folder, probe, b"", 0o600)
    try:
        renameat2 = getattr(_libc, "renameat2", None)
        new_name = f"{probe}.new"
        return renameat2 is not None and not renameat2(
            folder, os.fsencode(probe), folder, os.fsencode(new_name), _RENAME_NOREPLACE
        )
    finally:
        remove(folder, probe)
        remove(folder, f"{probe}.new")


def rename_over(folder: int, name: str, new_name: str) -> None:
    """Rename within a folder, replacing whatever has the new name.

    Raises:
        OSError: it can't be done; both names are as they were.
    """
    os.replace(name, new_name, src_dir_fd=folder, dst_dir_fd=folder)


def new_file(folder: int, name: str, mode: int) -> BinaryIO:
    """A new file to write, in place of whatever has its name. Never follows a link there.

    Args:
        mode: its permissions, less the umask; they need not allow opening it again.

    Raises:
        OSError: it can't be made.
    """
    remove(folder, name)
    return open(os.open(name, _NEW_FILE, mode, dir_fd=folder), "wb")  # noqa: PTH123 - a descriptor


def write_synced(folder: int, name: str, content: bytes, mode: int) -> None:
    """Write a whole file and wait until it is on disk. Never follows a link at its name.

    Args:
        mode: its permissions, less the umask.

    Raises:
        OSError: it can't be written; the part that was stays, for the caller to replace or remove.
    """
    with new_file(folder, name, mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def try_writing(folder: Path, results: Sequence[bytes]) -> None:
    """Write and sync a nameless file as often as saving a picture syncs, so that the cost can be measured.

    In a folder that can't take the file, for lack of space or of support for nameless files, nothing is done.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC)
        try:
            for content in (*results, *[b"\0"] * FOLDER_SYNCS):
                os.write(descriptor, content)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(folder: int, name: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def sync_folder(folder: int) -> None:
    """Wait until the folder's entries are on disk (fsync(2): a file's own sync does not cover them).

    Raises:
        OSError: they may not be on disk.
    """
    os.fsync(folder)


def replace_file(path: Path, content: bytes, mode: int | None = None) -> None:
    """Replace a file that may be read at any time: readers see the old content or the new, never a part.

    Args:
        mode: its permissions, whatever the umask; None: those that the umask allows.

    Raises:
        OSError: it can't be written; the old one stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
