"""Writing and moving files so that a crash leaves the old state or the new one, never between."""

import contextlib
import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_libc = ctypes.CDLL(None, use_errno=True)


class FolderTrouble(Exception):
    """A folder can't take files now: the disk is full, read-only, gone or forbidden."""

    def __init__(self, action: str, error: OSError) -> None:
        super().__init__(f"{action}: {error.strerror or error}")
        self.error = error


def rename_new(source: Path, target: Path) -> None:
    """Rename atomically, never replacing anything.

    Raises:
        FileExistsError: the target exists.
        OSError: any other failure of renameat2(2), or of link(2) where the file system
            has no rename without replacement.
    """
    renameat2 = getattr(_libc, "renameat2", None)
    if renameat2 is not None:
        done = renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
        if done == 0:
            return
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number), str(target))
    os.link(source, target, follow_symlinks=False)
    source.unlink()


def write_synced(path: Path, content: bytes, mode: int) -> None:
    """Write a whole file and wait until it is on disk. Never follows a link at its name."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, mode), "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries are on disk (fsync(2): a file's own sync does not cover them)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_subfolders(base: Path, relative: Path) -> Path:
    """Create the sub-folders of a relative path below a base that must exist already.

    Raises:
        FileNotFoundError: the base itself is gone; it is never made again here, because a
            mount point without its disk would then fill the disk beneath.
    """
    folder = base
    if not base.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(base))
    for part in relative.parts:
        folder = folder / part
        try:
            folder.mkdir()
            sync_folder(folder.parent)
        except FileExistsError:
            if folder.is_symlink() or not folder.is_dir():
                raise NotADirectoryError(
                    errno.ENOTDIR, "a sub-folder's name is taken by something else", str(folder)
                ) from None
    return folder
