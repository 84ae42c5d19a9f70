"""How many workers, slots and threads: what is set to ``auto`` follows the machine."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from maskdrop.config import Settings
from maskdrop.config_file import fault

CPU_BATCH = 4
"""Pictures a batch on a CPU, or one for each thread where there are more: others gain nothing there,
and make each wait for the others."""

GPU_BATCH = 32
"""Pictures a batch on a GPU: about where throughput stops growing."""

_GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_PROBE = "import torch; print(torch.cuda.device_count())"


@dataclass(frozen=True)
class Plan:
    """Numbers for one run.

    Attributes:
        devices: one inference worker each.
        threads: threads of each inference worker; all other workers have one.
    """

    preprocess: int
    save: int
    devices: tuple[str, ...]
    threads: int
    max_batch: int
    slots: int


def make_plan(settings: Settings) -> Plan:
    """Fill in everything that is ``auto``.

    Raises:
        ConfigurationError: a device is named that is not there.
    """
    wanted, cores = settings.workers, usable_cores()
    devices = find_devices(settings.model.device)
    on_gpu = devices[0] != "cpu"
    # On a CPU the forward pass takes most of the time: one decoder and one saver feed several cores.
    share = max(1, (cores - len(devices)) // 2) if on_gpu else max(1, cores // 8)
    preprocess = share if wanted.preprocess == "auto" else wanted.preprocess
    save = share if wanted.save == "auto" else wanted.save
    threads = (1 if on_gpu else cores) if wanted.inference_threads == "auto" else wanted.inference_threads
    most = GPU_BATCH if on_gpu else max(CPU_BATCH, threads)
    batch = most if wanted.max_batch == "auto" else wanted.max_batch
    enough = 2 * batch * len(devices) + 2 * (preprocess + save)
    slots = enough if wanted.slots == "auto" else wanted.slots
    return Plan(preprocess, save, devices, threads, batch, slots)


def usable_cores() -> int:
    """Processors that this process may use: its affinity, and its control group's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def find_devices(wanted: str) -> tuple[str, ...]:
    """The devices to work on: ``auto`` is every GPU, or the CPU where there is none.

    Raises:
        ConfigurationError: a GPU is asked for that is not there.
    """
    if wanted == "cpu":
        return ("cpu",)
    count = count_gpus()
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


def count_gpus() -> int:
    """Usable GPUs. Asked of a process of its own: only inference workers touch CUDA."""
    if not any(Path(node).exists() for node in _GPU_NODES):
        return 0
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False)
    return int(probe.stdout) if probe.returncode == 0 else 0
