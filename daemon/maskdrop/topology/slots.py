"""Shared memory in which pixels travel: made once, of fixed size, without a name to leak."""

import mmap
import os
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class Slots:
    """A fixed number of slots, each with room for one picture and its label map.

    The memory is an anonymous file (memfd_create(2)): it is no part of /dev/shm and goes
    when the last process that maps it goes, however that one ends. Passed to a spawned
    process, the object maps the same memory there.

    Attributes:
        pictures: uint8 (count, side, side, 3), RGB.
        labels: uint8 (count, side, side).
    """

    def __init__(self, count: int, side: int) -> None:
        """Reserve the memory.

        Raises:
            OSError: there is not enough memory for that many slots.
        """
        descriptor = os.memfd_create("maskdrop-slots", os.MFD_CLOEXEC)
        os.posix_fallocate(descriptor, 0, count * side * side * 4)
        self._map(descriptor, count, side)

    def _map(self, descriptor: int, count: int, side: int) -> None:
        self._descriptor, self.count, self.side = descriptor, count, side
        memory = mmap.mmap(descriptor, count * side * side * 4)
        every: Pixels = np.frombuffer(memory, dtype=np.uint8)
        pictures = count * side * side * 3
        self.pictures: Pixels = every[:pictures].reshape(count, side, side, 3)
        self.labels: Pixels = every[pictures:].reshape(count, side, side)

    def __getstate__(self) -> dict[str, Any]:
        return {"descriptor": DupFd(self._descriptor), "count": self.count, "side": self.side}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._map(state["descriptor"].detach(), state["count"], state["side"])
