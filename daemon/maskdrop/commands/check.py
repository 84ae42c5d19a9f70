"""``maskdrop check``: find broken pictures below a folder, and move or delete them if that is wanted."""

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskdrop.beneath import is_folder
from maskdrop.commands.exits import (
    EX_CONFIG,
    EX_FAILED,
    EX_TEMPFAIL,
    SIGNAL_EXIT,
    end_with,
    say,
    stop_telling,
)
from maskdrop.commands.progress import Show, progress
from maskdrop.config_file import ConfigurationError, load_decoding_tables
from maskdrop.folders import followed
from maskdrop.names import NAME_MAX
from maskdrop.spool import SpoolFull

if TYPE_CHECKING:
    from maskdrop.check.findings import Findings, Tally
    from maskdrop.check.run import Check


def check(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures; its sub-folders are checked too.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML file; its decode and workers tables are used.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Glob of names or paths to check, such as '*.jpg'.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Default: one for each core.")
    ] = None,
    form: Annotated[
        Literal["table", "json", "csv"],
        typer.Option("--format", help="Form of the report: table, json or csv."),
    ] = "table",
    output: Annotated[
        Path | None, typer.Option(help="File for the report. Default: standard output.")
    ] = None,
    move: Annotated[Path | None, typer.Option(help="Folder to move what is broken to.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is broken.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before moving or deleting.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Move and delete nothing.")] = False,
) -> None:
    """Decode every picture below a folder in full, and report those that are broken.

    Exits 0 if all are whole, 1 if any is broken or could not be read, 130 or 143 after Ctrl-C or SIGTERM,
    75 if something was to be moved or deleted and a daemon has the folder as its inbox, or if the folder for
    temporary files is full, 78 if it can't be done as asked.
    """
    from maskdrop.check.pool import PoolUnfit
    from maskdrop.check.run import Check
    from maskdrop.inbox.lock import InboxHeld
    from maskdrop.machine.cores import usable_cores

    try:
        tables = load_decoding_tables(config)
    except ConfigurationError as error:
        end_with(str(error), EX_CONFIG)
    source, target = _folder(folder), _target(folder, move, delete, dry_run)
    _check_output(output)
    acts = (move is not None or delete) and not dry_run
    try:
        with progress() as show:
            one = Check(source, tables, tuple(only or ()), partial(_show, show), _reports(output))
            with one.interrupt.heeded():
                if acts:
                    one.make_ready()
                one.count()
                one.decode_all(processes or usable_cores())
    except InboxHeld as error:
        end_with(str(error), EX_TEMPFAIL)
    except SpoolFull as error:
        end_with(error.told, EX_TEMPFAIL)
    except (OSError, PoolUnfit) as error:
        end_with(f"{folder}: {error}", EX_FAILED)
    code, trouble = _put_away(one, folder, target) if acts and _agreed(one, target, yes) else (0, "")
    failed = _report(one, form, output)
    if trouble:
        end_with(trouble, code)
    if one.interrupt.came():
        raise typer.Exit(SIGNAL_EXIT + one.interrupt.number)
    raise typer.Exit(EX_FAILED if one.findings.broken or one.findings.unread else failed)


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        end_with(f"{folder}: no such folder", EX_FAILED)
    return folder.resolve()


def _target(folder: Path, move: Path | None, delete: bool, dry_run: bool) -> Path | None:
    """The folder to move to, checked before anything is decoded, and made if it is missing."""
    if move is None:
        return None
    if delete:
        end_with("--move and --delete: give one of them", EX_CONFIG)
    try:
        target = followed("--move", move.absolute())
        _refuse_unfit(move, target, folder)
        if not dry_run:
            move.mkdir(parents=True, exist_ok=True)
    except ConfigurationError as error:
        end_with(str(error), EX_CONFIG)
    except OSError as error:
        end_with(f"--move {move}: {error.strerror}; name a folder you may write", EX_CONFIG)
    return target


def _refuse_unfit(move: Path, target: Path, folder: Path) -> None:
    """Found out before the target is made: a command that is refused leaves nothing behind."""
    source = folder.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target):
        end_with(f"--move {move}: lies inside {folder}, or around it; name a folder outside", EX_CONFIG)
    there = next(place for place in (target, *target.parents) if is_folder(place))
    if there.stat().st_dev != source.stat().st_dev:
        problem = f"is on another file system than {folder}, so a move would not be whole at any instant"
        end_with(f"--move {move}: {problem}; name a folder on the same one", EX_CONFIG)


def _check_output(output: Path | None) -> None:
    """Check the report's place before anything is done."""
    if output is None:
        return
    if not is_folder(output.parent) or is_folder(output) or len(os.fsencode(output.name)) > NAME_MAX:
        end_with(f"--output {output}: name a file in a folder that is there", EX_CONFIG)
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        end_with(f"--output {output}: may not be written; name another file", EX_CONFIG)


def _reports(output: Path | None) -> list[os.stat_result]:
    """The files that this check writes, if they are there: they may lie in the folder that it checks."""
    standard = [os.fstat(1), os.fstat(2)]
    return standard if output is None or not output.exists() else [*standard, output.stat()]


def _put_away(one: "Check", folder: Path, target: Path | None) -> tuple[int, str]:
    """Move or delete broken files. Returns 0, or the exit code if that ended early, and the message."""
    from maskdrop.inbox.lock import InboxHeld

    try:
        with one.interrupt.heeded():
            one.put_away_all(target)
    except InboxHeld as error:
        return EX_TEMPFAIL, str(error)
    except SpoolFull as error:
        return EX_TEMPFAIL, f"{error.told}; some may be put away, which the report doesn't tell"
    except OSError as error:
        return EX_FAILED, f"{folder}: {error}"
    return 0, ""


def _agreed(one: "Check", target: Path | None, yes: bool) -> bool:
    """Whether broken files may be moved or deleted; asks unless ``yes``."""
    if not one.findings.broken or one.interrupt.came():
        return False
    if yes:
        return True
    what = "Delete" if target is None else f"Move to {target}"
    try:
        return typer.confirm(f"{what}: {one.findings.broken:,} broken files?", err=True)
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("\n")
        one.interrupt.number = signal.SIGINT if sys.stdin.isatty() else 0
        return False


def _show(show: Show, tally: "Tally", findings: "Findings") -> None:
    show(tally.checked, tally.total, f"{findings.broken} broken")


def _report(one: "Check", form: str, output: Path | None) -> int:
    """Write the report and the summary. Returns the exit code: not 0 if the report can't be written."""
    from maskdrop.check.report import WRITERS, summary_line

    code = 0
    try:
        if output is None:
            WRITERS[form](one.findings, one.tally, sys.stdout)
            sys.stdout.flush()
        else:
            with output.open("w", encoding="utf-8", newline="") as file:
                WRITERS[form](one.findings, one.tally, file)
    except BrokenPipeError:
        stop_telling()
    except OSError as error:
        code = EX_FAILED
        if output is None:
            stop_telling()  # or Python tries once more when it ends
        place = "standard output" if output is None else f"--output {output}"
        say(f"{place}: {error.strerror}; the report isn't whole")
    sys.stderr.write(summary_line(one.findings, one.tally) + "\n")
    return code
