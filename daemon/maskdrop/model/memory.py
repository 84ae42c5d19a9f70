"""Want of memory on a device: how libraries report it, and how to free what they hold."""

import gc

import torch

_TOLD_OF_CPUS = ("can't allocate memory", "bad_alloc", "could not create a ")
"""Texts in the RuntimeErrors that PyTorch (``c10/core/impl/alloc_cpu.cpp``) and oneDNN raise
when main memory runs out."""

_TOLD_BY_ONNX_RUNTIME = ("Failed to allocate memory for requested buffer", "failure 2: out of memory")
"""Texts in ONNX Runtime's errors (``core/framework/bfc_arena.cc``, ``core/providers/cuda/cuda_call.cc``)."""

_TOLD_OF_GPUS = (
    "error: out of memory",
    "_STATUS_ALLOC_FAILED",
    "_ALLOCATION_FAILED",
    "was unable to find an engine to execute this computation",
)
"""Texts in errors raised when a GPU's memory runs out. Only PyTorch's own allocator raises
``torch.OutOfMemoryError``; kernels that are loaded when first used, cuBLAS and cuDNN (``cudnnStatus_t``)
take memory beside it. The last text is from a convolution (``ATen/native/cudnn/Conv_v8.cpp``): each of
cuDNN's ways to compute it failed, perhaps for want of workspace."""


def is_want_of_memory(error: Exception) -> bool:
    """Whether an error is want of memory, so that a smaller batch might succeed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = _TOLD_OF_CPUS + _TOLD_OF_GPUS + _TOLD_BY_ONNX_RUNTIME
    return isinstance(error, RuntimeError) and any(words in str(error) for words in told)


def free_memory() -> None:
    """Give back the memory that failed batches and PyTorch's caches hold."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
