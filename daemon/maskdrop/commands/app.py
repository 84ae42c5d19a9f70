"""The command line."""

import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from maskdrop import __version__
from maskdrop.commands.batch import batch
from maskdrop.commands.check import check
from maskdrop.commands.doctor import doctor
from maskdrop.commands.exits import EX_CONFIG, EX_FAILED, EX_OK, EX_TEMPFAIL, die_when_told, end_with
from maskdrop.commands.model import model_app
from maskdrop.commands.replay import replay
from maskdrop.commands.service import service_app
from maskdrop.commands.sheet import sheet
from maskdrop.config_file import ConfigurationError, load_settings
from maskdrop.health.file import ODD, HealthUnreadable, read_health
from maskdrop.lasting import lasting_imports, leave

app = typer.Typer(
    name="maskdrop",
    help="Drop a photograph into a folder, get the face cut out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"maskdrop {__version__}\n")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end."),
    ] = False,
) -> None:
    """Options that stand before any command."""


app.add_typer(model_app, name="model")
app.add_typer(service_app, name="service")


@app.command()
def run(
    config: Annotated[Path | None, typer.Option(help="TOML file; see etc/maskdrop.toml.")] = None,
    inbox: Annotated[
        Path | None, typer.Option(help="Folder to watch; must be set here or in the TOML file.")
    ] = None,
    outbox: Annotated[Path | None, typer.Option(help="Folder for results; must be set too.")] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Folder for broken pictures.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Folder for originals that are done.")] = None,
    health: Annotated[Path | None, typer.Option(help="Health file.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights in place of the embedded ones.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, text or json.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Log to this file too; it may be rotated.")] = None,
) -> None:
    """Run the daemon until SIGTERM or SIGINT; both let it finish what is in flight.

    SIGHUP makes it read its configuration again.

    Exits 0 once it is drained, 1 if it was cut short, 75 if another daemon has the inbox or there is no room
    for a folder, 78 if it can't run as configured.
    """
    from maskdrop.folders import NoRoom
    from maskdrop.inbox.lock import InboxHeld

    folders = {"inbox": inbox, "outbox": outbox, "quarantine": quarantine, "archive": archive}
    overrides: dict[str, dict[str, Any]] = {
        "folders": folders,
        "health": {"file": health},
        "model": {"weights": weights, "device": device},
        "log": {"level": log_level, "format": log_format, "file": log_file},
    }
    # Blocked in all threads from now on, until something is there that can read the configuration again.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    die_when_told(EX_OK)
    try:
        read = partial(load_settings, config, overrides)
        settings = read()
        with lasting_imports():
            from maskdrop.daemon import run_daemon  # imports torch, which takes seconds

        code = run_daemon(settings, read)
    except (InboxHeld, NoRoom) as error:
        end_with(str(error), EX_TEMPFAIL)
    except ConfigurationError as error:
        end_with(str(error), EX_CONFIG)
    leave(code)


@app.command()
def status(
    health: Annotated[Path, typer.Option(help="Health file of the daemon.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    alive: Annotated[
        bool,
        typer.Option("--alive", help="Exit 0 while it is there and not stuck, even if degraded."),
    ] = False,
    as_nagios: Annotated[
        bool,
        typer.Option(
            "--nagios", help="One line with performance data; exits 0, 1 warning, 2 critical, 3 unknown."
        ),
    ] = False,
    backlog_warning: Annotated[
        int | None, typer.Option(help="With --nagios: a backlog this large is a warning.")
    ] = None,
    backlog_critical: Annotated[
        int | None, typer.Option(help="With --nagios: a backlog this large is critical.")
    ] = None,
) -> None:
    """Show a daemon's health. Exits 0 only if it is running or draining and the file is fresh."""
    if as_nagios:
        from maskdrop.health.nagios import Limits, check

        level, line = check(health, Limits(backlog_warning, backlog_critical))
        sys.stdout.write(line + "\n")
        raise typer.Exit(level)
    from maskdrop.health.status import is_alive, is_well, show

    try:
        content = read_health(health)
    except HealthUnreadable as error:
        end_with(str(error), EX_FAILED)
    try:
        code = 0 if (is_alive if alive else is_well)(content) else 1
        if as_json:
            sys.stdout.write(json.dumps(content, indent=2) + "\n")
        else:
            show(content)
    except ODD:
        end_with(f"{health}: not a health file of this version of maskdrop", EX_FAILED)
    raise typer.Exit(code)


@app.command()
def top(
    health: Annotated[Path, typer.Option(help="Health file of the daemon.")],
    once: Annotated[bool, typer.Option("--once", help="Print one screen, and end.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Write one screen as SVG into this file, and end.")] = None,
) -> None:
    """Watch a daemon live: state, rate, backlog, stages, workers, the latest pictures. q or Ctrl-C ends it.

    It reads the health file and nothing else, so it may run on any machine and as any user that can read it.
    """
    from maskdrop.health.top import print_once, watch, write_svg

    if svg is not None:
        try:
            raise typer.Exit(0 if write_svg(health, svg) else EX_FAILED)
        except OSError as error:
            end_with(f"{svg}: {error.strerror}; name a file in a folder you may write", EX_FAILED)
    raise typer.Exit(0 if (print_once(health) if once else watch(health)) else EX_FAILED)


@app.command()
def version() -> None:
    """Print the version."""
    _print_version(wanted=True)


app.command()(batch)
app.command()(check)
app.command()(sheet)
app.command()(replay)
app.command()(doctor)
