"""A cluster's folder on this machine, and the folders that killed batches left behind."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_BASE = Path("/tmp")
"""Not TMPDIR: Ray makes sockets there, whose paths must be short."""

_PREFIX = "maskdrop-ray-"

_LOCK = "owner"
"""A file that the folder's batch keeps locked: the kernel releases the lock however the batch ends."""


class OwnFolder:
    """A new folder, held until it is removed."""

    def __init__(self) -> None:
        """Make it, and remove the folders of this user's dead batches.

        Raises:
            OSError: it can't be made.
        """
        for folder in _BASE.glob(f"{_PREFIX}*"):
            _remove_if_dead(folder)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_BASE))
        unlocked = self.path / f"{_LOCK}.new"  # nobody looks at it before it is locked
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._lock = os.open(unlocked, flags, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unlocked.rename(self.path / _LOCK)

    def empty(self) -> None:
        """Remove what is there now; processes that still write there end with this one."""
        for _ in range(2):  # they may write something meanwhile
            shutil.rmtree(self.path, ignore_errors=True)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_if_dead(folder: Path) -> None:
    with contextlib.suppress(OSError):  # gone meanwhile, another user's, or somebody holds it
        if folder.lstat().st_uid != os.geteuid():
            return
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
