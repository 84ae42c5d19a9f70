"""Running the network: from 8-bit pixels to 8-bit labels, in batches, on one device."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.normalise import normalise
from maskdrop.model.weights import embedded_weights, load_network

Pixels = NDArray[np.uint8]

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""/proc/cpuinfo flags of processors with bf16 arithmetic: x86's AVX-512 and AMX, Arm's."""

_AMPERE = 8
"""First CUDA compute capability whose matrix units take bf16."""


@dataclass(frozen=True)
class ModelInfo:
    """What a parser runs, for log and health file."""

    weights: str
    sha256: str
    device: str
    precision: str


class FaceParser:
    """A network on a device, ready to label pictures."""

    def __init__(self, network: BiSeNet, info: ModelInfo, channels_last: bool) -> None:
        self.info = info
        self._device = torch.device(info.device)
        self._dtype = torch.bfloat16 if info.precision == "bf16" else torch.float32
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self._network = network.eval().to(self._device, self._dtype)
        self._network = self._network.to(memory_format=self._format)  # type: ignore[call-overload]

    @torch.inference_mode()
    def parse(self, pictures: Pixels) -> Pixels:
        """Label every pixel.

        Args:
            pictures: uint8 (batch, side, side, 3), RGB.

        Returns:
            uint8 (batch, side, side): the class of highest score. Only these bytes come
            back from the device.
        """
        pixels = torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2)
        batch = normalise(pixels).to(self._dtype).contiguous(memory_format=self._format)
        # max gives the same index as argmax, in a fraction of its time on a CPU.
        labels: Pixels = self._network(batch).max(dim=1).indices.to(torch.uint8).cpu().numpy()
        return labels


def load_parser(weights: Path | None, device: str, precision: str, channels_last: bool) -> FaceParser:
    """A parser from a weights file, or from the embedded weights where none is named.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32``, ``bf16``, or ``auto``: bf16 where the device does it well.

    Raises:
        WeightsError: the file can't be used.
    """
    loaded = load_network(weights or embedded_weights())
    chosen = choose_precision(device) if precision == "auto" else precision
    info = ModelInfo(loaded.path.name, loaded.sha256, device, chosen)
    return FaceParser(loaded.network, info, channels_last)


def choose_precision(device: str) -> str:
    """``bf16`` on devices with bf16 arithmetic of their own, else ``fp32``."""
    if device.startswith("cuda"):
        major, _ = torch.cuda.get_device_capability(torch.device(device))
        return "bf16" if major >= _AMPERE else "fp32"
    return "bf16" if _BF16_FLAGS & _processor_flags() else "fp32"


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    named = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return set(named[0].partition(":")[2].split()) if named else set()
