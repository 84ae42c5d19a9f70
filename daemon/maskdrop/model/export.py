"""Writing a network for other programs: ONNX, a torch.export program, or our safetensors."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from maskdrop.model.errors import WeightsError, first_line
from maskdrop.model.load import Form, Loaded
from maskdrop.model.program import why_no_programs
from maskdrop.model.weights import save_weights

ENDINGS = (".onnx", ".pt2", ".safetensors")

_MOST = 512
"""Largest batch of an exported program: the largest that workers.max_batch may be."""


def export_network(loaded: Loaded, side: int, target: Path) -> None:
    """Write a network, whole or not at all, in the form that the target's ending names. Its batch size stays
    free.

    Raises:
        WeightsError: no form has this ending, the network is no BiSeNet, a package is missing, this PyTorch
            can't export it, or the target can't be written.
    """
    if not target.parent.is_dir() or target.is_dir():
        raise WeightsError(f"{target}: name a file in a folder that is there")
    if loaded.form is not Form.BISENET:
        problem = f"is a network from a file of another kind ({loaded.form}), exported already"
        raise WeightsError(f"{loaded.path}: {problem}; give BiSeNet weights")
    write = _writer(loaded, side, target)
    unfinished = target.with_name(f".{target.stem}.tmp{target.suffix}")
    try:
        write(unfinished)
        unfinished.replace(target)
    except (OSError, RuntimeError) as error:
        problem = f"can't be written ({first_line(error)})"
        raise WeightsError(f"{target}: {problem}; make room, or name another place") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _writer(loaded: Loaded, side: int, target: Path) -> Callable[[Path], None]:
    """A function that writes the network, in the form that the target's ending names, to a path."""
    match target.suffix.lower():
        case ".onnx":
            return _onnx_writer(loaded.network, side, target)
        case ".pt2":
            if (reason := why_no_programs()) is not None:
                raise WeightsError(f"{target}: {reason}; install it, or choose .safetensors")
            content = io.BytesIO()  # on a full disk, PyTorch's writer of files ends the process
            torch.export.save(_exported(loaded.network, side), content)
            return partial(_write, content=content.getvalue())
        case ".safetensors":
            return partial(save_weights, network=loaded.network, card=loaded.card)
        case _:
            raise WeightsError(f"{target}: no form ends in {target.suffix!r}; choose {', '.join(ENDINGS)}")


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _exported(network: nn.Module, side: int) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=_MOST)
    sample = (torch.zeros(2, 3, side, side),)
    with torch.no_grad():
        return torch.export.export(network, sample, dynamic_shapes=({0: batch},))


def _onnx_writer(network: nn.Module, side: int, target: Path) -> Callable[[Path], None]:
    try:
        import onnxscript  # noqa: F401 - torch.onnx needs it, and says so only deep inside
    except ImportError as error:
        problem = "writing ONNX needs onnxscript, which is not installed"
        raise WeightsError(f"{target}: {problem}; pip install 'maskdrop[onnx]'") from error
    try:
        program = torch.onnx.export(
            _exported(network, side),
            dynamo=True,
            input_names=["picture"],
            output_names=["scores"],
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        why = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        problem = f"PyTorch {torch.__version__} can't write it as ONNX ({why})"
        raise WeightsError(f"{target}: {problem}; install a newer one") from error
    assert program is not None
    return program.save
