"""Makes the embedded network as wide as the public checkpoint, and as costly; its labels stay the same.

    python bench/full_width.py FILE.safetensors

Each channel is repeated as many times as the network is narrower than the public one, and whatever reads it
gives each copy its share of the weight (Chen et al., Net2Net, arXiv 1511.05641, section 2.2, without noise).
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.embedded import embedded_weights
from maskdrop.model.load import load_network
from maskdrop.model.weights import Card, save_weights


def widened(network: BiSeNet) -> BiSeNet:
    """The network at width 1, which scores as it does but for rounding.

    Raises:
        ValueError: its channels can't be repeated a whole number of times.
    """
    wide = BiSeNet(network.classes)
    shapes = {name: tensor.shape for name, tensor in wide.state_dict().items()}
    tensors = {name: _repeated(tensor, shapes[name]) for name, tensor in network.state_dict().items()}
    wide.load_state_dict(tensors)
    return wide.eval()


def _repeated(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Repeat each output as the shape needs, and each input too, its weight divided among the copies."""
    for axis, wanted in enumerate(shape[:2]):
        copies, rest = divmod(wanted, tensor.shape[axis])
        if rest:
            raise ValueError(f"{tensor.shape[axis]} channels can't be repeated to {wanted}")
        tensor = tensor.repeat_interleave(copies, axis)
        if axis == 1:
            tensor = tensor / copies
    return tensor


def write(path: Path) -> None:
    """Write the widened embedded network, as weights that maskdrop reads."""
    loaded = load_network(embedded_weights())
    assert isinstance(loaded.network, BiSeNet)
    source = f"{loaded.card.source}, each channel repeated"
    save_weights(path, widened(loaded.network), Card(1.0, loaded.card.classes, source, loaded.card.licence))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    write(parser.parse_args().file)


if __name__ == "__main__":
    main()
