"""``maskdrop replay``: send pictures from quarantine or archive through the daemon once more."""

import re
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from maskdrop.beneath import is_folder
from maskdrop.commands.exits import EX_CONFIG, EX_FAILED, SIGNAL_EXIT, end_with, say, tell
from maskdrop.config_file import ConfigurationError, load_settings
from maskdrop.names import printable
from maskdrop.replay import Kept, Room, Wanted, clear_leftovers, find, put_back

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def replay(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Globs of names, or paths, to put back.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The daemon's TOML file.")] = None,
    inbox: Annotated[Path | None, typer.Option(help="Folder that is watched.")] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Default: beside the inbox.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Default: beside the inbox.")] = None,
    room: Annotated[
        Room, typer.Option("--from", help="Where to take them from: quarantine or archive.")
    ] = Room.QUARANTINE,
    reason: Annotated[
        list[str] | None, typer.Option(help="Glob of the error, stage or message, such as '*truncated*'.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Put there longer ago than this: 90s, 15m, 12h, 2d, 1w.")
    ] = None,
    newer_than: Annotated[str | None, typer.Option(help="Put there within this time.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All pictures there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which pictures.")] = False,
) -> None:
    """Put pictures from quarantine or archive back into the inbox, chosen by name, reason or age.

    Nothing in the inbox is replaced: a name that is in use gets a number. The daemon may be running.
    """
    older, newer = _seconds("--older-than", older_than), _seconds("--newer-than", newer_than)
    wanted = Wanted(tuple(patterns or ()), tuple(reason or ()), older, newer)
    if wanted.is_everything and not everything:
        end_with("which pictures? name patterns, --reason, --older-than, --newer-than, or --all", EX_CONFIG)
    if reason and room is Room.ARCHIVE:
        end_with("--reason: pictures in the archive have none; leave it out", EX_CONFIG)
    source, target, mode = _folders(config, inbox, quarantine, archive, room)
    moved = failed = unread = 0

    def pass_over(folder: str, error: OSError) -> None:
        nonlocal unread
        unread += 1
        say(f"{printable(folder)}: {error.strerror}; what is in it stays there")

    try:
        if room is Room.QUARANTINE and not dry_run:  # pictures in the archive have no reasons
            clear_leftovers(source)
        for kept in find(source, room, wanted, unread=pass_over):
            try:
                name = printable(kept.path) if dry_run else _put_back(source, target, kept, mode)
            except OSError as error:
                say(f"{printable(kept.path)}: {error.strerror}; it stays where it is")
                failed += 1
                continue
            if name is not None:
                moved += 1
                tell(name + (f" ({kept.error})" if kept.error else ""))
    except OSError as error:
        end_with(f"{source}: {error.strerror}", EX_FAILED)
    except KeyboardInterrupt:
        told = f"interrupted; {moved} are back in the inbox, the others where they were"
        end_with(told, SIGNAL_EXIT + signal.SIGINT)
    told = f"{moved} would be put back" if dry_run else f"{moved} are back in the inbox"
    told += f", {failed} could not be moved" if failed else ""
    told += f", {unread} folders could not be read" if unread else ""
    sys.stderr.write(told + "\n")
    raise typer.Exit(EX_FAILED if failed or unread else 0)


def _put_back(source: Path, target: Path, kept: Kept, mode: int) -> str | None:
    name = put_back(source, target, kept, mode)
    if name is None or name == kept.path:
        return None if name is None else printable(name)
    return f"{printable(kept.path)} as {printable(name)}"


def _folders(
    config: Path | None, inbox: Path | None, quarantine: Path | None, archive: Path | None, room: Room
) -> tuple[Path, Path, int]:
    """The room and the inbox, which must be there, and the permissions of folders that are made."""
    given = {"inbox": inbox, "quarantine": quarantine, "archive": archive}
    if inbox is not None and config is None:
        given["outbox"] = inbox.parent / "outbox"  # not used here, but every configuration needs one
    try:
        folders = load_settings(config, {"folders": given}).folders
    except ConfigurationError as error:
        end_with(str(error), EX_CONFIG)
    source = folders.quarantine_folder if room is Room.QUARANTINE else folders.archive_folder
    if source is None:
        end_with("folders.after = 'delete': there is no archive to take pictures from", EX_CONFIG)
    for folder in (source, folders.inbox):
        if not is_folder(folder):
            end_with(f"{folder}: no such folder", EX_FAILED)
    return source.resolve(), folders.inbox.resolve(), folders.folder_mode


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        end_with(f"{option} {text}: is no time; give such as 90s, 15m, 12h, 2d or 1w", EX_CONFIG)
    return float(match[1]) * _SECONDS[match[2]]
