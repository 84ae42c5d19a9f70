"""Memory that a GPU reads and writes by itself, while the process goes on."""

import contextlib
import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

logger = logging.getLogger("maskdrop")


def pinned(shape: tuple[int, ...], device: torch.device) -> NDArray[np.uint8]:
    """New pinned memory, uint8; ordinary memory for a CPU.

    Raises:
        RuntimeError: there is not enough.
    """
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda").numpy()


def pin(memory: NDArray[np.uint8], device: torch.device) -> None:
    """Pin memory, so that a GPU copies from and to it while the process goes on (cudaHostRegister of the CUDA
    Runtime API). Where that fails, a warning is logged, and copies take longer. For a CPU, nothing happens.

    Args:
        memory: uint8, contiguous; it must last as long as the process.
    """
    if device.type != "cuda":
        return
    with torch.cuda.device(device):
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        status = runtime.cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)
        if int(status) == 0:
            return
        reason = runtime.cudaGetErrorString(status)
        logger.warning("copies to %s take longer: the slots can't be pinned, %s", device, reason)
        with contextlib.suppress(RuntimeError):  # takes the error that the next kernel would raise again
            torch.ones(1, device=device).add_(1)
