"""Where broken pictures go: moved by rename, the reason beside each."""

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path, PurePath

from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.durable import FolderTrouble, make_subfolders, rename_new, sync_folder, write_synced
from maskdrop.folders import Folders
from maskdrop.names import NAME_MAX, numbered, printable
from maskdrop.outbox import OriginalChanged, found_in, identity_of
from maskdrop.ticket import Fault, Identity, Ticket

REASON_TAIL = ".reason.json"

_LIMIT = NAME_MAX - len(REASON_TAIL)


def quarantine(folders: Folders, ticket: Ticket, fault: Fault, attempts: int, mode: int) -> str:
    """Write the reason, then move the picture beside it.

    The reason comes first: a crash in between leaves a reason whose picture is still in
    the inbox, and the next try finds and replaces it.

    Returns:
        The picture's path relative to the quarantine folder.

    Raises:
        OriginalChanged: the file in the inbox is not the ticket's any more.
        FolderTrouble: the quarantine can't take it now; it is still in the inbox.
    """
    original = folders.inbox / ticket.path
    if identity_of(original) != ticket.identity:
        if found_in(folders.quarantine, ticket, _LIMIT):
            return ticket.path
        raise OriginalChanged
    reason = json.dumps(_reason(ticket, fault, attempts), indent=2, ensure_ascii=False).encode() + b"\n"
    relative = PurePath(ticket.path)
    try:
        folder = make_subfolders(folders.quarantine, Path(relative.parent))
        # Named after the picture, so that the next try takes up what a dead one left.
        key = hashlib.sha256(os.fsencode(ticket.path)).hexdigest()
        temporary = folder / f".maskdrop-{key[:32]}.tmp"
        for name in numbered(relative.name, _LIMIT):
            note = folder / (name + REASON_TAIL)
            if os.path.lexists(folder / name) or (os.path.lexists(note) and not _is_reason_for(note, ticket)):
                continue
            write_synced(temporary, reason, mode)
            crash_point(CrashPoint.REASON_SYNCED)
            temporary.replace(note)
            crash_point(CrashPoint.REASON_WRITTEN)
            try:
                rename_new(original, folder / name)
            except FileExistsError:
                note.unlink()
                continue
            crash_point(CrashPoint.QUARANTINED)
            sync_folder(folder)
            sync_folder(original.parent)
            return str(relative.parent / name)
    except OSError as error:
        raise FolderTrouble(f"quarantine {folders.quarantine}", error) from error
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


def _is_reason_for(note: Path, ticket: Ticket) -> bool:
    """Whether a reason without its picture was written for this very file."""
    try:
        content = json.loads(note.read_bytes())
        seen = Identity(ticket.identity.device, content["inode"], content["size"], content["mtime_ns"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return seen == ticket.identity
