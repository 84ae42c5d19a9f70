"""Slots in which pixels travel: shared memory, made once, of fixed size, without a name to leak.

Within one process, ordinary arrays can be slots too.
"""

import contextlib
import mmap
import os
from dataclasses import dataclass, field
from multiprocessing.reduction import DupFd
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def _nothing() -> Pixels:
    return np.empty((0, 0, 0), dtype=np.uint8)


class Slots(Protocol):
    """A number of slots, wherever their memory is.

    Each has room for one picture, views of its faces, and their label maps.

    Attributes:
        side: pixels of a picture, across and down.
        pictures: uint8 (count, side, side, 3), RGB.
        labels: uint8 (count, side, side).
        view_pictures: uint8 (count, views, side, side, 3), RGB.
        view_labels: uint8 (count, views, side, side).
    """

    @property
    def side(self) -> int: ...

    @property
    def pictures(self) -> Pixels: ...

    @property
    def labels(self) -> Pixels: ...

    @property
    def view_pictures(self) -> Pixels: ...

    @property
    def view_labels(self) -> Pixels: ...


@dataclass(frozen=True)
class OwnSlots:
    """Slots of one process, in ordinary arrays; those that aren't needed may be left out."""

    side: int
    pictures: Pixels = field(default_factory=_nothing)
    labels: Pixels = field(default_factory=_nothing)
    view_pictures: Pixels = field(default_factory=_nothing)
    view_labels: Pixels = field(default_factory=_nothing)

    @classmethod
    def for_one(cls, side: int, views: int = 0) -> Self:
        """One slot, with room for everything."""
        return cls(
            side,
            np.empty((1, side, side, 3), dtype=np.uint8),
            np.empty((1, side, side), dtype=np.uint8),
            np.empty((1, views, side, side, 3), dtype=np.uint8),
            np.empty((1, views, side, side), dtype=np.uint8),
        )


class SharedSlots:
    """Slots that processes share; `Slots` describes their arrays.

    The memory is an anonymous file (memfd_create(2)): it is not in /dev/shm, and is freed when the
    last process that maps it ends, however that happens. Passed to a spawned process, the object
    maps the same memory there.

    Attributes:
        memory: uint8, all of it in one dimension.
    """

    def __init__(self, count: int, side: int, views: int = 0) -> None:
        """Reserve the memory.

        Raises:
            OSError: there is not enough memory for that many slots.
        """
        with contextlib.ExitStack() as undo:
            descriptor = os.memfd_create("maskdrop-slots", os.MFD_CLOEXEC)
            undo.callback(os.close, descriptor)
            os.posix_fallocate(descriptor, 0, count * (1 + views) * side * side * 4)
            self._map(descriptor, count, side, views)
            undo.pop_all()

    def _map(self, descriptor: int, count: int, side: int, views: int) -> None:
        self._descriptor, self.count, self.side, self.views = descriptor, count, side, views
        pixels, every = side * side, 1 + views
        memory: Pixels = np.frombuffer(mmap.mmap(descriptor, count * every * pixels * 4), dtype=np.uint8)
        self.memory = memory
        pictures = memory[: count * every * pixels * 3].reshape(count, every, side, side, 3)
        labels = memory[count * every * pixels * 3 :].reshape(count, every, side, side)
        self.pictures, self.view_pictures = pictures[:, 0], pictures[:, 1:]
        self.labels, self.view_labels = labels[:, 0], labels[:, 1:]

    def close(self) -> None:
        """Let go of the memory in this process; it is freed when the last process that maps it lets go."""
        os.close(self._descriptor)
        empty: Pixels = np.empty((0,), dtype=np.uint8)
        self.memory = self.pictures = self.labels = self.view_pictures = self.view_labels = empty

    def __getstate__(self) -> dict[str, Any]:
        return {"descriptor": DupFd(self._descriptor), "shape": (self.count, self.side, self.views)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._map(state["descriptor"].detach(), *state["shape"])
