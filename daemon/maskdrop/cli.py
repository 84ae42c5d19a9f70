"""The command line."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from maskdrop import __version__
from maskdrop.check_cli import check
from maskdrop.config_file import ConfigurationError, load_settings
from maskdrop.doctor_cli import doctor
from maskdrop.exits import EX_CONFIG, EX_FAILED, EX_TEMPFAIL, end_with
from maskdrop.health import HealthUnreadable, read_health
from maskdrop.model_cli import model_app
from maskdrop.replay_cli import replay

app = typer.Typer(
    name="maskdrop",
    help="Drop a photograph into a folder, get the face cut out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


app.add_typer(model_app, name="model")


@app.command()
def run(
    config: Annotated[Path | None, typer.Option(help="TOML file; see etc/maskdrop.toml.")] = None,
    inbox: Annotated[Path | None, typer.Option(help="Folder that is watched.")] = None,
    outbox: Annotated[Path | None, typer.Option(help="Folder for results.")] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Folder for broken pictures.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Folder for originals that are done.")] = None,
    health: Annotated[Path | None, typer.Option(help="Health file.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights in place of the embedded ones.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Log there too; may be rotated.")] = None,
) -> None:
    """Run the daemon until SIGTERM or SIGINT; both let it finish what is in flight."""
    from maskdrop.inbox.lock import InboxHeld

    folders = {"inbox": inbox, "outbox": outbox, "quarantine": quarantine, "archive": archive}
    overrides: dict[str, dict[str, Any]] = {
        "folders": folders,
        "health": {"file": health},
        "model": {"weights": weights, "device": device},
        "log": {"format": log_format, "file": log_file},
    }
    try:
        settings = load_settings(config, overrides)
        from maskdrop.daemon import run_daemon  # imports torch, which takes seconds

        code = run_daemon(settings)
    except ConfigurationError as error:
        end_with(str(error), EX_CONFIG)
    except InboxHeld as error:
        end_with(str(error), EX_TEMPFAIL)
    raise typer.Exit(code)


@app.command()
def status(
    health: Annotated[Path, typer.Option(help="Health file of the daemon.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show a daemon's health. Exits 0 only where it is running or draining and the file is fresh."""
    from maskdrop.status import is_well, show

    try:
        content = read_health(health)
    except HealthUnreadable as error:
        end_with(str(error), EX_FAILED)
    if as_json:
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        show(content)
    raise typer.Exit(0 if is_well(content) else 1)


@app.command()
def version() -> None:
    """Print the version."""
    sys.stdout.write(f"maskdrop {__version__}\n")


app.command()(check)
app.command()(replay)
app.command()(doctor)
