"""Where pictures come from and results go to: folders here, object storage in object_store.py."""

import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from maskdrop.beneath import identity_at, identity_below, open_folder, open_regular, split
from maskdrop.claim import trouble_in
from maskdrop.config import FolderSettings
from maskdrop.config_file import fault
from maskdrop.durable import FolderTrouble, move_new, remove, rename_over, sync_folder, write_synced
from maskdrop.folders import Folders
from maskdrop.leave_alone import LeaveAlone, StuckByFolder, UnfitName
from maskdrop.names import printable
from maskdrop.original import read_original
from maskdrop.outbox import Outbox
from maskdrop.results.names import Result
from maskdrop.ticket import Absence, Identity, Ticket

PROBE = ".maskdrop-probe"
"""Name of a file that is written only to see whether that works."""

MANIFEST = "manifest.parquet"
"""The folder of the manifest's parts, in OUT. Readers of Parquet take it for one file, so nothing else may
lie there."""

NOWHERE = Identity(0, 0, 0, 0)
"""For a ticket whose file isn't looked at, or lies in no folder."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors that mean that there is no such file, or a link in its path; after any other, nobody can tell."""


class PlaceTrouble(Exception):
    """A place can't be used now; the message names it, and the remedy."""


@dataclass(frozen=True)
class Unfit:
    """Why a place can't be used.

    Attributes:
        passes: whether the place itself says that the trouble is temporary.
    """

    problem: str
    remedy: str
    passes: bool = False


class Store(Protocol):
    """A place of many files, the same seen from every machine."""

    @property
    def address(self) -> str:
        """The name to show to people; always the same for the same place."""

    @property
    def is_remote(self) -> bool:
        """Whether reading costs a request each time."""

    def check(self, writes: bool) -> Unfit | None:
        """Why the place can't be read or, with ``writes``, written to; None if it can."""

    def read(self, path: str, most: int) -> bytes:
        """An original's whole content.

        Raises:
            LeaveAlone: it is gone, changes meanwhile, or can't be read.
            BrokenPicture: it is empty or has more than ``most`` bytes.
        """

    def unreached(self, path: str) -> LeaveAlone:
        """Why an original can't be reached, though it was named; may cost requests of its own."""

    def publish(self, path: str, sha256: str, results: list[Result], is_shared: bool) -> tuple[str, ...]:
        """Write a picture's results, whole and durably, under names that replace no other picture's.

        Returns:
            Their paths relative to this place.

        Raises:
            UnfitName: the place can't take them under the picture's name.
            FolderTrouble: the place can't take any now.
        """

    def put(self, path: str, content: bytes, unfinished: str = "") -> None:
        """Write a file, whole and durably, or not at all. It replaces a file of the same name; if writing
        fails, the old one stays, unless the new one is an object of several parts.

        Args:
            unfinished: what a folder's temporary name is made from; "": the path. A writer with the same one
                replaces what a killed one left; no two may write with the same one at a time.

        Raises:
            FolderTrouble: it can't be written now.
        """

    def put_new(self, path: str, content: bytes, unfinished: str = "") -> bool:
        """As `put`, but whatever has the name already stays.

        Returns:
            Whether it was written. In object storage, two writers at the same instant may both get True.

        Raises:
            UnfitName: nothing can have this name here.
            FolderTrouble: it can't be written now.
        """

    def has(self, path: str) -> bool:
        """Whether anything has this name.

        Raises:
            UnfitName: nothing can have it here.
            FolderTrouble: that can't be found out now.
        """

    def get(self, path: str) -> bytes:
        """A file's whole content.

        Raises:
            NotAFile: it is a folder, FIFO or device.
            OSError: it can't be read.
        """

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder here, sorted; none where there is no such folder.

        Raises:
            OSError: it can't be read.
        """

    def remove(self, path: str) -> None:
        """Remove a file, if it is there.

        Raises:
            FolderTrouble: it can't be removed now.
        """


@dataclass(frozen=True)
class FolderStore:
    """A folder that all machines have at the same path; links below it are never followed."""

    base: Path
    settings: FolderSettings

    @property
    def address(self) -> str:
        return printable(self.base)

    @property
    def is_remote(self) -> bool:
        return False

    def check(self, writes: bool) -> Unfit | None:
        try:
            next(os.scandir(self.base), None)
            if writes:
                self.put(PROBE, b"maskdrop may write here\n")
                self.remove(PROBE)
        except FolderTrouble as error:
            return Unfit(error.error.strerror or str(error), "make room there, or mend its permissions")
        except OSError as error:
            return Unfit(error.strerror or str(error), "mount it again, or mend its permissions")
        return None

    def read(self, path: str, most: int) -> bytes:
        identity = identity_below(self.base, path)
        if identity is None:
            raise self.unreached(path)
        return read_original(self.base, Ticket(0, path, identity), most)

    def unreached(self, path: str) -> LeaveAlone:
        """Why a file can't be reached: it is gone only where this folder is there and says so."""
        try:
            with open_folder(self.base):
                pass
        except OSError as error:
            return LeaveAlone(Absence.STUCK, f"{printable(self.base)}: {error.strerror}")
        try:
            parent, name = split(path)
            with open_folder(self.base, parent) as folder:
                identity_at(folder, name)
        except OSError as error:
            if error.errno not in _ABSENT:
                return LeaveAlone(Absence.STUCK, f"{error.strerror}; mend its name or permissions")
        problem = "no such file, or it can't be reached: links on its way are not followed"
        return LeaveAlone(Absence.GONE, f"{problem}; mend its name or permissions")

    def publish(self, path: str, sha256: str, results: list[Result], is_shared: bool) -> tuple[str, ...]:
        folders = Folders(self.base, self.base, None, None, keeps=True)
        try:
            return Outbox(folders, self.settings).publish(Ticket(0, path, NOWHERE), sha256, results)
        except StuckByFolder as error:
            raise FolderTrouble(f"{self.base / path}", error.error) from error

    def put(self, path: str, content: bytes, unfinished: str = "") -> None:
        self._write(path, content, unfinished or path, replaces=True)

    def put_new(self, path: str, content: bytes, unfinished: str = "") -> bool:
        try:
            self._write(path, content, unfinished or path, replaces=False)
        except FolderTrouble as error:
            if isinstance(error.error, FileExistsError):
                return False
            raise self._trouble(path, error.error) from error
        return True

    def _write(self, path: str, content: bytes, unfinished: str, replaces: bool) -> None:
        digest = hashlib.sha256(os.fsencode(unfinished)).hexdigest()
        temporary = f".maskdrop-{digest[:32]}.tmp"
        try:
            parent, name = split(path)
            with open_folder(self.base, parent, self.settings.folder_mode) as folder:
                try:
                    write_synced(folder, temporary, content, self.settings.mode)
                    if replaces:
                        rename_over(folder, temporary, name)
                    else:
                        move_new(folder, temporary, folder, name)
                finally:
                    remove(folder, temporary)
                sync_folder(folder)
        except OSError as error:
            raise FolderTrouble(f"{self.base / path}", error) from error

    def has(self, path: str) -> bool:
        try:
            parent, name = split(path)
            with open_folder(self.base, parent) as folder:
                return identity_at(folder, name) is not None
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._trouble(path, error) from error

    def _trouble(self, path: str, error: OSError) -> FolderTrouble | UnfitName:
        trouble = trouble_in("folder", self.base, path, error)
        return trouble if isinstance(trouble, UnfitName) else FolderTrouble(f"{self.base / path}", error)

    def get(self, path: str) -> bytes:
        parent, name = split(path)
        with open_folder(self.base, parent) as folder, open_regular(folder, name) as file:
            return file.read()

    def names(self, folder: str) -> list[str]:
        try:
            with open_folder(self.base, folder) as descriptor:
                return sorted(name for name in os.listdir(descriptor) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        try:
            parent, name = split(path)
            with open_folder(self.base, parent) as folder:
                remove(folder, name)
                sync_folder(folder)
        except OSError as error:
            raise FolderTrouble(f"{self.base / path}", error) from error


def require(store: Store, writes: bool, name: str, named: str) -> None:
    """Check a place before anything is begun.

    Args:
        name, named: the word or setting that names the place, and its value.

    Raises:
        ConfigurationError: the place can't be used.
        PlaceTrouble: the place can't be used now.
    """
    if unfit := store.check(writes):
        why = fault(name, named, unfit.problem, unfit.remedy)
        raise PlaceTrouble(str(why)) if unfit.passes else why
