"""Weights that tests use: those they make themselves, and the product's own."""

from pathlib import Path

import pytest
import torch

from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.program import why_no_programs
from maskdrop.model.weights import Card, save_weights

EMBEDDED = Path(__file__).parent.parent / "daemon/maskdrop/weights/faces.safetensors"


def tiny_network(width: float = 0.125, classes: int = 19) -> BiSeNet:
    """A narrow network of random weights, the same at every call, whose labels vary over a picture."""
    torch.manual_seed(7)
    network = BiSeNet(classes, width)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    return network.eval()


def write_tiny_weights(path: Path) -> None:
    save_weights(path, tiny_network(), Card(width=0.125, source="random, for tests"))


def skip_without_programs() -> None:
    """Skip a test where PyTorch is too old for torch.export programs; ONNX is written from such ones here."""
    if (reason := why_no_programs()) is not None:
        pytest.skip(reason)
