"""``maskdrop batch``: a whole folder of pictures once, by the daemon's own workers."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskdrop.batch.ledger import Outcome
from maskdrop.config_file import ConfigurationError
from maskdrop.exits import EX_CONFIG, EX_FAILED, EX_TEMPFAIL, SIGNAL_EXIT, end_with
from maskdrop.progress import progress

if TYPE_CHECKING:
    from maskdrop.batch.run import Batch

_FORMS = (".json", ".csv")
"""Endings of a report's name."""


def batch(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Folder of pictures, with its sub-folders; only read.")
    ],
    outbox: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for results; sub-folders are kept. Made if missing.")
    ],
    config: Annotated[
        Path | None, typer.Option(help="TOML file of a daemon: how to decode, label and save.")
    ] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Folder for copies of broken pictures, each with its reason.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="What became of each picture: a name ending in .json or .csv.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Do pictures again that have their results in OUT.")
    ] = False,
    weights: Annotated[Path | None, typer.Option(help="Weights in place of the embedded ones.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log a line for each picture, as the daemon does.")
    ] = False,
) -> None:
    """Do every picture below IN once, and end. IN is never changed; what has its results in OUT is skipped.

    Exits 0 where every picture has its results, 1 where some are broken or left, 130 or 143 where Ctrl-C
    or SIGTERM came: what was in flight is finished then, and the same command goes on from there.
    """
    _check_report(report, source)
    from maskdrop.batch.report import summary, write_report
    from maskdrop.batch.run import Batch, settings_for  # imports torch, which takes seconds
    from maskdrop.inbox.lock import InboxHeld

    overrides = {"model": {"weights": weights, "device": device}}
    try:
        settings = settings_for(config, source, outbox, quarantine, overrides, verbose)
        with progress() as show:
            one = Batch(
                settings, skips_done=not again, progress=lambda: show(one.done, one.total, _found(one))
            )
            fits = one.run()
    except ConfigurationError as error:
        end_with(str(error), EX_CONFIG)
    except InboxHeld as error:
        end_with(str(error), EX_TEMPFAIL)
    if not fits:
        raise typer.Exit(EX_CONFIG)
    with contextlib.suppress(OSError):  # the terminal may be gone
        sys.stderr.write("\n".join(summary(one)) + "\n")
    if report is not None:
        try:
            write_report(one, report)
        except OSError as error:
            end_with(f"--report {report}: {error.strerror}", EX_FAILED)
    if one.end_signal:
        raise typer.Exit(SIGNAL_EXIT + one.end_signal)
    raise typer.Exit(0 if one.is_complete else EX_FAILED)


def _check_report(report: Path | None, source: Path) -> None:
    """Found out before anything is done."""
    if report is None:
        return
    if report.suffix not in _FORMS:
        end_with(f"--report {report}: which form? give a name that ends in .json or .csv", EX_CONFIG)
    if not report.parent.is_dir() or report.is_dir():
        end_with(f"--report {report}: name a file in a folder that is there", EX_CONFIG)
    if report.parent.resolve().is_relative_to(source.resolve()):
        end_with(
            f"--report {report}: lies inside {source}, which is only read; name another place", EX_CONFIG
        )


def _found(one: "Batch") -> str:
    """How many pictures came to which end, in a few words."""
    counts = one.ledger.counts
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])
