"""Where broken pictures go: moved by rename, the reason beside each."""

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import PurePath

from maskdrop.beneath import identity_at, open_file, open_folder, split
from maskdrop.claim import Claimed, OriginalChanged, claim
from maskdrop.config import FolderSettings
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.durable import FolderTrouble, remove, rename_new, rename_over, sync_folder, write_synced
from maskdrop.folders import Folders
from maskdrop.names import NAME_MAX, numbered, printable
from maskdrop.outbox import found_in
from maskdrop.ticket import Fault, Identity, Ticket

REASON_TAIL = ".reason.json"

_LIMIT = NAME_MAX - len(REASON_TAIL)
LONGEST_REASON = 65_536
"""Bytes of a reason file that are read at most."""


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
        OriginalStuck: it can't be moved.
        FolderTrouble: the quarantine can't take it now; it is still in the inbox.
    """
    reason = json.dumps(_reason(ticket, fault, attempts), indent=2, ensure_ascii=False).encode() + b"\n"
    parent, _ = split(ticket.path)
    try:
        with claim(folders.inbox, ticket) as claimed:
            try:
                with open_folder(folders.quarantine, parent, settings.folder_mode) as folder:
                    name = _move(claimed, folder, ticket, reason, settings.mode)
            except OSError as error:
                raise FolderTrouble(f"quarantine {folders.quarantine}", error) from error
    except OriginalChanged:
        if found_in(folders.quarantine, ticket, _LIMIT):
            return ticket.path
        raise
    return str(PurePath(parent) / name)


def _move(claimed: Claimed, folder: int, ticket: Ticket, reason: bytes, mode: int) -> str:
    """Move a claimed picture into a folder of the quarantine, and return its name there."""
    # Named after the picture, so that the next try takes up what a dead one left.
    key = hashlib.sha256(os.fsencode(ticket.path)).hexdigest()
    temporary = f".maskdrop-{key[:32]}.tmp"
    for name in numbered(claimed.name, _LIMIT):
        note = name + REASON_TAIL
        if identity_at(folder, name) is not None:
            continue
        if identity_at(folder, note) is not None and not _is_reason_for(folder, note, ticket):
            continue
        write_synced(folder, temporary, reason, mode)
        crash_point(CrashPoint.REASON_SYNCED)
        rename_over(folder, temporary, note)
        crash_point(CrashPoint.REASON_WRITTEN)
        try:
            rename_new(claimed.folder, claimed.name, folder, name)
        except OSError as error:
            remove(folder, note)
            if not isinstance(error, FileExistsError):
                raise
            continue
        crash_point(CrashPoint.QUARANTINED)
        sync_folder(folder)
        return name
    raise AssertionError("names never end")


def _reason(ticket: Ticket, fault: Fault, attempts: int) -> dict[str, object]:
    return {
        "picture": printable(ticket.path),
        "stage": fault.stage.value,
        "error": fault.error,
        "message": fault.message.encode("utf-8", "backslashreplace").decode(),
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "size": ticket.identity.size,
        "attempts": attempts,
        "inode": ticket.identity.inode,
        "mtime_ns": ticket.identity.mtime_ns,
    }


def _is_reason_for(folder: int, note: str, ticket: Ticket) -> bool:
    """Whether a reason without its picture was written for this very file."""
    try:
        with open(open_file(folder, note), "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            content = json.loads(file.read(LONGEST_REASON))
        seen = Identity(ticket.identity.device, content["inode"], content["size"], content["mtime_ns"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return seen == ticket.identity
