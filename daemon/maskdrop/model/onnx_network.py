"""Networks in ONNX files, run by ONNX Runtime. No other module knows it.

The file's bytes are given to the runtime, never its name: so external data, which could name
any file of the machine, is not read. ONNX holds operators and numbers, no code.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskdrop.model.errors import WeightsError, first_line
from maskdrop.model.shape import InputShape

_SILENCE = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")
"""Environment variables, newer and older, without which ONNX Runtime tells Microsoft of every process that
imports it, and leaves a file with an identity of the machine in the user's home (ONNX Runtime's Privacy.md).
"""


class OnnxNetwork(nn.Module):
    """An ONNX Runtime session that takes and gives tensors, float (batch, …)."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self._session = session
        self._input: str = session.get_inputs()[0].name
        self._output: str = session.get_outputs()[0].name

    def forward(self, x: Tensor) -> Tensor:
        array = x.float().contiguous().cpu().numpy()
        (scores,) = self._session.run([self._output], {self._input: array})
        return torch.from_numpy(scores).to(x.device)


def load_onnx(content: bytes, path: Path, device: str, threads: int) -> tuple[nn.Module, InputShape]:
    """The network in an ONNX file, on a device, and the input it takes.

    Args:
        content: the whole file.
        path: its name, for messages.

    Raises:
        WeightsError: ONNX Runtime is not installed, can't read the file, or not on this device.
    """
    os.environ.update(dict.fromkeys(_SILENCE, "1"))
    try:
        import onnxruntime
    except ImportError as error:
        problem = "ONNX files need ONNX Runtime, which is not installed"
        raise WeightsError(f"{path}: {problem}; pip install 'maskdrop[onnx]'") from error
    provider = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        problem = f"this ONNX Runtime has no {provider}"
        raise WeightsError(f"{path}: {problem}; install onnxruntime-gpu, or set model.device = cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; its warnings are about the exporter's taste
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[provider])
        return OnnxNetwork(session), _shape_of(session)
    except Exception as error:  # its exceptions share no base but this
        problem = f"no ONNX network that can be run ({first_line(error)})"
        raise WeightsError(f"{path}: {problem}; export it again") from error


def _shape_of(session: Any) -> InputShape:
    """Free dimensions are named in ONNX, fixed ones are numbers."""
    batch, _, height, width = session.get_inputs()[0].shape
    side = height if isinstance(height, int) and height == width else None
    return InputShape(batch, batch, side) if isinstance(batch, int) else InputShape(1, None, side)
