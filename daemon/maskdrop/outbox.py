"""Last station: results published in the outbox, the original put away. Everything here is final.

A result carries the SHA-256 of the picture it was made from (EXIF tag DocumentName), so
that a name in use is only ever replaced by the same picture's result.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePath

from PIL import Image

from maskdrop import __version__
from maskdrop.config import FolderSettings
from maskdrop.crash_points import CrashPoint, crash_point
from maskdrop.durable import FolderTrouble, make_subfolders, rename_new, sync_folder, write_synced
from maskdrop.folders import Folders
from maskdrop.names import NAME_MAX, fit, numbered
from maskdrop.ticket import Identity, Ticket

_DOCUMENT_NAME = 0x010D  # EXIF 2.32 / TIFF 6.0: the document this image was made from
_SOFTWARE = 0x0131  # TIFF 6.0
_SHORT_DIGEST = 8


class OriginalChanged(Exception):
    """The file in the inbox is gone, or not the one the result was made from."""


@dataclass(frozen=True)
class Result:
    """An encoded result, to be named ``STEM + tail``."""

    tail: str
    content: bytes


def provenance(sha256: str) -> Image.Exif:
    """EXIF that says which file a result was made from, and by what."""
    exif = Image.Exif()
    exif[_DOCUMENT_NAME] = f"sha256:{sha256}"
    exif[_SOFTWARE] = f"maskdrop {__version__}"
    return exif


def source_of(result: Path) -> str | None:
    """The SHA-256 of the picture that a result was made from, or None where it doesn't say."""
    try:
        with Image.open(result) as image:
            name = str(image.getexif().get(_DOCUMENT_NAME, ""))
    except Exception:  # whatever lies there, it is not our result
        return None
    return name.removeprefix("sha256:") if name.startswith("sha256:") else None


class Outbox:
    """The folders where pictures end, as one save worker sees them."""

    def __init__(self, folders: Folders, settings: FolderSettings) -> None:
        self._folders = folders
        self._mode = settings.mode

    def publish(self, ticket: Ticket, sha256: str, results: list[Result]) -> tuple[str, ...]:
        """Write the results, whole and synced, under names that replace no other picture's.

        Returns:
            The results' paths relative to the outbox.

        Raises:
            FolderTrouble: the outbox can't take them now. Nothing half-written has a name.
        """
        relative = PurePath(ticket.path)
        try:
            folder = make_subfolders(self._folders.outbox, Path(relative.parent))
            names = [self._publish_one(folder, relative, ticket, sha256, result) for result in results]
            sync_folder(folder)
            crash_point(CrashPoint.RESULTS_PUBLISHED)
        except OSError as error:
            raise FolderTrouble(f"outbox {self._folders.outbox}", error) from error
        return tuple(str(relative.parent / name) for name in names)

    def _publish_one(
        self, folder: Path, relative: PurePath, ticket: Ticket, sha256: str, result: Result
    ) -> str:
        key = hashlib.sha256(os.fsencode(ticket.path) + sha256.encode() + result.tail.encode()).hexdigest()
        temporary = folder / f".maskdrop-{key[:32]}.tmp"
        try:
            write_synced(temporary, result.content, self._mode)
            crash_point(CrashPoint.RESULT_WRITTEN)
            for mark in _marks(sha256):
                target = folder / fit(relative.stem, mark + result.tail)
                try:
                    rename_new(temporary, target)
                except FileExistsError:
                    if not target.is_symlink() and source_of(target) == sha256:
                        temporary.replace(target)
                        crash_point(CrashPoint.RESULT_RENAMED)
                        return target.name
                else:
                    crash_point(CrashPoint.RESULT_RENAMED)
                    return target.name
        finally:
            temporary.unlink(missing_ok=True)
        raise AssertionError("marks never end")

    def put_away(self, ticket: Ticket) -> None:
        """Move the original to the archive, or delete it.

        Raises:
            OriginalChanged: the file in the inbox is not the ticket's any more.
            FolderTrouble: the archive can't take it now; it is still in the inbox.
        """
        original = self._folders.inbox / ticket.path
        if identity_of(original) != ticket.identity:
            raise OriginalChanged
        archive = self._folders.archive
        try:
            if archive is None:
                original.unlink()
                crash_point(CrashPoint.ORIGINAL_MOVED)
            else:
                move_into(original, archive, ticket.path)
            sync_folder(original.parent)
            crash_point(CrashPoint.FOLDER_SYNCED)
        except OSError as error:
            raise FolderTrouble(f"archive {archive}" if archive else f"inbox {original}", error) from error

    def was_put_away(self, ticket: Ticket, sha256: str, tails: list[str]) -> bool:
        """Whether a worker that died had already put this very file away."""
        if self._folders.archive is not None:
            return found_in(self._folders.archive, ticket)
        relative = PurePath(ticket.path)
        folder = self._folders.outbox / relative.parent
        return all(self._published(folder, relative.stem, tail, sha256) for tail in tails)

    def _published(self, folder: Path, stem: str, tail: str, sha256: str) -> bool:
        for mark in _marks(sha256):
            target = folder / fit(stem, mark + tail)
            if not target.exists():
                return False
            if source_of(target) == sha256:
                return True
        raise AssertionError("marks never end")


def _marks(sha256: str) -> Iterator[str]:
    """What to add to a stem: nothing, then what the picture's content decides, then numbers."""
    yield ""
    yield f"~{sha256[:_SHORT_DIGEST]}"
    for number in count(2):
        yield f"~{sha256[:_SHORT_DIGEST]}-{number}"


def identity_of(path: Path) -> Identity | None:
    """The identity of a file, never following a link, or None where there is none."""
    try:
        return Identity.of(path.lstat())
    except OSError:
        return None


def move_into(source: Path, base: Path, relative: str) -> str:
    """Rename a file into a folder tree, under its own relative path or a numbered one.

    Returns:
        The path relative to the base.

    Raises:
        OSError: it could not be moved, and is where it was.
    """
    place = PurePath(relative)
    folder = make_subfolders(base, Path(place.parent))
    for name in numbered(place.name):
        try:
            rename_new(source, folder / name)
        except FileExistsError:
            continue
        crash_point(CrashPoint.ORIGINAL_MOVED)
        sync_folder(folder)
        return str(place.parent / name)
    raise AssertionError("names never end")


def found_in(base: Path, ticket: Ticket, limit: int = NAME_MAX) -> bool:
    """Whether the ticket's very file lies in a folder tree under one of its names."""
    place = PurePath(ticket.path)
    for name in numbered(place.name, limit):
        identity = identity_of(base / place.parent / name)
        if identity is None:
            return False
        if identity == ticket.identity:
            return True
    return False
