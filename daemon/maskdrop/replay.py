"""Putting pictures from quarantine or archive back into the inbox, whether a daemon is at work or not.

One rename brings a picture back, and replaces nothing. Its reason is removed only when that rename
is on disk: a replay that dies in between leaves a reason without its picture, perhaps in a hidden
folder, and nothing else. The next replay clears these away.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

from maskdrop import foreign_json
from maskdrop.beneath import identity_at, open_folder, open_folder_at, open_regular, split
from maskdrop.durable import move_new, remove, sync_folder
from maskdrop.inbox.scan import Seen, Unread, scan
from maskdrop.names import fits, numbered, printable
from maskdrop.quarantine import LONGEST_REASON, REASON_TAIL
from maskdrop.ticket import Identity

_ASIDE = re.compile(r"\.maskdrop-reason-([1-9][0-9]{0,8})\.tmp")
"""Name of a folder for a reason that is out of the way, with the number of the process that took it there."""


class Room(StrEnum):
    """Where pictures can be put back from."""

    QUARANTINE = "quarantine"
    ARCHIVE = "archive"


@dataclass(frozen=True)
class Wanted:
    """Which pictures to put back. A field that is left out excludes none.

    Attributes:
        patterns: globs of paths relative to the room, or of names where they hold no ``/``.
        reasons: globs of a reason's error, stage or message, ignoring case.
        older_s, newer_s: put there more, or less, than this many seconds ago.
    """

    patterns: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    older_s: float | None = None
    newer_s: float | None = None

    @property
    def is_everything(self) -> bool:
        return self == Wanted()


@dataclass(frozen=True)
class Kept:
    """A picture in a room.

    Attributes:
        path: relative to the room.
        reason: content of its reason file; empty in the archive, or where there is none.
        since: seconds since 1970 when it was put there.
        note: identity of the reason file that was read; None where there is none.
    """

    path: str
    identity: Identity
    reason: dict[str, Any]
    since: float
    note: Identity | None = None

    @property
    def error(self) -> str:
        return str(self.reason.get("error", ""))


def find(room: Path, kind: Room, wanted: Wanted, unread: Unread | None = None) -> Iterator[Kept]:
    """The wanted pictures in a room, as they are found.

    Args:
        room: absolute and without links.
        unread: called for each sub-folder that can't be read.

    Raises:
        OSError: the room can't be read.
    """
    now = time.time()
    for seen in scan(room, recursive=True, unread=unread):
        if not isinstance(seen, Seen) or not _is_named(seen.path, wanted.patterns):
            continue
        if kind is Room.QUARANTINE and _is_reason(room, seen.path):
            continue
        kept = _look(room, kind, seen)
        if kept is not None and _is_wanted(kept, wanted, now):
            yield kept


def clear_leftovers(room: Path) -> None:
    """Remove the reasons that replays had taken out of the way when they died. A reason whose picture is
    there again was written later, by a daemon: it is given back, unless the picture has a newer one.

    Raises:
        OSError: one can't be removed.
    """
    for _, folders, _, folder in os.fwalk(room):
        for name in folders:
            owner = _ASIDE.fullmatch(name)
            if owner and not _is_running(int(owner[1])):
                # A link, which is nobody's leftover; or another replay clears it at the same time.
                with contextlib.suppress(NotADirectoryError, FileNotFoundError):
                    _clear(folder, name)


def _clear(folder: int, name: str) -> None:
    with open_folder_at(folder, name) as aside:
        for note in os.listdir(aside):
            if identity_at(folder, note.removesuffix(REASON_TAIL)) is not None:
                _give_back(aside, note, folder)
            remove(aside, note)
    os.rmdir(name, dir_fd=folder)


def _is_running(pid: int) -> bool:
    """Whether another process has this number. This process doesn't count: it has taken nothing yet."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def put_back(room: Path, inbox: Path, kept: Kept, folder_mode: int) -> str | None:
    """Move one picture into the inbox, under the name it came with or a numbered one.

    The entries of its new folder are synced before its reason is removed.

    Returns:
        The path relative to the inbox, or None where the picture is gone, or is another by now.

    Raises:
        OSError: the picture can't be moved, and is where it was.
    """
    parent, name = split(kept.path)
    wanted_parent, wanted_name = split(_original_path(kept))
    with open_folder(room, parent) as source:
        if identity_at(source, name) != kept.identity:
            return None
        with open_folder(inbox, wanted_parent, folder_mode) as target:
            new_name = _rename(source, name, target, wanted_name)
            sync_folder(target)
        if kept.note is not None:
            with contextlib.suppress(OSError):  # the picture is back; the next replay clears its reason
                _remove_reason(source, name + REASON_TAIL, kept.note)
        sync_folder(source)
    return str(PurePath(wanted_parent) / new_name)


def _rename(source: int, name: str, target: int, wanted: str) -> str:
    for new_name in numbered(wanted):
        with contextlib.suppress(FileExistsError):
            move_new(source, name, target, new_name)
            return new_name
    raise AssertionError("names never end")


def _remove_reason(folder: int, note: str, identity: Identity) -> None:
    """Remove a picture's old reason, but never a new one: a daemon at work may already have put
    the picture into quarantine again. So the reason is taken out of the way first, and checked there.
    """
    if identity_at(folder, note) != identity:
        return
    name = f".maskdrop-reason-{os.getpid()}.tmp"
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)
    with open_folder_at(folder, name) as aside:
        with contextlib.suppress(FileNotFoundError):
            move_new(folder, note, aside, note)
            if identity_at(aside, note) != identity:
                _give_back(aside, note, folder)
        remove(aside, note)
    os.rmdir(name, dir_fd=folder)


def _give_back(aside: int, note: str, folder: int) -> None:
    with contextlib.suppress(FileExistsError, FileNotFoundError):  # a newer one; another replay did it
        move_new(aside, note, folder, note)


def _look(room: Path, kind: Room, seen: Seen) -> Kept | None:
    parent, name = split(seen.path)
    try:
        with open_folder(room, parent) as folder:
            reason, note = _reason(folder, name + REASON_TAIL) if kind is Room.QUARANTINE else ({}, None)
            # The time of the last change of state: a rename sets it, and hardly anything else does.
            moved = os.stat(name, dir_fd=folder, follow_symlinks=False).st_ctime
    except FileNotFoundError:
        return None
    with contextlib.suppress(KeyError, TypeError, ValueError):
        moved = datetime.fromisoformat(reason["time"]).timestamp()
    return Kept(seen.path, seen.identity, reason, moved, note)


def _reason(folder: int, note: str) -> tuple[dict[str, Any], Identity | None]:
    """A reason's content, empty where it is damaged, and the identity of its file."""
    try:
        with open_regular(folder, note) as file:
            identity = Identity.of(os.fstat(file.fileno()))
            content = foreign_json.loads(file.read(LONGEST_REASON))
    except OSError:
        return {}, None
    except ValueError:
        return {}, identity
    return content if isinstance(content, dict) else {}, identity


def _is_reason(room: Path, path: str) -> bool:
    """Whether a file is a picture's reason, and no picture, which would have a reason of its own."""
    if not path.endswith(REASON_TAIL):
        return False
    parent, name = split(path)
    with open_folder(room, parent) as folder:
        return identity_at(folder, name + REASON_TAIL) is None


def _is_wanted(kept: Kept, wanted: Wanted, now: float) -> bool:
    age = now - kept.since
    if wanted.older_s is not None and age < wanted.older_s:
        return False
    if wanted.newer_s is not None and age > wanted.newer_s:
        return False
    if not wanted.reasons:
        return True
    told = [str(kept.reason.get(key, "")).lower() for key in ("error", "stage", "message")]
    return any(fnmatchcase(text, glob.lower()) for text in told if text for glob in wanted.reasons)


def _is_named(path: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fits(path, pattern) for pattern in patterns)


def _original_path(kept: Kept) -> str:
    """The path that a picture had in the inbox, if its reason gives it exactly; else its path in the room.

    A room changes names only by adding a number.
    """
    told = kept.reason.get("picture")
    if not isinstance(told, str) or not told or "\\" in told or printable(told) != told:
        return kept.path
    here, there = PurePath(kept.path), PurePath(told)
    without = re.sub(r"~\d+$", "", here.stem) + here.suffix
    return told if (here.parent, without) == (there.parent, there.name) else kept.path
