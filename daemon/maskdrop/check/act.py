"""Moving or deleting broken files, by the steps by which the daemon puts an original away.

Each file is claimed first, so that one put in its place meanwhile is never touched; then it is
moved by one rename, or unlinked. So at any instant, a file is either in its folder or where it goes.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from maskdrop.check.findings import Finding
from maskdrop.check.worker import Verdict
from maskdrop.claim import CLAIMED, claim, put_all_back
from maskdrop.death import MACHINES
from maskdrop.durable import FolderTrouble
from maskdrop.inbox.lock import LOCK_NAME, InboxLock
from maskdrop.leave_alone import OriginalChanged, OriginalStuck
from maskdrop.names import printable
from maskdrop.outbox import move_into

_FOLDER_MODE = 0o755


@contextmanager
def folder_for_us_alone(folder: Path) -> Iterator[None]:
    """If the folder is an inbox, keep its daemon away. Before and after, clear up what claiming leaves.

    Raises:
        InboxHeld: a daemon is at work there.
        OSError: its lock file can't be opened.
    """
    lock = InboxLock.take(folder) if (folder / LOCK_NAME).exists() else None
    try:
        put_all_back(folder)
        yield
    finally:
        put_all_back(folder)
        with contextlib.suppress(OSError):
            (folder / CLAIMED).rmdir()
        if lock is not None:
            lock.release()


def put_away(folder: Path, finding: Finding, target: Path | None) -> Finding:
    """Move a broken file below ``target``, under its relative path or a numbered one; None: delete it.

    Returns:
        The finding, with what became of the file.
    """
    if finding.verdict is not Verdict.BROKEN:
        return finding
    if target is None and finding.error in MACHINES:
        return replace(finding, done="not deleted: the machine may be at fault; look at it, or move it")
    try:
        with claim(folder, finding.ticket) as claimed:
            try:
                if target is None:
                    os.unlink(claimed.name, dir_fd=claimed.folder)
                    return replace(finding, done="deleted")
                name = move_into(claimed.folder, claimed.name, target, finding.path, _FOLDER_MODE)
                return replace(finding, done=f"moved to {printable(target / name)}")
            except OSError as error:
                raise FolderTrouble(f"{target or folder}", error) from error
    except OriginalChanged:
        return replace(finding, done="left: gone, or another file by now")
    except (OriginalStuck, FolderTrouble) as error:
        return replace(finding, done=f"left: {error}")
