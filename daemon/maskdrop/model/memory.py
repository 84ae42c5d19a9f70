"""Want of memory on a device: how the libraries tell it, and how to begin anew."""

import gc

import torch

_TOLD_OF_CPUS = ("can't allocate memory", "bad_alloc", "could not create a ")
"""What stands in the RuntimeErrors that PyTorch (``c10/core/impl/alloc_cpu.cpp``) and oneDNN
raise where a CPU's memory ends."""

_TOLD_BY_ONNX_RUNTIME = ("Failed to allocate memory for requested buffer", "failure 2: out of memory")
"""What stands in ONNX Runtime's (``core/framework/bfc_arena.cc``, ``core/providers/cuda/cuda_call.cc``)."""

_TOLD_OF_GPUS = (
    "error: out of memory",
    "_STATUS_ALLOC_FAILED",
    "_ALLOCATION_FAILED",
    "was unable to find an engine to execute this computation",
)
"""What stands in those where a GPU's ends. Only PyTorch's own memory raises ``torch.OutOfMemoryError``;
kernels that are loaded when first wanted, cuBLAS and cuDNN (``cudnnStatus_t``) take theirs beside it. The
last is a convolution's (``ATen/native/cudnn/Conv_v8.cpp``) for which each of cuDNN's ways to compute it has
failed, be it for want of workspace."""


def is_want_of_memory(error: Exception) -> bool:
    """Whether a smaller batch might have gone through."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = _TOLD_OF_CPUS + _TOLD_OF_GPUS + _TOLD_BY_ONNX_RUNTIME
    return isinstance(error, RuntimeError) and any(words in str(error) for words in told)


def free_memory() -> None:
    """Give back what failed batches and PyTorch's caches hold."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
