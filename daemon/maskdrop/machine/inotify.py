"""Whether the kernel lets this process watch a folder."""

import ctypes
import os
from pathlib import Path

_IN_CREATE = 0x100  # inotify(7)
_libc = ctypes.CDLL(None, use_errno=True)


def refusal_to_watch(folder: Path | str) -> int:
    """The error number with which the kernel refuses to watch a folder, found by trying; 0 if it agrees.

    EMFILE means that no instance is left (inotify_init1(2)), ENOSPC no watch (inotify_add_watch(2)).
    """
    descriptor = _libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        return ctypes.get_errno()
    try:
        watch = _libc.inotify_add_watch(descriptor, os.fsencode(folder), _IN_CREATE)
        return 0 if watch >= 0 else ctypes.get_errno()
    finally:
        os.close(descriptor)
