"""Copies of broken pictures with their reasons, from any place to any other."""

import hashlib
from collections.abc import Iterator

from maskdrop import foreign_json
from maskdrop.beneath import identity_below
from maskdrop.cluster.cargo import Work
from maskdrop.cluster.stores import FolderStore, Store
from maskdrop.config import FolderSettings
from maskdrop.decoding import BrokenPicture
from maskdrop.durable import FolderTrouble
from maskdrop.folders import Folders
from maskdrop.leave_alone import LeaveAlone, OriginalChanged, StuckByFolder, UnfitName
from maskdrop.names import numbered, printable
from maskdrop.quarantine import (
    LARGEST_COPY,
    LONGEST_COPY_NAME,
    LONGEST_REASON,
    REASON_TAIL,
    quarantine_copy,
    reason_for,
)
from maskdrop.ticket import Absence, Identity, Ticket


def put_broken(source: Store, target: Store, work: Work, settings: FolderSettings) -> str:
    """Write the reason, then copy the picture beside it, unless it is larger than `LARGEST_COPY`.

    Names are as in a quarantine folder: a file that has the name stays, and the picture gets a numbered name,
    unless the reason beside the file says that it is a copy of this very picture.

    Returns:
        The copy's path, relative to the quarantine; "" where there is none.

    Raises:
        UnfitName: the quarantine can't take the picture under its name.
        LeaveAlone: the original is gone, changed, or can't be read.
        FolderTrouble: the quarantine can't take the picture now.
    """
    assert work.fault is not None
    if isinstance(source, FolderStore) and isinstance(target, FolderStore):
        return _between_folders(source, target, work, settings)
    content = _content(source, work)
    size = len(content) if content is not None else max(0, work.size)
    sha256 = work.sha256 if content is None else hashlib.sha256(content).hexdigest()
    origin = {"in": printable(source.address), "sha256": sha256}
    reason = reason_for(Ticket(0, work.path, Identity(0, 0, size, 0)), work.fault, work.attempts, origin)
    key = f"{source.address} {work.path} {sha256}"
    for path in _paths(work.path):
        note = path + REASON_TAIL
        if _is_same(_reason_at(target, note), reason):
            target.put(note, reason, f"{key} reason")
        elif target.has(path) or not target.put_new(note, reason, f"{key} reason"):
            continue
        if content is None:
            return ""
        target.put(path, content, f"{key} copy")
        return path
    raise AssertionError("names never end")


def _content(source: Store, work: Work) -> bytes | None:
    """The bytes to copy; None: too many."""
    try:
        content = source.read(work.path, LARGEST_COPY)
    except BrokenPicture as error:
        if error.error != "EmptyFile":
            return None
        content = b""
    sha256 = hashlib.sha256(content).hexdigest()
    if work.sha256 not in ("", sha256) or _has_another_size(work, len(content)):
        raise LeaveAlone(Absence.CHANGED, "changed before it could be quarantined")
    return content


def _has_another_size(work: Work, size: int) -> bool:
    """Whether a picture that was never read, and so has no SHA-256, is another one now."""
    return not work.sha256 and work.size not in (-1, size)


def _paths(path: str) -> Iterator[str]:
    """Names that a copy may have; never a reason's, which the reason of a later picture may need."""
    parent, slash, wanted = path.rpartition("/")
    names = (name for name in numbered(wanted, LONGEST_COPY_NAME) if not name.endswith(REASON_TAIL))
    return (f"{parent}{slash}{name}" for name in names)


def _reason_at(target: Store, note: str) -> bytes:
    """The content of the file of this name, if it can be a reason; else nothing."""
    try:
        return target.read(note, LONGEST_REASON)
    except BrokenPicture:
        return b""
    except UnfitName:
        raise
    except LeaveAlone as error:
        if target.is_remote and error.absence is Absence.STUCK:
            raise FolderTrouble(f"{target.address}/{note}", OSError(str(error))) from error
        return b""


def _is_same(found: bytes, reason: bytes) -> bool:
    """Whether two reasons are about the same picture from the same place."""
    try:
        one, other = (foreign_json.loads(told) for told in (found, reason))
        return all(one[key] == other[key] for key in ("in", "picture", "size", "sha256"))
    except (ValueError, KeyError, TypeError):
        return False


def _between_folders(source: FolderStore, target: FolderStore, work: Work, settings: FolderSettings) -> str:
    identity = identity_below(source.base, work.path)
    if identity is None:
        raise source.unreached(work.path)
    if _has_another_size(work, identity.size):
        raise LeaveAlone(Absence.CHANGED, "changed before it could be quarantined")
    folders = Folders(source.base, target.base, target.base, None, keeps=True)
    assert work.fault is not None
    try:
        ticket = Ticket(0, work.path, identity)
        return quarantine_copy(folders, ticket, work.fault, work.attempts, settings, work.sha256)
    except OriginalChanged as error:
        raise OriginalChanged("gone or changed before it could be quarantined") from error
    except StuckByFolder as error:
        raise FolderTrouble(f"{target.base / work.path}", error.error) from error
