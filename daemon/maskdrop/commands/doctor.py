"""``maskdrop doctor``: look at machine and folders, and say what to mend."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskdrop.commands.exits import EX_FAILED, EX_OK
from maskdrop.config_file import ConfigurationError, load_settings

if TYPE_CHECKING:
    from maskdrop.config import Settings
    from maskdrop.doctor.finding import Finding

_COLOUR = {"ok": "green", "warning": "yellow", "fail": "red"}


def doctor(
    config: Annotated[Path | None, typer.Option(help="The daemon's TOML file.")] = None,
    inbox: Annotated[Path | None, typer.Option(help="Folder that is watched.")] = None,
    outbox: Annotated[Path | None, typer.Option(help="Folder for results.")] = None,
    torch: Annotated[bool, typer.Option("--torch", help="Ask PyTorch too, which takes seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Look at limits, memory, GPU, systemd and folders, and say what to mend and how.

    Run it as the daemon's user. Exits 1 if anything fails that keeps the daemon from working.
    """
    from maskdrop.doctor.finding import Status

    findings = _examine(config, inbox, outbox, torch)
    if as_json:
        entries = [
            {"name": f.name, "status": f.status.value, "told": _plain(f.told), "remedy": _plain(f.remedy)}
            for f in findings
        ]
        sys.stdout.write(json.dumps(entries, indent=2) + "\n")
    else:
        _show(findings)
    raise typer.Exit(EX_FAILED if any(finding.status is Status.FAIL for finding in findings) else EX_OK)


def _examine(config: Path | None, inbox: Path | None, outbox: Path | None, torch: bool) -> "list[Finding]":
    from maskdrop.devices import likely_devices
    from maskdrop.doctor.finding import fail, ok, warning
    from maskdrop.doctor.machine import check_gpu, check_inotify, check_open_files, check_proc, check_systemd
    from maskdrop.doctor.memory import check_memory
    from maskdrop.doctor.named import check_metrics_port, check_weights_file
    from maskdrop.doctor.places import check_places
    from maskdrop.supervisor.plan import plan_for

    given = {"inbox": inbox, "outbox": outbox}
    settings: Settings | None = None
    if config is None and inbox is None and outbox is None:
        told, remedy = "none given: defaults are looked at, and no folders", "name it with --config"
        findings = [warning("configuration", told, remedy)]
    else:
        try:
            settings = load_settings(config, {"folders": given})
            findings = [ok("configuration", f"{config} can be used" if config else "as given")]
        except ConfigurationError as error:
            findings = [fail("configuration", error.problem, error.remedy)]
    if missing := check_proc():
        return findings + missing
    assumed = settings or load_settings(
        None, {"folders": {"inbox": Path("/inbox"), "outbox": Path("/outbox")}}
    )
    device = assumed.model.device
    plan = plan_for(assumed, likely_devices(device))
    findings += check_memory(assumed, plan)
    findings += [check_inotify(settings), check_open_files(plan), *check_gpu(device, torch), check_systemd()]
    if settings is not None:
        findings += [check_weights_file(settings), *check_metrics_port(settings), *check_places(settings)]
    return findings


def _plain(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _show(findings: "list[Finding]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        status = Text(finding.status.value, style=_COLOUR[finding.status.value])
        told = Text(_plain(finding.told) + (f"\n→ {_plain(finding.remedy)}" if finding.remedy else ""))
        table.add_row(status, Text(finding.name), told)
    Console(highlight=False).print(table)
