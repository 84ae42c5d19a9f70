"""``maskdrop service``: install maskdrop as a systemd service, remove it, show it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskdrop.commands.exits import EX_CONFIG, EX_FAILED, end_with, tell

if TYPE_CHECKING:
    from maskdrop.service.steps import Step

service_app = typer.Typer(
    help="Install as a systemd service, remove it, show it.", no_args_is_help=True, add_completion=False
)

Root = Annotated[Path, typer.Option(help="Work below this folder: a mounted disk, or an image being built.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@service_app.command()
def install(
    environment: Annotated[
        Path | None,
        typer.Option(
            help="Virtual environment that the service runs from, such as /opt/maskdrop; made if it is "
            "missing. Default: as last time, else the one that this command runs from."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="What pip installs there, even if maskdrop is there already: a wheel or a source folder. "
            "Default: where this maskdrop is from, and only if the one there is missing or older."
        ),
    ] = None,
    instance: Annotated[
        list[str] | None,
        typer.Option(help="Also /etc/maskdrop/NAME.toml and folders for maskdrop@NAME."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that somebody edited.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Enable and start the service, or the instances if named.")
    ] = False,
    root: Root = Path("/"),
    dry_run: DryRun = False,
) -> None:
    """Put units, configuration, user and folders in place. May be run again.

    A file that somebody edited is kept; what would have been installed is put beside it as NAME.dpkg-dist.
    """
    from maskdrop.service.install import Order, plan_install
    from maskdrop.service.layout import config_of, unit_of

    if environment is not None and not environment.is_absolute():
        end_with(f"--environment {environment}: give the full path it has on the system", EX_CONFIG)
    names = list(dict.fromkeys(instance or []))
    order = Order(root.resolve(), environment, source, names, force, now)
    with _refusals():
        changed = _carry_out(plan_install(order), order.root, dry_run)
    if changed and not dry_run and not now:
        wanted: list[str | None] = [*names] or [None]
        for name in wanted:
            tell(f"then: look at {config_of(name)}, and systemctl enable --now {unit_of(name)}")


@service_app.command()
def uninstall(root: Root = Path("/"), dry_run: DryRun = False) -> None:
    """Stop the service and remove what was installed, but never a picture or an edited file."""
    from maskdrop.service.uninstall import plan_uninstall

    with _refusals():
        _carry_out(plan_uninstall(root.resolve()), root.resolve(), dry_run)


@service_app.command()
def show(root: Root = Path("/")) -> None:
    """What is installed, where, what was edited, and the units' state. Exits 1 if nothing is installed."""
    from maskdrop.service.show import look

    with _refusals():
        shown = look(root.resolve())
    width = max(len(name) for name, _ in shown.rows)
    for name, value in shown.rows:
        tell(f"{name:<{width}}  {value}")
    raise typer.Exit(0 if shown.installed else EX_FAILED)


def _carry_out(steps: "list[Step]", root: Path, dry_run: bool) -> bool:
    """Do the steps, or with ``dry_run`` list them. Returns whether there was anything to do."""
    from maskdrop.service.steps import KeepFile, do_step

    os.umask(0o022)  # whatever root's is: the service's user has to read root's files
    for step in steps:
        tell(f"{'would ' if dry_run else ''}{step}")
        if not dry_run:
            do_step(step, root)
    changed = not all(isinstance(step, KeepFile) for step in steps)
    if not changed:
        tell("nothing to do")
    return changed


@contextmanager
def _refusals() -> Iterator[None]:
    """What can't be done ends the command with one line."""
    from maskdrop.service.install import CannotInstall
    from maskdrop.service.record import RecordUnreadable
    from maskdrop.service.steps import StepFailed

    try:
        yield
    except CannotInstall as error:
        end_with(str(error), EX_CONFIG)
    except (RecordUnreadable, StepFailed) as error:
        end_with(str(error), EX_FAILED)
    except PermissionError as error:  # planning looks into folders that only root and the service may enter
        end_with(f"{error.filename}: {error.strerror}; are you root?", EX_FAILED)
