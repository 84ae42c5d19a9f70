"""Which types of numbers a device computes well in."""

from pathlib import Path

import torch

from maskdrop.config import ModelSettings
from maskdrop.model.errors import WeightsError
from maskdrop.model.load import Form, Loaded
from maskdrop.model.quantised import can_quantise

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""/proc/cpuinfo flags of processors with bf16 arithmetic: x86's AVX-512 and AMX, Arm's."""

_AMPERE = 8
"""First CUDA compute capability whose matrix units take bf16."""


def choose_precision(device: str) -> str:
    """``bf16`` on devices with bf16 arithmetic of their own, else ``fp32``."""
    if device.startswith("cuda"):
        major, _ = torch.cuda.get_device_capability(torch.device(device))
        return "bf16" if major >= _AMPERE else "fp32"
    return "bf16" if _BF16_FLAGS & _processor_flags() else "fp32"


def keep_to_fp32() -> None:
    """Make convolutions on GPUs compute in fp32 in this process. From Ampere on, PyTorch's default is TF32,
    which rounds to 10 bits after the point (``torch.backends.cudnn.allow_tf32``)."""
    torch.backends.cudnn.allow_tf32 = False


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    named = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return set(named[0].partition(":")[2].split()) if named else set()


def is_usable(device: str) -> bool:
    """Whether PyTorch can compute on this device in this process."""
    return device == "cpu" or torch.cuda.is_available()


def precision_for(loaded: Loaded, settings: ModelSettings, device: str) -> str:
    """What a network is computed in: ``fp32``, ``bf16``, ``int8``, or ``fp16`` by TensorRT. ``auto`` chooses
    by device only for BiSeNets: exported networks may have their types written into them.

    Raises:
        WeightsError: the network can't be computed in the precision that is set.
    """
    if loaded.form is Form.ONNX and settings.precision == "bf16":
        problem = "an ONNX network computes as it was exported, not in model.precision = bf16"
        raise WeightsError(f"{loaded.path}: {problem}; set auto or fp32")
    if settings.precision == "int8" and (problem := _int8_obstacle(loaded, device)):
        raise WeightsError(f"{loaded.path}: model.precision = int8 {problem}; set auto")
    if settings.precision != "auto":
        return settings.precision
    if settings.tensorrt:
        return "fp16"
    return choose_precision(device) if loaded.form is Form.BISENET else "fp32"


def _int8_obstacle(loaded: Loaded, device: str) -> str:
    """Why a network can't be run in 8-bit integers here; empty if it can."""
    if loaded.form is not Form.BISENET:
        return f"is for BiSeNet weights, which this is not ({loaded.form})"
    if device != "cpu":
        return f"is computed on a CPU, and the device is {device}"
    if not can_quantise():
        return "needs a processor with VNNI or AMX, and a PyTorch that has operators for it"
    return ""
