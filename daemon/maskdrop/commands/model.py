"""``maskdrop model``: look at a network, try it, convert it, put it where the daemon keeps it."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskdrop.commands.exits import EX_CONFIG, EX_FAILED, end_with
from maskdrop.config import ModelSettings
from maskdrop.config_file import ConfigurationError, load_model_settings
from maskdrop.lasting import lasting_imports
from maskdrop.model.errors import WeightsError, first_line

if TYPE_CHECKING:
    from maskdrop.model.load import Loaded

model_app = typer.Typer(
    help="Look at a network, try it, convert it, install it.", no_args_is_help=True, add_completion=False
)

File = Annotated[
    Path | None, typer.Argument(help="The network's file. Default: as configured, else embedded.")
]
Config = Annotated[Path | None, typer.Option(help="TOML file; its model table is used.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; of several the first.")]


@model_app.command()
def show(file: File = None, config: Config = None) -> None:
    """Parameters, size, precision, classes, source, licence and SHA-256 of a network."""
    with _refusals():
        with lasting_imports():
            from maskdrop.model.embedded import embedded_weights
            from maskdrop.model.load import load_network

        settings = _settings(file, config)
        _print(_facts(load_network(settings.weights or embedded_weights()), settings))


@model_app.command()
def check(file: File = None, config: Config = None, device: Device = "cpu") -> None:
    """Run a known picture through a network and compare. Exits 1 if the network is of no use here."""
    with _refusals():
        with lasting_imports():
            from maskdrop.model.check import check_model

        settings = _settings(file, config, device)
        verdict = check_model(settings, _first_device(settings), _cores())
    likeness = "not compared: its classes are others"
    if verdict.likeness is not None:
        likeness = f"{verdict.likeness:.1%} of the labels are the embedded weights' in fp32"
    _print(
        {
            "file": f"{verdict.info.weights}, sha256 {verdict.info.sha256}",
            "runs on": f"{verdict.info.device}, {verdict.info.precision}",
            "precision": f"{verdict.agreement:.2%} of the labels are the same in fp32",
            "known picture": likeness,
            "finds": ", ".join(f"{name} {share:.1%}" for name, share in verdict.shares.items()),
        }
    )
    if verdict.problem:
        end_with(verdict.problem, EX_FAILED)
    sys.stdout.write("fit for use\n")


@model_app.command()
def export(
    target: Annotated[Path, typer.Argument(help="File to write: NAME.onnx, NAME.pt2 or NAME.safetensors.")],
    file: Annotated[
        Path | None, typer.Option("--weights", help="BiSeNet weights. Default: as configured, else embedded.")
    ] = None,
    config: Config = None,
) -> None:
    """Write a network as ONNX, as a torch.export program or as safetensors."""
    with _refusals():
        with lasting_imports():
            from maskdrop.model.embedded import embedded_weights
            from maskdrop.model.export import export_network
            from maskdrop.model.load import load_network

        settings = _settings(file, config)
        export_network(load_network(settings.weights or embedded_weights()), settings.input_size, target)
    sys.stdout.write(f"{target}: {target.stat().st_size / 1e6:.1f} MB\n")


@model_app.command()
def install(
    file: Annotated[Path, typer.Argument(help="The network's file.")],
    state: Annotated[
        Path | None, typer.Option(help="State folder. Default: the service's, or the user's.")
    ] = None,
    config: Config = None,
    device: Device = "cpu",
) -> None:
    """Check a network, then copy it into the state folder and say what to configure."""
    if os.geteuid() == 0:
        os.umask(0o022)  # the service's user has to read the file
    with _refusals():
        with lasting_imports():
            from maskdrop.model.check import check_model
            from maskdrop.model.install import default_state_folder, install_file

        settings = _settings(file, config, device)
        verdict = check_model(settings, _first_device(settings), _cores())
        if verdict.problem:
            end_with(f"{file}: not installed: {verdict.problem}", EX_FAILED)
        target = install_file(file, verdict.info.sha256, state or default_state_folder())
    sys.stdout.write(f'installed; in the configuration file, below [model]:\nweights = "{target}"\n')


@contextmanager
def _refusals() -> Iterator[None]:
    """A network or configuration that can't be used ends the command with one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries' advice to programmers
            yield
    except ConfigurationError as error:
        end_with(str(error), EX_CONFIG)
    except WeightsError as error:
        end_with(str(error), EX_FAILED)
    except Exception as error:
        from maskdrop.model.faults import is_devices_fault

        if not is_devices_fault(error):
            raise
        told = f"the device failed: {first_line(error)}"
        end_with(f"{told}; is there room on it? try another --device", EX_FAILED)


def _settings(file: Path | None, config: Path | None, device: str | None = None) -> ModelSettings:
    given = {"weights": file, "device": device}
    return load_model_settings(config, {key: value for key, value in given.items() if value is not None})


def _first_device(settings: ModelSettings) -> str:
    from maskdrop.devices import find_devices

    return find_devices(settings.device)[0]


def _facts(loaded: "Loaded", settings: ModelSettings) -> dict[str, str]:
    from maskdrop.model.load import Form
    from maskdrop.model.precision import choose_precision

    count = sum(tensor.numel() for tensor in loaded.network.parameters())
    width = f", width {loaded.card.width:g}" if loaded.form is Form.BISENET else ""
    side = loaded.shape.side or settings.input_size
    return {
        "file": str(loaded.path),
        "form": f"{loaded.form}{width}",
        "parameters": f"{count:,}" if count else "not told by ONNX Runtime",
        "size": f"{loaded.size / 1e6:.2f} MB",
        "precision": f"stored as {loaded.stored}; auto is {choose_precision('cpu')} on this CPU",
        "input": f"{side} x {side}, RGB, mean {settings.mean}, deviation {settings.deviation}",
        "classes": ", ".join(loaded.card.classes or settings.classes),
        "source": loaded.card.source or "not told",
        "licence": loaded.card.licence or "not told",
        "sha256": loaded.sha256,
    }


def _print(facts: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    Console(highlight=False).print(table)


def _cores() -> int:
    from maskdrop.machine.cores import usable_cores

    return usable_cores()
