"""Faults of a device rather than of the network: another time, the same work may succeed."""

import re

from maskdrop.model.memory import is_want_of_memory

_TOLD = re.compile(
    r"\b(CUDA|HIP|cuDNN|MIOpen)( driver| unknown)? (error|failure)|\bno (CUDA|HIP) GPUs are available"
    r"|(CUDNN|CUBLAS|HIPBLAS)_STATUS_",
    re.IGNORECASE,
)
"""How PyTorch (``CUDAException.cpp`` and ``CUDAFunctions.cpp`` in ``c10/cuda``, ``ATen/cuda/Exceptions.h``)
and ONNX Runtime (``core/providers/cuda/cuda_call.cc``) word them."""


def is_devices_fault(error: Exception) -> bool:
    """Whether a GPU, rather than the work it was given, is the cause of an error."""
    return is_want_of_memory(error) or _TOLD.search(str(error)) is not None
