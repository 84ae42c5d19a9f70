"""Want of memory on a device: how the libraries tell it, and how to begin anew."""

import gc

import torch

_TOLD = ("can't allocate memory", "bad_alloc", "could not create a ")
"""What stands in the RuntimeErrors that PyTorch (``c10/core/impl/alloc_cpu.cpp``) and oneDNN
raise where a CPU's memory ends; a GPU's raises ``torch.OutOfMemoryError``."""


def is_want_of_memory(error: Exception) -> bool:
    """Whether a smaller batch might have gone through."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TOLD)


def free_memory() -> None:
    """Give back what failed batches and PyTorch's caches hold."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
