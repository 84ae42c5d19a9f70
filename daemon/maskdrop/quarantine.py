"""Where broken pictures go: moved by rename, or copied, each with its reason beside it."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath

from maskdrop import foreign_json
from maskdrop.beneath import identity_at, open_file, open_folder, open_regular, split
from maskdrop.claim import Claimed, claim, trouble_in
from maskdrop.config import FolderSettings
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.durable import move_new, new_file, remove, rename_over, sync_folder, write_synced
from maskdrop.folders import Folders
from maskdrop.leave_alone import OriginalChanged, OriginalStuck
from maskdrop.names import NAME_MAX, numbered, printable
from maskdrop.outbox import found_in, temporary_for
from maskdrop.ticket import Fault, Identity, Ticket

REASON_TAIL = ".reason.json"

LONGEST_COPY_NAME = NAME_MAX - len(REASON_TAIL)
"""Bytes of a picture's name in quarantine at most, so that its reason's name fits too."""

LARGEST_COPY = 2**30
"""Bytes of the largest picture that is copied; of a larger one, only the reason is written."""

_COPY_PART = 2**24
"""Bytes that are copied and synced in one go."""

LONGEST_REASON = 65_536
"""Bytes of a reason file that are read at most."""


@dataclass(frozen=True)
class _Entry:
    """What comes into quarantine, and the names that it has until it is complete."""

    ticket: Ticket
    reason: bytes
    mode: int
    unfinished_reason: str
    unfinished_copy: str

    @classmethod
    def of(
        cls, folders: Folders, ticket: Ticket, fault: Fault, attempts: int, settings: FolderSettings
    ) -> "_Entry":
        names = (temporary_for(folders, ticket, what) for what in (REASON_TAIL, "copy"))
        return cls(ticket, reason_for(ticket, fault, attempts), settings.mode, *names)


def quarantine(
    folders: Folders, ticket: Ticket, fault: Fault, attempts: int, settings: FolderSettings
) -> str:
    """Claim the picture, write the reason, then move the picture beside it.

    The reason comes first: a crash in between leaves a reason whose picture is still in
    the inbox, and the next try finds and replaces it.

    Returns:
        The picture's path relative to the quarantine folder.

    Raises:
        OriginalChanged: the file in the inbox is not the ticket's any more.
        OriginalStuck: it can't be moved, or the quarantine can't take it under its name.
        FolderTrouble: the quarantine can't take it now; it is still in the inbox.
    """
    assert folders.quarantine is not None
    entry = _Entry.of(folders, ticket, fault, attempts, settings)
    parent, _ = split(ticket.path)
    try:
        with claim(folders.inbox, ticket) as claimed:
            try:
                with open_folder(folders.quarantine, parent, settings.folder_mode) as folder:
                    name = _move(claimed, folder, entry)
            except OSError as error:
                raise trouble_in("quarantine", folders.quarantine, ticket.path, error) from error
    except OriginalChanged:
        found = found_in(folders.quarantine, ticket, LONGEST_COPY_NAME)
        if found is None:
            raise
        return found
    return str(PurePath(parent) / name)


def quarantine_copy(
    folders: Folders,
    ticket: Ticket,
    fault: Fault,
    attempts: int,
    settings: FolderSettings,
    sha256: str = "",
    goes_on: Callable[[], None] = lambda: None,
) -> str:
    """Put a reason there, then a copy of the picture beside it, unless that is larger than `LARGEST_COPY`.
    The original stays as it is.

    If an earlier run put the same picture there, its copy is replaced.

    Args:
        sha256: of the content at fault, if that was read in another state of the file than the ticket's;
            "": the ticket alone says which content is meant.
        goes_on: called between parts of a large copy, which may take minutes on a slow disk.

    Returns:
        The copy's path relative to the quarantine folder; "" if there is no such folder, or no copy.

    Raises:
        OriginalChanged: the file in the inbox is not the ticket's any more, or has other content.
        OriginalStuck: it can't be read, or (`UnfitName`) can't be copied there under its name.
        FolderTrouble: the quarantine can't take it now.
    """
    if folders.quarantine is None:
        return ""
    entry = _Entry.of(folders, ticket, fault, attempts, settings)
    parent, wanted = split(ticket.path)
    with _original(folders, ticket) as original:
        if sha256 and _digest(original) != sha256:
            raise OriginalChanged
        try:
            with open_folder(folders.quarantine, parent, settings.folder_mode) as folder:
                name = _copy(original, folder, wanted, entry, goes_on)
        except OSError as error:
            raise trouble_in("quarantine", folders.quarantine, ticket.path, error) from error
    return str(PurePath(parent) / name) if ticket.identity.size <= LARGEST_COPY else ""


@contextmanager
def _original(folders: Folders, ticket: Ticket) -> Iterator[int]:
    """A descriptor of the ticket's file, open for reading."""
    parent, name = split(ticket.path)
    try:
        with open_folder(folders.inbox, parent) as folder:
            descriptor = open_file(folder, name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OriginalChanged from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OriginalChanged from error
        raise OriginalStuck(f"{error.strerror} when it was to be copied") from error
    try:
        if Identity.of(os.fstat(descriptor)) != ticket.identity:
            raise OriginalChanged
        yield descriptor
    finally:
        os.close(descriptor)


def _digest(original: int) -> str:
    """The SHA-256 of a file's content. Afterwards the descriptor is at the beginning again."""
    try:
        with open(os.dup(original), "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            told = hashlib.file_digest(file, "sha256").hexdigest()
        os.lseek(original, 0, os.SEEK_SET)
    except OSError as error:
        raise OriginalStuck(f"{error.strerror} when it was to be copied") from error
    return told


def _copy(original: int, folder: int, wanted: str, entry: _Entry, goes_on: Callable[[], None]) -> str:
    """Copy an original into a folder of the quarantine, and return its name there."""
    is_copied = entry.ticket.identity.size <= LARGEST_COPY
    try:
        if is_copied:
            _copy_synced(original, folder, entry.unfinished_copy, entry.mode, goes_on)
        for name in numbered(wanted, LONGEST_COPY_NAME):
            note = name + REASON_TAIL
            is_ours = _is_reason_for(folder, note, entry.ticket)
            if not is_ours and identity_at(folder, name):
                continue
            write_synced(folder, entry.unfinished_reason, entry.reason, entry.mode)
            if not _reserved(folder, entry.unfinished_reason, note, is_ours):
                continue
            crash_point(CrashPoint.REASON_WRITTEN)
            if is_copied:
                rename_over(folder, entry.unfinished_copy, name)
            crash_point(CrashPoint.QUARANTINED)
            sync_folder(folder)
            return name
    finally:
        remove(folder, entry.unfinished_copy)
        remove(folder, entry.unfinished_reason)
    raise AssertionError("names never end")


def _reserved(folder: int, temporary: str, note: str, is_ours: bool) -> bool:
    """Give a reason its name, which keeps the picture's name too; replace one that is ours. False: taken."""
    if is_ours:
        rename_over(folder, temporary, note)
        return True
    try:
        move_new(folder, temporary, folder, note)
    except FileExistsError:
        return False
    return True


def _copy_synced(original: int, folder: int, name: str, mode: int, goes_on: Callable[[], None]) -> None:
    with new_file(folder, name, mode) as copy, open(os.dup(original), "rb") as source:  # noqa: PTH123
        part = source.read(_COPY_PART)
        while part:
            copy.write(part)
            if part := source.read(_COPY_PART):
                copy.flush()
                os.fdatasync(copy.fileno())  # or the sync at the end would wait for all of it
                goes_on()
        copy.flush()
        os.fsync(copy.fileno())


def _move(claimed: Claimed, folder: int, entry: _Entry) -> str:
    """Move a claimed picture into a folder of the quarantine, and return its name there."""

    def is_taken(name: str) -> bool:
        return identity_at(folder, name) is not None or identity_at(folder, name + REASON_TAIL) is not None

    for name in numbered(claimed.name, LONGEST_COPY_NAME, is_taken):
        note = name + REASON_TAIL
        if identity_at(folder, name) is not None:
            continue
        is_ours = _is_reason_for(folder, note, entry.ticket)
        if identity_at(folder, note) is not None and not is_ours:
            continue
        write_synced(folder, entry.unfinished_reason, entry.reason, entry.mode)
        crash_point(CrashPoint.REASON_SYNCED)
        if not _reserved(folder, entry.unfinished_reason, note, is_ours):
            remove(folder, entry.unfinished_reason)
            continue
        crash_point(CrashPoint.REASON_WRITTEN)
        try:
            move_new(claimed.folder, claimed.name, folder, name)
        except OSError as error:
            remove(folder, note)
            if not isinstance(error, FileExistsError):
                raise
            continue
        crash_point(CrashPoint.QUARANTINED)
        sync_folder(folder)
        return name
    raise AssertionError("names never end")


def reason_for(ticket: Ticket, fault: Fault, attempts: int, origin: Mapping[str, str] | None = None) -> bytes:
    """What a reason file says, as JSON.

    Args:
        origin: further entries, which say which file it was where inode and time don't.
    """
    content = {
        "picture": printable(ticket.path),
        "stage": fault.stage.value,
        "error": fault.error,
        "message": fault.message.encode("utf-8", "backslashreplace").decode(),
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "size": ticket.identity.size,
        "attempts": attempts,
        "inode": ticket.identity.inode,
        "mtime_ns": ticket.identity.mtime_ns,
        **(origin or {}),
    }
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def _is_reason_for(folder: int, note: str, ticket: Ticket) -> bool:
    """Whether a reason file was written for the ticket's very file."""
    try:
        with open_regular(folder, note) as file:
            content = foreign_json.loads(file.read(LONGEST_REASON))
        seen = Identity(ticket.identity.device, content["inode"], content["size"], content["mtime_ns"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return seen == ticket.identity
