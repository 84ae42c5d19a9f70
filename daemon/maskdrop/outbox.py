"""Last station: results are published in the outbox, and the original is put away. Everything here is final.

A result replaces only an earlier result of the same picture; each one says which picture it is of. All
results of a picture have the same stem, which no other picture's results have.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path, PurePath

from maskdrop.beneath import identity_at, open_folder, split
from maskdrop.claim import claim, trouble_in
from maskdrop.config import FolderSettings
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.durable import move_new, remove, rename_over, sync_folder, write_synced
from maskdrop.folders import Folders
from maskdrop.leave_alone import UnfitName
from maskdrop.names import NAME_MAX, fit, numbered
from maskdrop.results.names import Result
from maskdrop.results.provenance import source_at
from maskdrop.ticket import Identity, Ticket

_SHORT_DIGEST = 8


class Outbox:
    """The folders where pictures end, as one save worker sees them."""

    def __init__(self, folders: Folders, settings: FolderSettings, tails: Sequence[str] = ()) -> None:
        """Prepare.

        Args:
            tails: what follows the stem in the name of each result of a picture, to find earlier ones by.
        """
        self._folders, self._tails = folders, tails
        self._mode, self._folder_mode = settings.mode, settings.folder_mode

    def publish(self, ticket: Ticket, sha256: str, results: list[Result]) -> tuple[str, ...]:
        """Write the results, whole and synced, under names that replace no other picture's.

        Returns:
            The results' paths relative to the outbox.

        Raises:
            OriginalStuck: the outbox can't take them under the picture's name.
            FolderTrouble: it can't take any now. Nothing half-written has a result's name.
        """
        relative = PurePath(ticket.path)
        try:
            with open_folder(self._folders.outbox, relative.parent, self._folder_mode) as folder:
                names = self._publish_all(folder, ticket, sha256, results)
                sync_folder(folder)
                crash_point(CrashPoint.RESULTS_PUBLISHED)
        except OSError as error:
            raise trouble_in("outbox", self._folders.outbox, ticket.path, error) from error
        return tuple(str(relative.parent / name) for name in names)

    def _publish_all(self, folder: int, ticket: Ticket, sha256: str, results: list[Result]) -> list[str]:
        """Publish all results under one mark, so that everything with the same stem is of one picture.

        If several pictures want the same names at the same time, the one that gets the first name wins.
        """
        stem = PurePath(ticket.path).stem
        for mark in marks(sha256):
            names = [fit(stem, mark + result.tail) for result in results]
            if not all(_may_take(folder, name, sha256) for name in names):
                continue
            with contextlib.ExitStack() as undo:
                for name, result in zip(names, results, strict=True):
                    if not self._publish_one(folder, name, ticket, sha256, result, undo):
                        break
                else:
                    undo.pop_all()
                    return names
        raise AssertionError("marks never end")

    def _publish_one(
        self,
        folder: int,
        name: str,
        ticket: Ticket,
        sha256: str,
        result: Result,
        undo: contextlib.ExitStack,
    ) -> bool:
        """Write a result. Returns whether it has the name, which another picture's result may have taken.

        Args:
            undo: gets a callback that takes a new result back.
        """
        temporary = temporary_for(self._folders, ticket, sha256 + result.tail)
        try:
            write_synced(folder, temporary, result.content, self._mode)
            crash_point(CrashPoint.RESULT_WRITTEN)
            ours = identity_at(folder, temporary)
            try:
                move_new(folder, temporary, folder, name)
            except FileExistsError:
                if source_at(folder, name) != sha256:
                    return False
                self._replace(folder, temporary, name)
            else:
                undo.callback(_take_back, folder, name, ours)
            crash_point(CrashPoint.RESULT_RENAMED)
            return True
        finally:
            remove(folder, temporary)

    def _replace(self, folder: int, temporary: str, name: str) -> None:
        try:
            rename_over(folder, temporary, name)
        except PermissionError as error:
            if error.errno != errno.EPERM:
                raise
            # The folder took the temporary file, so it is only this one file that may not be replaced.
            raise UnfitName(f"the outbox's {name} may not be replaced: {error.strerror}") from error

    def put_away(self, ticket: Ticket) -> None:
        """Move the original to the archive, or delete it.

        Raises:
            OriginalChanged: the file in the inbox is not the ticket's any more.
            OriginalStuck: it can't be moved, or the archive can't take it under its name.
            FolderTrouble: the archive can't take it now; it is still in the inbox.
        """
        archive = self._folders.archive
        with claim(self._folders.inbox, ticket) as claimed:
            try:
                if archive is None:
                    os.unlink(claimed.name, dir_fd=claimed.folder)
                    crash_point(CrashPoint.ORIGINAL_MOVED)
                else:
                    move_into(claimed.folder, claimed.name, archive, ticket.path, self._folder_mode)
            except OSError as error:
                what, where = ("inbox", self._folders.inbox) if archive is None else ("archive", archive)
                raise trouble_in(what, where, ticket.path, error) from error
        crash_point(CrashPoint.FOLDER_SYNCED)

    def was_put_away(self, ticket: Ticket, sha256: str) -> bool:
        """Whether a worker that died had already put this very file away."""
        if self._folders.archive is not None:
            return found_in(self._folders.archive, ticket) is not None
        return self.published(ticket, sha256) is not None

    def published(self, ticket: Ticket, sha256: str) -> tuple[str, ...] | None:
        """The paths, relative to the outbox, of all results of a picture with this content; None if
        any of them is missing."""
        relative = PurePath(ticket.path)
        try:
            with open_folder(self._folders.outbox, relative.parent) as folder:
                names = _published_names(folder, relative.stem, self._tails, sha256)
        except OSError:
            return None
        return None if names is None else tuple(str(relative.parent / name) for name in names)


def _published_names(folder: int, stem: str, tails: Sequence[str], sha256: str) -> list[str] | None:
    for mark in marks(sha256):
        names = [fit(stem, mark + tail) for tail in tails]
        if all(source_at(folder, name) == sha256 for name in names):
            return names
        if all(identity_at(folder, name) is None for name in names):
            return None
    raise AssertionError("marks never end")


def _take_back(folder: int, name: str, ours: Identity | None) -> None:
    """Remove a result, unless another saver has put that of an equal picture in its place."""
    if identity_at(folder, name) == ours:
        remove(folder, name)


def _may_take(folder: int, name: str, sha256: str) -> bool:
    """Whether the name is free, or a result of the same picture has it."""
    return identity_at(folder, name) is None or source_at(folder, name) == sha256


def temporary_for(folders: Folders, ticket: Ticket, what: str) -> str:
    """The name of a file until all of it is written. The next try for the same picture takes the same name,
    and so replaces what a dead worker left; pictures of other inboxes never take it. It doesn't depend on
    the device number, which may change with the next boot.

    Args:
        what: which of the files that are made from the picture.
    """
    inbox, file = os.fsencode(folders.inbox), ticket.identity
    said = (inbox, os.fsencode(ticket.path), file.inode, file.size, file.mtime_ns, what)
    return f".maskdrop-{hashlib.sha256(repr(said).encode()).hexdigest()[:32]}.tmp"


def marks(sha256: str) -> Iterator[str]:
    """What to add to a stem: nothing, then the start of the content's SHA-256, then that with numbers."""
    yield ""
    yield f"~{sha256[:_SHORT_DIGEST]}"
    for number in count(2):
        yield f"~{sha256[:_SHORT_DIGEST]}-{number}"


def move_into(folder: int, name: str, base: Path, relative: str, folder_mode: int) -> str:
    """Rename a file into a folder tree, to a relative path or a numbered variant of it.

    Returns:
        The path relative to the base.

    Raises:
        OSError: it could not be moved, or not synced there.
    """
    parent, wanted = split(relative)
    with open_folder(base, parent, folder_mode) as target:
        for new_name in numbered(wanted, is_taken=lambda name: identity_at(target, name) is not None):
            try:
                move_new(folder, name, target, new_name)
            except FileExistsError:
                continue
            crash_point(CrashPoint.ORIGINAL_MOVED)
            sync_folder(target)
            return str(PurePath(parent) / new_name)
    raise AssertionError("names never end")


def found_in(base: Path, ticket: Ticket, limit: int = NAME_MAX) -> str | None:
    """Where in a folder tree the ticket's very file lies, under whatever name; None: it isn't there."""
    try:
        parent, wanted = split(ticket.path)
        with open_folder(base, parent) as folder:
            name = _found_at(folder, wanted, ticket, limit)
    except OSError:
        return None
    return None if name is None else str(PurePath(parent) / name)


def _found_at(folder: int, wanted: str, ticket: Ticket, limit: int) -> str | None:
    for name in numbered(wanted, limit):
        identity = identity_at(folder, name)
        if identity == ticket.identity:
            return name
        if identity is None:
            break
    with os.scandir(folder) as entries:  # there may be gaps before its number
        names = [entry.name for entry in entries if entry.inode() == ticket.identity.inode]
    return next((name for name in names if identity_at(folder, name) == ticket.identity), None)
