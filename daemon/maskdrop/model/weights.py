"""Weights on disk: our safetensors, and the public face-parsing checkpoint."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from maskdrop.model.bisenet import BiSeNet, scaled

AUXILIARY = ("conv_out16.", "conv_out32.")
"""Prefixes of the heads that only training uses; a file may leave them out."""

_CARD_KEY = "maskdrop"
_SHOWN_NAMES = 3


class WeightsError(Exception):
    """The weights can't be used; the message says what differs and what to do."""


@dataclass(frozen=True)
class Card:
    """What a weights file says of itself, kept in the safetensors header."""

    width: float = 1.0
    classes: list[str] = field(default_factory=list)
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class Loaded:
    """A network ready to run, where it came from and the SHA-256 of its file."""

    network: BiSeNet
    path: Path
    sha256: str
    card: Card


def embedded_weights() -> Path:
    """Path of the weights that come with maskdrop."""
    return Path(str(files("maskdrop") / "weights" / "faces.safetensors"))


def save_weights(path: Path, network: nn.Module, card: Card) -> None:
    """Write fp16 safetensors without the auxiliary heads, the card in their header."""
    tensors = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith(AUXILIARY)
    }
    save_file(tensors, path, metadata={_CARD_KEY: json.dumps(asdict(card))})


def load_network(path: Path) -> Loaded:
    """Read weights and build the network they fit, in fp32, in evaluation mode, on the CPU.

    Safetensors and PyTorch checkpoints are told apart by content. Only tensors are ever
    read from a checkpoint, never code.

    Raises:
        WeightsError: no such file, not weights, or weights of another network.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; name a readable weights file") from error
    tensors, card = _read(path)
    width = _width_of(tensors, path)
    if card.width != width:
        card = Card(width, card.classes, card.source, card.licence)
    network = BiSeNet(tensors["conv_out.conv_out.weight"].shape[0], width)
    _fill(network, tensors, path)
    return Loaded(network.float().eval(), path, digest, card)


def _read(path: Path) -> tuple[dict[str, Tensor], Card]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, Card(**json.loads(metadata.get(_CARD_KEY, "{}")))
    except SafetensorError:
        return _read_checkpoint(path), Card(source="PyTorch checkpoint")
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: unreadable maskdrop header ({error}); export the weights again"
        ) from error


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways on foreign bytes
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path}: neither safetensors nor a checkpoint of plain tensors ({reason}); "
            "give a .safetensors file or a state dict saved with torch.save"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(
            f"{path}: holds no state dict of tensors; save it with torch.save(network.state_dict(), …)"
        )
    return cast(dict[str, Tensor], dict(content))


def _width_of(tensors: Mapping[str, Tensor], path: Path) -> float:
    stem = tensors.get("cp.resnet.conv1.weight")
    head = tensors.get("conv_out.conv_out.weight")
    deep = tensors.get("cp.resnet.layer4.0.conv1.weight")
    if stem is None or head is None or deep is None or any(t.ndim != 4 for t in (stem, head, deep)):
        found = ", ".join(list(tensors)[:_SHOWN_NAMES]) or "nothing"
        raise WeightsError(
            f"{path}: not BiSeNet face-parsing weights: no cp.resnet.conv1.weight (it begins with {found}); "
            "give a face-parsing BiSeNet such as 79999_iter.pth"
        )
    width = deep.shape[0] / 512
    if scaled(64, width) != stem.shape[0]:
        raise WeightsError(
            f"{path}: channel counts {stem.shape[0]} and {deep.shape[0]} are no one width multiplier's"
        )
    return float(width)


def _fill(network: BiSeNet, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = network.state_dict()
    optional = {name for name in wanted if name.startswith(AUXILIARY) or name.endswith("num_batches_tracked")}
    missing = sorted(set(wanted) - set(tensors) - optional)
    unknown = sorted(set(tensors) - set(wanted))
    misshapen = sorted(n for n in set(wanted) & set(tensors) if wanted[n].shape != tensors[n].shape)
    for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen)):
        if names:
            shown = ", ".join(names[:_SHOWN_NAMES]) + (", …" if len(names) > _SHOWN_NAMES else "")
            raise WeightsError(
                f"{path}: {len(names)} tensors {what} ({shown}); "
                "give the state dict of a face-parsing BiSeNet, such as 79999_iter.pth"
            )
    network.load_state_dict(dict(tensors), strict=False)
