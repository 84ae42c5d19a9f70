"""Faults of a device that are not the network's: another time, the same may go through."""

import re

from maskdrop.model.memory import is_want_of_memory

_TOLD = re.compile(
    r"\b(CUDA|HIP|cuDNN|MIOpen)( driver| unknown)? (error|failure)|\bno (CUDA|HIP) GPUs are available"
    r"|(CUDNN|CUBLAS|HIPBLAS)_STATUS_",
    re.IGNORECASE,
)
"""How PyTorch (``CUDAException.cpp`` and ``CUDAFunctions.cpp`` in ``c10/cuda``, ``ATen/cuda/Exceptions.h``)
and ONNX Runtime (``core/providers/cuda/cuda_call.cc``) tell them."""


def is_devices_fault(error: Exception) -> bool:
    """Whether an error is told of a device of its own, and not of what it was asked for."""
    return is_want_of_memory(error) or _TOLD.search(str(error)) is not None
