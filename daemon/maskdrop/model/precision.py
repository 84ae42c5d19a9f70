"""Which numbers a device computes well with."""

from pathlib import Path

import torch

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
    """Have convolutions on GPUs compute in fp32 in this process. Left to itself PyTorch has them do so in
    TF32 from Ampere on, which rounds to 10 bits after the point (``torch.backends.cudnn.allow_tf32``)."""
    torch.backends.cudnn.allow_tf32 = False


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    named = [line for line in lines if line.lower().startswith(("flags", "features"))]
    return set(named[0].partition(":")[2].split()) if named else set()


def is_usable(device: str) -> bool:
    """Whether PyTorch can compute on such a device in this process."""
    return device == "cpu" or torch.cuda.is_available()
