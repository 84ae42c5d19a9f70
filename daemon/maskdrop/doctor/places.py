"""The folders: whether they may be written, take renames from the inbox, and have room."""

import os
import pwd
from pathlib import Path

from maskdrop.beneath import is_folder, open_folder
from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError
from maskdrop.doctor.finding import Finding, fail, ok, size, warning
from maskdrop.doctor.network import check_network
from maskdrop.durable import has_rename_new
from maskdrop.folders import (
    NoRoom,
    check_nesting,
    check_own_files,
    check_rename,
    check_writable,
    followed,
    named_folders,
    own_files,
    probe_name,
)

LITTLE_BYTES, FEW_BYTES = 64 * 2**20, 2**30
"""Free bytes below which the daemon will soon stand still, and below which somebody should know."""

LITTLE_INODES, FEW_INODES = 1_000, 20_000
"""The same for files that can still be made."""


def check_places(settings: Settings) -> list[Finding]:
    """Everything about the folders of a configuration."""
    folders = named_folders(settings)
    findings = [_nesting(settings, folders), *(_folder(name, path) for name, path in folders.items())]
    for key, file in own_files(settings).items():
        findings.append(_folder(key.replace(".", " "), file.parent))
    if settings.log.file is not None:
        findings.append(_folder("log file", settings.log.file.parent))
    inbox = folders["inbox"]
    if is_folder(inbox):
        kept = [name for name in ("quarantine", "archive") if name in folders and is_folder(folders[name])]
        findings += [_rename(name, inbox.resolve(), folders[name].resolve()) for name in kept]
        findings.append(_rename_new(inbox.resolve()))
    findings += check_network(settings, folders)
    return findings + [_space(name, path) for name, path in folders.items()]


def _nesting(settings: Settings, folders: dict[str, Path]) -> Finding:
    try:
        resolved = {name: followed(f"folders.{name}", path) for name, path in folders.items()}
        check_nesting(resolved)
        check_own_files(settings, resolved)
    except ConfigurationError as error:
        return fail("folders", error.problem, error.remedy)
    return ok("folders", "none lies in the way of another")


def _folder(name: str, folder: Path) -> Finding:
    """Whether this user may use a folder: tried by writing, because file systems have rules of their own."""
    user = _user()
    remedy = f"chown {user} {folder}, or run maskdrop doctor as the daemon's user (sudo -u maskdrop …)"
    try:
        folder.stat()
    except PermissionError:
        return fail(name, f"{folder} can't be reached by {user}", remedy)
    except OSError:
        return _missing(name, folder)
    if not is_folder(folder):
        return fail(name, f"{folder} is no folder", "name a folder, or move the file away")
    if not os.access(folder, os.R_OK | os.X_OK):
        return fail(name, f"{folder} can't be read by {user}", remedy)
    try:
        check_writable(name, folder)
    except NoRoom as error:
        return fail(name, error.problem, error.remedy)
    except ConfigurationError as error:
        return fail(name, f"{error.problem}, by {user}", remedy)
    return ok(name, f"{folder} can be read and written by {user}")


def _missing(name: str, folder: Path) -> Finding:
    above = next(parent for parent in folder.parents if is_folder(parent))
    if os.access(above, os.W_OK | os.X_OK):
        return warning(name, f"{folder} is not there yet; the daemon makes it", f"mkdir -p {folder}")
    told = f"{folder} is not there, and {_user()} may not make it in {above}"
    return fail(name, told, f"mkdir -p {folder}; chown {_user()} {folder}")


def _rename(name: str, inbox: Path, folder: Path) -> Finding:
    try:
        check_rename(f"folders.{name}", inbox, folder)
    except ConfigurationError as error:
        return fail(f"rename to {name}", error.problem, error.remedy)
    return ok(f"rename to {name}", "atomic: one file system")


def _rename_new(inbox: Path) -> Finding:
    """Whether the inbox's file system has renames that replace nothing."""
    name = "rename without replacing"
    try:
        with open_folder(inbox) as folder:
            if has_rename_new(folder, probe_name()):
                return ok(name, "the inbox's file system has it")
    except OSError as error:
        return warning(name, f"can't be tried ({error.strerror})", "see what is said of the inbox")
    move = "a move is a link and an unlink, or a rename over an empty file"
    told = f"the inbox's file system has none (renameat2(2)): {move}"
    return warning(name, told, "nothing is lost; keep the inbox on a local disk if names must never be two")


def _space(name: str, folder: Path) -> Finding:
    there = next(place for place in (folder, *folder.parents) if is_folder(place))
    title = f"room in {name}"
    try:
        status = os.statvfs(there)
    except OSError as error:
        return fail(title, f"{there}: {error.strerror}", "mount its disk")
    free, files = status.f_bavail * status.f_frsize, status.f_favail
    told, remedy = f"{size(free)} free", "remove what is done, or move the folder to a larger disk"
    if status.f_files:  # some file systems, such as btrfs, have no fixed number
        told += f", {files:,} files can be made"
    lacks = [(free, LITTLE_BYTES, FEW_BYTES)]
    lacks += [(files, LITTLE_INODES, FEW_INODES)] if status.f_files else []
    if any(left < little for left, little, _ in lacks):
        return fail(title, told, remedy)
    if any(left < few for left, _, few in lacks):
        return warning(title, told, remedy)
    return ok(title, told)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
