"""Copies of broken pictures with their reasons, from any place to any other."""

from maskdrop.beneath import identity_below
from maskdrop.claim import OriginalChanged, OriginalStuck
from maskdrop.cluster.cargo import Work
from maskdrop.cluster.stores import NOWHERE, FolderStore, Store
from maskdrop.config import FolderSettings
from maskdrop.decoding import BrokenPicture
from maskdrop.folders import Folders
from maskdrop.original import LeaveAlone
from maskdrop.quarantine import LARGEST_COPY, REASON_TAIL, quarantine_copy, reason_for
from maskdrop.ticket import Absence, Identity, Ticket


def put_broken(source: Store, target: Store, work: Work, settings: FolderSettings) -> str:
    """Write the reason, then copy the picture beside it. A later run replaces its own copy.

    Returns:
        The copy's path, relative to the quarantine.

    Raises:
        LeaveAlone: the original is gone, or can't be read.
        FolderTrouble: the quarantine can't take it now.
    """
    assert work.fault is not None
    if isinstance(source, FolderStore) and isinstance(target, FolderStore):
        return _between_folders(source, target, work, settings)
    ticket = Ticket(0, work.path, Identity(0, 0, max(0, work.size), 0) if work.size >= 0 else NOWHERE)
    target.put(work.path + REASON_TAIL, reason_for(ticket, work.fault, work.attempts))
    try:
        content = source.read(work.path, LARGEST_COPY)
    except BrokenPicture as error:
        if error.error != "EmptyFile":
            return ""
        content = b""
    target.put(work.path, content)
    return work.path


def _between_folders(source: FolderStore, target: FolderStore, work: Work, settings: FolderSettings) -> str:
    identity = identity_below(source.base, work.path)
    if identity is None:
        raise LeaveAlone(Absence.GONE, "gone before it could be quarantined")
    folders = Folders(source.base, target.base, target.base, None, keeps=True)
    assert work.fault is not None
    try:
        ticket = Ticket(0, work.path, identity)
        return quarantine_copy(folders, ticket, work.fault, work.attempts, settings)
    except OriginalChanged as error:
        raise LeaveAlone(Absence.CHANGED, "gone or changed before it could be quarantined") from error
    except OriginalStuck as error:
        raise LeaveAlone(Absence.UNREADABLE, str(error)) from error
