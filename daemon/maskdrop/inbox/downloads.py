"""Empty files that only keep a name for a download beside them. Time is passed in."""

import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePath

from maskdrop.inbox.scan import UNFINISHED

DOWNLOAD_S = 300.0
"""Seconds that an empty file waits for the download beside it."""

_LOOK_S = 1.0
"""Seconds for which a folder's names are not read again: many empty files may be asked about at once."""

_LEISURE = 20
"""A folder that takes long to read is read again after so many times as long at the earliest."""

_MOST_FOLDERS, _MOST_NAMES = 256, 256
"""Folders remembered, and unfinished names of each: no more memory, however many there are."""


@dataclass(frozen=True)
class _Look:
    """Unfinished names in a folder, as far as they are remembered, and how long they hold."""

    began: float
    until: float
    unfinished: tuple[str, ...]


class Downloads:
    """Owner of the unfinished names seen last in each folder.

    Firefox, for example, keeps an empty ``a.jpg``, closed, beside ``a.x1Y2z3.jpg.part``.
    """

    def __init__(self) -> None:
        self._looks: OrderedDict[str, _Look] = OrderedDict()

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
        look = self._looks.get(parent)
        if look is None or now >= look.until:
            look = _look(folder, now)
            self._looks[parent] = look
            self._looks.move_to_end(parent)
            if len(self._looks) > _MOST_FOLDERS:
                self._looks.popitem(last=False)
        if look.began < since or len(look.unfinished) == _MOST_NAMES:
            return True  # one that came with the file, or is one too many, would not be known
        return any(name.startswith(f"{stem}.") for name in look.unfinished)


def _look(folder: int, now: float) -> _Look:
    began = time.monotonic()
    with os.scandir(folder) as entries:
        unfinished = (entry.name for entry in entries if entry.name.lower().endswith(UNFINISHED))
        names = tuple(islice(unfinished, _MOST_NAMES))
    return _Look(now, now + max(_LOOK_S, _LEISURE * (time.monotonic() - began)), names)
