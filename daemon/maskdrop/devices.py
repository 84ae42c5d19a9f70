"""The devices that a network can run on, found without touching them."""

import subprocess
import sys
from pathlib import Path

from maskdrop.config_file import fault

GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Device files, one of which exists wherever a driver is loaded: NVIDIA's, AMD's, Windows' for WSL."""

_PROBE = "import torch; torch.cuda.init(); print(torch._C._cuda_getDeviceCount())"
"""Not ``torch.cuda.device_count``: it may ask the driver's management library, NVML, which also counts cards
that CUDA can't use, and whole cards where they are divided (MIG)."""

PROBE_S = 120.0
"""Seconds that a driver has to say how many GPUs there are before it counts as hung."""

RELOAD_PROBE_S = 20.0
"""The same at a reload: the supervisor stands still meanwhile, which it may for half of WatchdogSec, so 30 s
(systemd/maskdrop.service)."""


def find_devices(wanted: str, patience_s: float = PROBE_S) -> tuple[str, ...]:
    """The devices to work on: ``auto`` is every GPU, or the CPU where there is none.

    Args:
        patience_s: seconds before a silent driver counts as hung.

    Raises:
        ConfigurationError: a GPU is asked for that is not there, or the driver is hung.
    """
    if wanted == "cpu":
        return ("cpu",)
    try:
        count = count_gpus(patience_s)
    except TimeoutError as error:
        raise fault("model.device", wanted, str(error), "mend it (reboot), or set it to cpu") from error
    if wanted == "auto":
        return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)
    if count == 0:
        raise fault(
            "model.device", wanted, "no GPU is usable here", "set it to auto or cpu, or mend the driver"
        )
    if wanted == "cuda":
        return tuple(f"cuda:{index}" for index in range(count))
    if int(wanted.partition(":")[2]) >= count:
        raise fault("model.device", wanted, f"there are {count} GPUs, counted from 0", "name one of them")
    return (wanted,)


def likely_devices(wanted: str) -> tuple[str, ...]:
    """What `find_devices` will probably say, going by NVIDIA's device files, one for each GPU. No driver is
    asked."""
    if wanted == "cpu" or wanted.startswith("cuda:"):
        return (wanted,)
    count = len(list(Path("/dev").glob("nvidia[0-9]*")))
    least = 1 if wanted == "cuda" else 0
    return tuple(f"cuda:{index}" for index in range(max(count, least))) or ("cpu",)


def count_gpus(patience_s: float = PROBE_S) -> int:
    """How many GPUs are usable, counted by a separate process: only inference workers touch CUDA.

    Args:
        patience_s: seconds before a silent driver counts as hung.

    Raises:
        TimeoutError: the driver doesn't answer.
    """
    if not any(Path(node).exists() for node in GPU_NODES):
        return 0
    command, nowhere = [sys.executable, "-c", _PROBE], subprocess.DEVNULL
    probe = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=nowhere, text=True)
    try:
        told, _ = probe.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired as error:
        probe.kill()  # and not waited for: a process stuck in a driver may not even die
        raise TimeoutError(f"the GPU driver has not answered for {patience_s:g} s") from error
    return int(told) if probe.returncode == 0 else 0
