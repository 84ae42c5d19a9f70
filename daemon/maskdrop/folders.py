"""The daemon's folders: made at start, and checked so that every later move can be atomic."""

import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maskdrop.beneath import is_folder
from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError, fault
from maskdrop.ticket import Identity


class NoRoom(ConfigurationError):
    """A folder can't take what has to be made there until there is room."""


@dataclass(frozen=True)
class Folders:
    """Absolute paths of folders that exist and fit together.

    Attributes:
        quarantine: None if broken pictures are only reported, which may be so only if originals are kept.
        archive: None if originals are deleted or kept.
        keeps: originals stay as and where they are; what goes to quarantine is a copy.
        skips_done: a picture whose results are in the outbox is not done again.
    """

    inbox: Path
    outbox: Path
    quarantine: Path | None
    archive: Path | None
    keeps: bool = False
    skips_done: bool = False

    @property
    def locked(self) -> Path:
        """The folder in which only one maskdrop works at a time: the outbox if originals are kept, because
        nothing is written to the inbox then."""
        return self.outbox if self.keeps else self.inbox


def named_folders(settings: Settings) -> dict[str, Path]:
    """The daemon's folders in use, by their keys, as configured."""
    wanted = settings.folders
    named = {"inbox": wanted.inbox, "outbox": wanted.outbox, "quarantine": wanted.quarantine_folder}
    return named if wanted.archive_folder is None else {**named, "archive": wanted.archive_folder}


def own_files(settings: Settings) -> dict[str, Path]:
    """Files that the daemon replaces again and again, by their keys."""
    files = {"health.file": settings.health_file}
    return files if settings.metrics.file is None else {**files, "metrics.file": settings.metrics.file}


def prepare_folders(settings: Settings) -> Folders:
    """Make the folders that are missing and check that the daemon can work with them.

    Raises:
        NoRoom: the disk is too full for a folder that is missing.
        ConfigurationError: a folder can't be found, made or written, lies inside another one, or
            can't take a file from the inbox by an atomic rename.
    """
    named = named_folders(settings)
    resolved = {key: followed(f"folders.{key}", folder) for key, folder in named.items()}
    check_nesting(resolved)
    for key, folder in named.items():
        make_folder(f"folders.{key}", folder)
    check_own_files(settings, resolved)
    for key, file in own_files(settings).items():
        make_folder(key, file.parent.resolve())
    checks = [partial(check_writable, key, file.parent) for key, file in own_files(settings).items()]
    checks += [partial(check_writable, f"folders.{key}", folder) for key, folder in resolved.items()]
    for key in ("quarantine", "archive"):
        if key in resolved:
            checks.append(partial(check_rename, f"folders.{key}", resolved["inbox"], resolved[key]))
    for check in checks:
        # If there is no room, work pauses until there is, as on a disk that becomes full later.
        with contextlib.suppress(NoRoom):
            check()
    return Folders(resolved["inbox"], resolved["outbox"], resolved["quarantine"], resolved.get("archive"))


def prepare_to_keep(settings: Settings, skips_done: bool) -> Folders:
    """Check a batch's folders. Originals are kept, so the inbox is only read and may be on any file system.

    Raises:
        ConfigurationError: a folder can't be found, read, made or written, or lies inside another one.
    """
    inbox, quarantine = settings.folders.inbox, settings.folders.quarantine
    try:
        with os.scandir(inbox) as entries:
            next(entries, None)
    except OSError as error:
        raise fault("IN", inbox, error.strerror or str(error), "name a folder that you may read") from error
    named = {"outbox": settings.folders.outbox}
    if quarantine is not None:
        named["quarantine"] = quarantine
    resolved = {key: followed(f"folders.{key}", folder) for key, folder in named.items()}
    resolved = {"inbox": inbox.resolve(), **resolved}
    check_nesting(resolved)
    for key, folder in named.items():
        make_folder(f"folders.{key}", folder)
        check_writable(f"folders.{key}", folder)
    outbox = resolved["outbox"]
    return Folders(resolved["inbox"], outbox, resolved.get("quarantine"), None, True, skips_done)


def followed(key: str, folder: Path) -> Path:
    """Where a folder really is, or would be, with links followed.

    Raises:
        ConfigurationError: links on its way lead round in a circle.
    """
    try:
        return folder.resolve()
    except (OSError, RuntimeError) as error:  # Python's versions differ in which they raise
        remedy = "mend the link, or name another folder"
        raise fault(key, folder, "links on its way lead round in a circle", remedy) from error


def make_folder(key: str, folder: Path) -> None:
    """Make a folder that is missing, and those above it.

    Raises:
        NoRoom: the disk is full.
        ConfigurationError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse_want_of_room(key, folder, error)
        problem = f"no such folder, and it can't be made ({error.strerror})"
        raise fault(key, folder, problem, "make it yourself, or name a folder you may write") from error


def check_nesting(folders: dict[str, Path]) -> None:
    """Check that all folders are different, and that none lies in the inbox or has the inbox inside it.

    Raises:
        ConfigurationError: two are the same, or one lies inside the other.
    """
    names = list(folders)
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            if _is_one(folders[name], folders[other]):
                raise fault(
                    f"folders.{other}", folders[other], f"is the {name} too", "give each a folder of its own"
                )
    inbox = folders["inbox"]
    for name, folder in folders.items():
        if name == "inbox":
            continue
        if any(_is_one(at, inbox) for at in (folder, *folder.parents)):
            raise fault(
                f"folders.{name}", folder, "lies inside the inbox", "choose a folder outside the inbox"
            )
        if any(_is_one(at, folder) for at in (inbox, *inbox.parents)):
            raise fault(
                "folders.inbox", inbox, f"lies inside the {name}", f"choose a folder outside the {name}"
            )


def _is_one(folder: Path, other: Path) -> bool:
    """Whether two paths name the same folder, as they also do if it is mounted in two places."""
    try:
        return folder == other or folder.samefile(other)
    except OSError:
        return False  # a folder that is still to be made is no other one


def check_own_files(settings: Settings, folders: dict[str, Path]) -> None:
    """Check that files which the daemon writes again and again don't lie where pictures come from.

    Args:
        folders: the daemon's folders by their keys, resolved.

    Raises:
        ConfigurationError: a file lies there, is a folder or device, or is the same as another one.
    """
    others = {} if settings.log.file is None else {"log.file": settings.log.file}
    taken: dict[Path, str] = {}
    for key, file in {**own_files(settings), **others}.items():
        parent = followed(key, file.parent)
        if parent.is_relative_to(folders["inbox"]):
            raise fault(key, file, "lies inside the inbox", "choose a place outside the inbox")
        if is_folder(file):
            raise fault(key, file, "is a folder", "name a file")
        if key in own_files(settings) and _is_something_else(file):
            raise fault(key, file, "is no regular file, and one would replace it", "name another file")
        place = parent / file.name
        if (other := taken.get(place)) is not None:
            raise fault(key, file, f"is the {other} file too", "give each a name of its own")
        taken[place] = key.partition(".")[0]


def _is_something_else(file: Path) -> bool:
    """Whether something that isn't a regular file has this name, perhaps through links."""
    try:
        return not stat.S_ISREG(file.stat().st_mode)
    except OSError as error:
        return error.errno == errno.ELOOP


def check_writable(key: str, folder: Path) -> None:
    """Check that a file can be made there, by making one.

    Raises:
        NoRoom: the disk is full.
        ConfigurationError: no file can be made there.
    """
    probe = folder / probe_name()
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        refuse_want_of_room(key, folder, error)
        raise fault(
            key, folder, f"can't be written ({error.strerror})", "give maskdrop's user leave to write there"
        ) from error


def check_rename(key: str, inbox: Path, target: Path) -> None:
    """Check that a file can be renamed from the inbox to there, by renaming one: bind mounts and overlays
    refuse that even within one device number.

    Raises:
        NoRoom: the disk is full.
        ConfigurationError: it can't be renamed.
    """
    name = probe_name()
    source = inbox / name
    try:
        source.touch()
        before = Identity.of(source.lstat())
        source.rename(target / name)
        is_the_same = Identity.of((target / name).lstat()) == before
    except OSError as error:
        if inbox.stat().st_dev == target.stat().st_dev:
            refuse_want_of_room(key, target, error)
        raise fault(
            key,
            target,
            f"a rename from the inbox {inbox} is not atomic there ({error.strerror})",
            "choose a folder on the inbox's file system",
        ) from error
    finally:
        for place in (source, target / name):
            with contextlib.suppress(OSError):
                place.unlink()
    if not is_the_same:
        problem = f"a file renamed from the inbox {inbox} to there can't be told from another one"
        raise fault(key, target, problem, "choose a file system whose inode numbers stay as they are")


def refuse_want_of_room(key: str, folder: Path, error: OSError) -> None:
    """Distinguish a full disk from other trouble with a folder, which is left to the caller.

    Raises:
        NoRoom: the disk or the quota is full.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        refused = fault(key, folder, f"can't be written now ({error.strerror})", "make room")
        raise NoRoom(refused.problem, refused.remedy) from error


def probe_name() -> str:
    """A name that nothing else has; it is random, because two containers may share a folder and a process
    number."""
    return f".maskdrop-probe-{secrets.token_hex(8)}.tmp"
