"""``maskdrop sheet``: the last results as a contact sheet and a page to look through."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from maskdrop.beneath import is_folder
from maskdrop.commands.exits import EX_CONFIG, EX_FAILED, end_with, say
from maskdrop.commands.progress import progress
from maskdrop.config import FolderSettings, SaveSettings
from maskdrop.config_file import ConfigurationError, load_decoding_tables, load_settings
from maskdrop.folders import followed


def sheet(
    outbox: Annotated[Path, typer.Argument(help="Folder of results.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the sheet. Default: sheet beside the outbox.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many of the newest pictures.")] = 100,
    originals: Annotated[
        Path | None,
        typer.Option(help="Where the originals are: the archive, or a batch's IN. Default: archive."),
    ] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Broken pictures with their reasons. Default: quarantine.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The daemon's TOML file: tells the folders and the results' names.")
    ] = None,
) -> None:
    """Show the last results beside their originals, and pictures in quarantine with their reasons.

    Writes index.html, which needs no server and nothing from elsewhere, the small pictures that it shows, and
    sheet.png, with all of them on one. Folders that aren't named are looked for beside the outbox.
    """
    from maskdrop.sheet.write import CONTACT, PAGE, Rooms, Sheet, is_ours_or_empty

    if not is_folder(outbox):
        end_with(f"{outbox}: no such folder", EX_FAILED)
    try:
        decoding = load_decoding_tables(config).decode
        folders, saving = _configured(config, outbox)
        target = followed("--output", (output or outbox.resolve().parent / "sheet").absolute())
    except ConfigurationError as error:
        end_with(str(error), EX_CONFIG)
    beside = outbox.resolve().parent
    archive = folders.archive_folder if folders else beside / "archive"
    lost = folders.quarantine_folder if folders else beside / "quarantine"
    rooms = Rooms(outbox.resolve(), _room(originals, archive), _room(quarantine, lost))
    for folder in (rooms.outbox, rooms.originals, rooms.quarantine):
        if folder is not None and target.is_relative_to(folder):
            end_with(f"--output {target}: lies inside {folder}; name a folder outside", EX_CONFIG)
    try:
        if not is_ours_or_empty(target):
            end_with(f"--output {target}: holds other things; name an empty folder or a new one", EX_CONFIG)
        with progress() as show:
            made = Sheet(target, rooms, decoding, saving).make(last, show)
    except OSError as error:
        end_with(f"{error.filename or target}: {error.strerror or error}", EX_FAILED)
    for unread in made.unread:
        say(f"{unread}; what is in it isn't shown")
    told = f"{made.saved} pictures, {made.broken} from quarantine"
    if made.without_original:
        told += f", {made.without_original} without their originals"
    sys.stderr.write(f"{told}\n")
    for name in (PAGE, CONTACT):
        sys.stdout.write(f"{target / name}\n")


def _configured(config: Path | None, outbox: Path) -> tuple[FolderSettings | None, SaveSettings]:
    if config is None:
        return None, SaveSettings()
    settings = load_settings(config, {"folders": {"outbox": outbox}})
    return settings.folders, settings.save


def _room(given: Path | None, usual: Path | None) -> Path | None:
    """A folder that was named and must be there, or the usual one if it is there."""
    if given is not None:
        if not is_folder(given):
            end_with(f"{given}: no such folder", EX_FAILED)
        return given.resolve()
    return usual.resolve() if usual is not None and is_folder(usual) else None
