"""One daemon an inbox: a lock file that the kernel frees when its holder ends."""

import contextlib
import fcntl
import logging
import os
import socket
import time
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.names import printable

logger = logging.getLogger("maskdrop")

LOCK_NAME = ".maskdrop.lock"

_LET_GO_S = 5.0
"""Seconds to wait until the workers of a killed daemon are gone."""


class InboxHeld(Exception):
    """Another daemon has this inbox; the message says which."""


class InboxLock:
    """An exclusive flock(2) on a file in the inbox, held until closed.

    NFS passes it on to the server as a lock on all bytes (nfs(5)); docs/several-daemons.md says what that
    protects against, and what it doesn't.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, inbox: Path, kind: str = "inbox") -> "InboxLock":
        """Lock the inbox, or, for a batch that only reads its pictures' folder, the outbox.

        Raises:
            InboxHeld: another daemon has it.
            OSError: the lock file can't be made.
        """
        path = inbox / LOCK_NAME
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.ExitStack() as undo:
            descriptor = os.open(path, flags, 0o644)
            undo.callback(_close, descriptor)
            _wait_for(descriptor, inbox, kind)
            undo.pop_all()
        before = _holder(descriptor)
        if before and not before.endswith(f" on {socket.gethostname()}"):
            logger.warning(
                "%s %s was held by %s, which did not let go of it: if that still runs, neither sees the "
                "other's lock; stop one of them, and give each host an %s of its own",
                kind,
                printable(inbox),
                printable(before),
                kind,
            )
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{_us()}\n".encode(), 0)
            os.fsync(descriptor)  # over NFS nobody else can read it before this
        except OSError as error:  # a full disk: the lock holds, whatever its file says
            logger.warning(
                "%s can't be written: %s; who holds it is not told", printable(path), error.strerror
            )
        crash_point(CrashPoint.LOCK_TAKEN)
        return cls(descriptor)

    def __getstate__(self) -> dict[str, Any]:
        """A spawned worker that is given the lock holds it too, so the next daemon can't begin while
        a worker of a killed one is still alive."""
        return {"descriptor": DupFd(self.descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.descriptor = state["descriptor"].detach()

    @property
    def is_ours(self) -> bool:
        """Whether the kernel still gives us the lock, and others can still find its file. Asking for a lock
        that we have changes nothing. We have to ask: an NFS server frees the locks of a host that it hasn't
        heard from for its lease time, and tells nobody.
        """
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.fstat(self.descriptor).st_nlink > 0
        except OSError:
            return False

    def follow(self, inbox: Path) -> None:
        """Lock the inbox that is there now, if it isn't the one that was locked: it may have been
        removed and made again, and another daemon could begin to work there. Take a lost lock again.

        Raises:
            InboxHeld: another daemon was faster.
            OSError: there is no inbox, or no lock file can be made.
        """
        try:
            there = (inbox / LOCK_NAME).lstat()
            if os.path.samestat(there, os.fstat(self.descriptor)) and self.is_ours:
                return
        except FileNotFoundError:
            pass
        with contextlib.suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        newer = InboxLock.take(inbox)
        os.dup2(newer.descriptor, self.descriptor, inheritable=False)
        _close(newer.descriptor)

    def release(self) -> None:
        """Let the next daemon have the inbox. The file stays: removing it would race with its next holder."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, 0)
        _close(self.descriptor)


def _wait_for(descriptor: int, inbox: Path, kind: str) -> None:
    """Lock the file, waiting for the workers of a killed daemon to be gone if need be.

    Raises:
        InboxHeld: another daemon has it.
        OSError: the file can't be locked.
    """
    deadline = time.monotonic() + _LET_GO_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _holder(descriptor)
            if holder == _us():  # as we wrote before we lost the lock
                holder = ""
            if _is_running(holder) or time.monotonic() > deadline:
                raise InboxHeld(
                    f"{kind} {inbox} is held by {holder or 'another daemon'} (lock file "
                    f"{inbox / LOCK_NAME}); {'stop that daemon' if kind == 'inbox' else 'wait for it'} "
                    f"or choose another {kind}"
                ) from None
            time.sleep(0.05)


def _close(descriptor: int) -> None:
    """Close a lock file. An NFS client that lost the lock may report an error; it is closed all the same."""
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _us() -> str:
    return f"maskdrop pid {os.getpid()} on {socket.gethostname()}"


def _holder(descriptor: int) -> str:
    """Who wrote into the lock file last and didn't empty it; "" if nobody."""
    return os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()


def _is_running(holder: str) -> bool:
    """Whether the holder named in a lock file may still be running; true if there is no telling."""
    words = holder.split()
    if len(words) != 5 or words[4] != socket.gethostname() or not words[2].isdigit():
        return True
    return Path(f"/proc/{words[2]}").exists()
