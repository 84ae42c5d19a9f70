"""Weights on disk: our safetensors, and the public face-parsing checkpoint."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from maskdrop import foreign_json
from maskdrop.model.bisenet import BiSeNet, scaled
from maskdrop.model.errors import WeightsError, first_line

AUXILIARY = ("conv_out16.", "conv_out32.")
"""Prefixes of the heads that only training uses; a file may leave them out."""

PREFIXES = ("module.", "model.", "net.")
"""Words that wrappers (DataParallel, and common trainers) put before every tensor's name."""

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training checkpoints keep the state dict."""

_CARD_KEY = "maskdrop"
_HEAD, _DEEP = "conv_out.conv_out.weight", "cp.resnet.layer4.0.conv1.weight"
_SHOWN_NAMES = 3


@dataclass(frozen=True)
class Card:
    """What a weights file says about itself, in the safetensors header."""

    width: float = 1.0
    classes: list[str] = field(default_factory=list)
    source: str = ""
    licence: str = ""


def save_weights(path: Path, network: nn.Module, card: Card) -> None:
    """Write fp16 safetensors without the auxiliary heads, with the card in the header.

    Raises:
        OSError: the file can't be written.
    """
    tensors = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith(AUXILIARY)
    }
    try:
        save_file(tensors, path, metadata={_CARD_KEY: json.dumps(asdict(card))})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def bisenet_of(content: bytes, path: Path) -> tuple[BiSeNet, Card, str]:
    """The BiSeNet whose weights a file holds, in fp32, in evaluation mode, on the CPU.

    Safetensors and PyTorch checkpoints are told apart by content. Only tensors are ever
    read from a checkpoint, never code.

    Args:
        content: the whole file.
        path: its name, for messages.

    Returns:
        The network, what the file says about itself, and the type its numbers are stored in.

    Raises:
        WeightsError: the file holds no weights, or weights of another network.
    """
    tensors, card = _read(content, path)
    tensors = _without_prefix(tensors)
    width = _width_of(tensors, path)
    network = BiSeNet(tensors[_HEAD].shape[0], width)
    _fill(network, tensors, path)
    return network.float().eval(), replace(card, width=width), stored_type(tensors.values())


def stored_type(tensors: Iterable[Tensor]) -> str:
    """The type that most numbers have, such as ``float16``."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return max(counts, key=lambda name: counts[name], default="unknown")


def _read(content: bytes, path: Path) -> tuple[dict[str, Tensor], Card]:
    try:
        tensors, header = load(content), _header_of(content)
    except (SafetensorError, ValueError, KeyError):
        return _read_checkpoint(content, path), Card(source="PyTorch checkpoint")
    try:
        card = Card(**foreign_json.loads((header.get("__metadata__") or {}).get(_CARD_KEY, "{}")))
        if not isinstance(card.classes, list) or not all(isinstance(name, str) for name in card.classes):
            raise TypeError("its classes are no list of names")
        return tensors, card
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"{path}: unreadable maskdrop header ({error}); export the weights again"
        ) from error


def _header_of(content: bytes) -> dict[str, Any]:
    """The JSON header of safetensors: its length as 8 bytes, little-endian, then the text."""
    length = int.from_bytes(content[:8], "little")
    return cast(dict[str, Any], foreign_json.loads(content[8 : 8 + length]))


def _read_checkpoint(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways on foreign bytes
        raise WeightsError(
            f"{path}: neither safetensors nor a checkpoint of plain tensors ({first_line(error)}); "
            "give a .safetensors file or a state dict saved with torch.save"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise WeightsError(
            f"{path}: holds no state dict of tensors; save it with torch.save(network.state_dict(), …)"
        )
    return cast(dict[str, Tensor], dict(found))


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the network's own names, without the word that a wrapper puts before each."""
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _width_of(tensors: Mapping[str, Tensor], path: Path) -> float:
    stem, head, deep = tensors.get("cp.resnet.conv1.weight"), tensors.get(_HEAD), tensors.get(_DEEP)
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
    # The network's memory follows from these two shapes, so a file may not claim them without the numbers.
    for name, tensor, kernel in ((_DEEP, deep, 3), (_HEAD, head, 1)):
        wanted = (tensor.shape[0], scaled(256, width), kernel, kernel)
        if tuple(tensor.shape) != wanted or not _is_all_there(tensor):
            raise WeightsError(
                f"{path}: {name} is {tuple(tensor.shape)}, or fewer numbers than that, not {wanted}; "
                "give the state dict of a face-parsing BiSeNet, such as 79999_iter.pth"
            )
    return float(width)


def _is_all_there(tensor: Tensor) -> bool:
    """Whether each element is stored: in a checkpoint, one number may stand for many."""
    stored = tensor.layout is torch.strided and tensor.untyped_storage().nbytes()
    return stored >= tensor.numel() * tensor.element_size()


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
