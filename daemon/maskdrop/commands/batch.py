"""``maskdrop batch``: a whole folder of pictures once, by the daemon's own workers or on a cluster."""

import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from maskdrop.batch.ledger import Outcome
from maskdrop.beneath import is_folder
from maskdrop.cluster.hush import hushed
from maskdrop.cluster.schemes import SCHEME, check_scheme
from maskdrop.commands.exits import (
    EX_CONFIG,
    EX_FAILED,
    EX_TEMPFAIL,
    SIGNAL_EXIT,
    die_when_told,
    end_with,
    say,
)
from maskdrop.commands.progress import progress
from maskdrop.config_file import ConfigurationError
from maskdrop.lasting import lasting_imports, leave
from maskdrop.spool import SpoolFull

if TYPE_CHECKING:
    from maskdrop.batch.report import Batch
    from maskdrop.cluster.run import ClusterBatch

_FORMS = (".json", ".csv")
"""Endings of a report's name."""

_LINE_S = 60.0
"""Seconds between two lines that tell how far a cluster's batch is."""


@dataclass(frozen=True)
class _Places:
    """Places as given: folders, or with --engine ray other places."""

    source: str
    outbox: str
    quarantine: str | None

    @property
    def named(self) -> dict[str, str]:
        """The places that are given, by their names on the command line."""
        named = {"IN": self.source, "OUT": self.outbox}
        return named if self.quarantine is None else {**named, "--quarantine": self.quarantine}

    def check(self) -> None:
        """Check that none is a URL that would be taken for a folder.

        Raises:
            ConfigurationError: one is.
        """
        for name, place in self.named.items():
            check_scheme(name, place)


@dataclass(frozen=True)
class _Trouble:
    """What ended a batch early, and the exit code for it."""

    message: str
    code: int


def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="Folder of pictures, with its sub-folders; only read. With --engine ray also a file that "
            "lists pictures, a glob in quotes, or s3://BUCKET/PREFIX.",
        ),
    ],
    outbox: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="Folder for results; sub-folders are kept. Made if missing. With --engine ray also "
            "s3://BUCKET/PREFIX.",
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="TOML file of a daemon: how to decode, label and save.")
    ] = None,
    quarantine: Annotated[
        str | None,
        typer.Option(help="Folder (or s3://…) for copies of broken pictures, each with its reason."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="File for what became of each picture: .json or .csv.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Do also pictures that have their results in OUT.")
    ] = False,
    weights: Annotated[Path | None, typer.Option(help="Weights in place of the embedded ones.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="local: the daemon's workers here. ray: a cluster, with a manifest in OUT."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="With --engine ray: HOST:PORT of a cluster's head node, or auto. Without it and "
            "RAY_ADDRESS: this machine alone."
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="With --engine ray: URL of an S3 server that isn't AWS; else AWS_ENDPOINT_URL."),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Log each picture; with --engine ray, Ray's statistics."),
    ] = False,
) -> None:
    """Do every picture below IN once, and end. IN is never changed; pictures with results in OUT are skipped.

    Exits 0 if every picture has its results, 1 if some are broken or left, 129, 130 or 143 after a hang-up,
    Ctrl-C or SIGTERM: pictures in flight are finished then, and the same command goes on from there. 75 if
    another batch is at work on OUT, or there is no room in OUT, in quarantine or in the folder for temporary
    files; with --engine ray also if some are left or the cluster was in trouble: the same command may get
    further. 78 if it can't run as configured.
    """
    from maskdrop.folders import NoRoom

    die_when_told(SIGNAL_EXIT + signal.SIGTERM)
    _check_report(report, source)
    overrides: dict[str, dict[str, Any]] = {"model": {"weights": weights, "device": device}}
    places = _Places(source, outbox, quarantine)
    try:
        places.check()
        if engine == "ray":
            with hushed():
                there, trouble = _on_cluster(places, address, endpoint, config, overrides, again)
                code = _tell(there, report, verbose, EX_TEMPFAIL, trouble)
                if there.is_urgent:
                    there.abandon()
                    leave(code)
            if not there.end_signal:
                raise typer.Exit(code)  # an ordinary end, at which Ray cleans up
        else:
            _check_local(places, {"--address": address, "--endpoint": endpoint})
            code = _tell(_here(places, config, overrides, again, verbose), report, verbose, EX_FAILED)
    except NoRoom as error:
        end_with(str(error), EX_TEMPFAIL)
    except ConfigurationError as error:
        end_with(str(error), EX_CONFIG)
    leave(code)  # at an ordinary end, pyarrow would wait for a listing that is under way


def _here(
    places: _Places,
    config: Path | None,
    overrides: dict[str, dict[str, Any]],
    again: bool,
    verbose: bool,
) -> "Batch":
    with lasting_imports():
        from maskdrop.batch.run import Batch  # imports torch, which takes seconds
    from maskdrop.batch.settings import settings_for
    from maskdrop.inbox.lock import InboxHeld

    quarantine = None if places.quarantine is None else Path(places.quarantine)
    folders = (Path(places.source), Path(places.outbox), quarantine)
    settings = settings_for(config, *folders, overrides, verbose)
    try:
        with progress() as show:
            one = Batch(
                settings, skips_done=not again, progress=lambda: show(one.done, one.total, _found(one))
            )
            fits = one.run()
    except InboxHeld as error:
        end_with(str(error), EX_TEMPFAIL)
    except SpoolFull as error:
        end_with(f"{error.told}; the same command goes on with what has no results yet", EX_TEMPFAIL)
    if not fits:
        raise typer.Exit(EX_CONFIG)
    return one


def _on_cluster(
    places: _Places,
    address: str | None,
    endpoint: str | None,
    config: Path | None,
    overrides: dict[str, dict[str, Any]],
    again: bool,
) -> "tuple[ClusterBatch, _Trouble | None]":
    """The batch, and what ended it early, if anything did."""
    try:
        with lasting_imports():
            from maskdrop.cluster.order import Words, order_of
            from maskdrop.cluster.run import BatchTrouble, ClusterBatch
            from maskdrop.cluster.stores import PlaceTrouble
    except ImportError as error:
        _no_ray(error)
    from maskdrop.inbox.lock import InboxHeld

    folders = (places.source, places.outbox, places.quarantine)
    words = Words(*folders, address, endpoint, config, overrides, again)
    trouble = None
    try:
        with progress(line_each=_LINE_S) as show:
            one = ClusterBatch(order_of(words), progress=lambda: show(one.done, one.total, _found(one)))
            try:
                one.run()
            except BatchTrouble as error:
                trouble = _Trouble(str(error), EX_TEMPFAIL)
            except ConfigurationError as error:  # found midway: what is done has to be reported too
                if not one.done:
                    raise
                trouble = _Trouble(str(error), EX_CONFIG)
    except (InboxHeld, PlaceTrouble) as error:
        end_with(str(error), EX_TEMPFAIL)
    return one, trouble


def _no_ray(error: ImportError) -> NoReturn:
    if (error.name or "").partition(".")[0] not in ("ray", "pyarrow", "pandas"):
        raise error
    end_with(f"--engine ray needs what isn't installed ({error}); pip install 'maskdrop[ray]'", EX_CONFIG)


def _check_local(places: _Places, options: dict[str, str | None]) -> None:
    for name, place in places.named.items():
        if place.startswith(SCHEME):
            end_with(f"{name} {place}: object storage needs --engine ray", EX_CONFIG)
    for name, value in options.items():
        if value is not None:
            end_with(f"{name} {value}: goes with --engine ray; add it, or leave {name} out", EX_CONFIG)


def _tell(
    one: "Batch", report: Path | None, verbose: bool, some_left: int, trouble: _Trouble | None = None
) -> int:
    """Write the summary and the report, however the batch ended.

    Args:
        some_left: the exit code if some pictures, or folders, were left.
        trouble: what ended the batch early; None: nothing.

    Returns:
        The exit code.
    """
    from maskdrop.batch.report import summary, write_report

    with contextlib.suppress(OSError):  # the terminal may be gone
        told = [*(one.statistics if verbose else ()), *summary(one)]
        sys.stderr.write("\n".join(told) + "\n")
        if trouble is not None:
            say(trouble.message)
    code = _code_of(one, some_left, trouble)
    if report is not None:
        try:
            write_report(one, report)
        except OSError as error:
            code = max(code, EX_FAILED)  # codes that say that some is left to do are higher, and stay
            with contextlib.suppress(OSError):
                say(f"--report {report}: {error.strerror}; exit code {code}")
    return code


def _code_of(one: "Batch", some_left: int, trouble: _Trouble | None) -> int:
    if one.end_signal:
        return SIGNAL_EXIT + one.end_signal
    if trouble is not None:
        return trouble.code
    if one.is_complete:
        return 0
    is_left = one.ledger.counts[Outcome.LEFT] or (one.passed is not None and one.passed.unread)
    return some_left if is_left else EX_FAILED


def _check_report(report: Path | None, source: str) -> None:
    """Check the report's place before anything is done."""
    if report is None:
        return
    if report.suffix not in _FORMS:
        end_with(f"--report {report}: which form? give a name that ends in .json or .csv", EX_CONFIG)
    if not is_folder(report.parent) or is_folder(report) or not os.access(report.parent, os.X_OK):
        end_with(f"--report {report}: name a file in a folder that is there, and may be entered", EX_CONFIG)
    folder = Path(source)
    if is_folder(folder) and report.parent.resolve().is_relative_to(folder.resolve()):
        end_with(
            f"--report {report}: lies inside {source}, which is only read; name another place", EX_CONFIG
        )


def _found(one: "Batch") -> str:
    """How many pictures came to which end, in a few words."""
    counts = one.ledger.counts
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome])
