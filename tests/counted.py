"""What counting tests count: PyTorch's operators and memory, numpy's memory, Pillow's pictures."""

import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LARGE_TENSOR = 64 * 2**10
"""Bytes: what lies between two layers of the embedded network is as large, numbers of positions aren't."""

LARGE_ARRAY = 256 * 2**10
"""Bytes of the labels of 512 x 512, the smallest array with a number for each pixel; Pillow's buffers are
smaller."""


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what PyTorch is asked to compute, by operator.

    Attributes:
        large: the tensors among the results that have memory of their own, from LARGE_TENSOR on.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.large: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.counts[name] += 1
        result = function(*args, **(kwargs or {}))
        given = {memory._cdata for memory in _memories((args, kwargs))}
        self.large[name] += sum(
            memory._cdata not in given and memory.nbytes() >= LARGE_TENSOR for memory in _memories(result)
        )
        return result


def _memories(tree: Any) -> Iterator[torch.UntypedStorage]:
    """Of the tensors in it; one that is laid out for oneDNN has none that can be seen."""
    for leaf in tree_leaves(tree):
        if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided:
            yield leaf.untyped_storage()


def pictures_made(act: Callable[[], object]) -> int:
    """How many pictures Pillow's core makes: each is memory of that size, written once."""
    core: Any = vars(Image)["core"]
    before = int(core.get_stats()["new_count"])
    act()
    return int(core.get_stats()["new_count"]) - before


def large_arrays(act: Callable[[], object]) -> list[int]:
    """KiB (to the next 16) of each block of LARGE_ARRAY or more that numpy and Python ask for in this
    thread, in order; PyTorch's memory and Pillow's is not theirs.

    Looked at whenever a function is called or returns, those written in C too: what one of these asks for is
    one block, however soon it is freed.
    """
    found: list[int] = []
    before = 0

    def look(frame: FrameType, event: str, argument: object) -> None:
        nonlocal before
        now, most = tracemalloc.get_traced_memory()
        if most - before >= LARGE_ARRAY:
            found.append(round((most - before) / 2**14) * 16)
        tracemalloc.reset_peak()
        before = now

    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    sys.setprofile(look)
    try:
        act()
    finally:
        sys.setprofile(None)
        tracemalloc.stop()
    return found
