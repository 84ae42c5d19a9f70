"""Empty files that only keep a name for a download beside them. Time is passed in."""

import os
from pathlib import PurePath

from maskdrop.inbox.scan import UNFINISHED

DOWNLOAD_S = 300.0
"""Seconds that an empty file waits for the download beside it."""

_LOOK_S = 1.0
"""Seconds for which a folder's names are not read again: many empty files may be asked about at once."""


class Downloads:
    """Owner of the names seen last, all of one folder.

    Firefox, for example, keeps an empty ``a.jpg``, closed, beside ``a.x1Y2z3.jpg.part``.
    """

    def __init__(self) -> None:
        self._parent, self._until = "", 0.0
        self._unfinished: list[str] = []

    def has_one_for(self, folder: int, path: str, since: float, now: float) -> bool:
        """Whether an empty file is to wait for a download.

        Args:
            folder: descriptor of the folder that the file lies in.
            path: the file's path, relative to the inbox.
            since: when the file was first seen as it is.

        Raises:
            OSError: the folder can't be read.
        """
        if now - since >= DOWNLOAD_S:
            return False
        parent, stem = str(PurePath(path).parent), PurePath(path).stem
        if parent != self._parent or now >= self._until:
            self._parent, self._until = parent, now + _LOOK_S
            self._unfinished = [other for other in os.listdir(folder) if other.lower().endswith(UNFINISHED)]
        return any(other.startswith(f"{stem}.") for other in self._unfinished)
