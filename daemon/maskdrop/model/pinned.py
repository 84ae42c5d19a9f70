"""Memory that a GPU reads and writes by itself, while the process goes on."""

import contextlib
import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

logger = logging.getLogger("maskdrop")


def pinned(shape: tuple[int, ...], device: torch.device) -> NDArray[np.uint8]:
    """New memory of that kind, uint8; for a CPU memory as any other.

    Raises:
        RuntimeError: there is none.
    """
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda").numpy()


def pin(memory: NDArray[np.uint8], device: torch.device) -> None:
    """Hold memory in its place, so that copies between it and a device need nobody who waits for them
    (cudaHostRegister of the CUDA Runtime API). Where that can't be had, copies are made all the same, and
    take longer. To a CPU all memory is alike.

    Args:
        memory: uint8, contiguous; it has to stay as long as the process does.
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
        with contextlib.suppress(RuntimeError):  # whoever starts something next would be told of it once more
            torch.ones(1, device=device).add_(1)
