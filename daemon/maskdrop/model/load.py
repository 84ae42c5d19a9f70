"""From a file to a network. ONNX is known by its ending, other kinds by content; no file is run as code."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from torch import nn

from maskdrop.model.errors import WeightsError
from maskdrop.model.program import is_program, load_program
from maskdrop.model.shape import InputShape
from maskdrop.model.weights import Card, bisenet_of, stored_type


class Form(StrEnum):
    """Kinds of file that a network comes in."""

    BISENET = "BiSeNet weights"
    PROGRAM = "torch.export program"
    ONNX = "ONNX"


@dataclass(frozen=True)
class Loaded:
    """A network ready to run, and what is known of its file.

    Attributes:
        size: of the file, in bytes.
        stored: the type that the file keeps most numbers in.
    """

    network: nn.Module
    form: Form
    path: Path
    sha256: str
    size: int
    stored: str
    card: Card
    shape: InputShape


def load_network(
    path: Path, device: str = "cpu", threads: int = 1, tensorrt: bool = False, exact: bool = False
) -> Loaded:
    """Read a network: safetensors, a PyTorch checkpoint, a torch.export program, or ONNX.

    The file is read once, so that what was checked is what is loaded. A BiSeNet is on the CPU
    and in fp32; a program or an ONNX network is on the device.

    Args:
        tensorrt, exact: for an ONNX network; see `maskdrop.model.onnx_network.load_onnx`.

    Raises:
        WeightsError: the file can't be read, holds no network, or one that can't be run here.
        Exception: the GPU fails, or runs out of memory.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; name a readable weights file") from error
    digest, card = hashlib.sha256(content).hexdigest(), Card()
    network: nn.Module
    stored = "unknown"
    if path.suffix.lower() == ".onnx":
        from maskdrop.model.onnx_network import load_onnx

        form = Form.ONNX
        network, shape = load_onnx(content, path, device, threads, tensorrt, exact)
    elif is_program(content):
        form = Form.PROGRAM
        network, shape = load_program(content, path, device)
        stored = stored_type(network.parameters())
    else:
        form, shape = Form.BISENET, InputShape()
        network, card, stored = bisenet_of(content, path)
    return Loaded(network, form, path, digest, len(content), stored, card, shape)
