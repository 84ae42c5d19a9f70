"""Networks in ONNX files, run by ONNX Runtime. No other module imports it.

The runtime is given the file's bytes, never its name, so it doesn't read external data, which
could name any file of the machine. ONNX holds operators and numbers, no code.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskdrop.model.errors import WeightsError, first_line
from maskdrop.model.faults import is_devices_fault
from maskdrop.model.shape import InputShape

_SILENCE = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")
"""Environment variables, a newer and an older one. Unless they are set, ONNX Runtime tells Microsoft of every
process that imports it, and leaves a file that identifies the machine in the user's home (ONNX Runtime's
Privacy.md)."""

_NO_TF32 = "NVIDIA_TF32_OVERRIDE"
"""Environment variable that, if 0 when NVIDIA's libraries are loaded, keeps them from TF32 (cuBLAS and
TensorRT documentation). ONNX Runtime has no option of its own to keep TensorRT from it."""


class OnnxNetwork(nn.Module):
    """An ONNX Runtime session that takes and returns tensors, float (batch, …).

    It reads and writes them in place (its IOBinding), once the shape of its answer is known.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        self._session = session
        self._input: str = session.get_inputs()[0].name
        self._output: str = session.get_outputs()[0].name
        self._answer: tuple[int, ...] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The network's first answer.

        Raises:
            RuntimeError: the network failed, or ran out of memory.
        """
        x = x.float().contiguous()
        try:
            return self._first(x) if self._answer is None else self._bound(x, self._answer)
        except RuntimeError:
            raise
        except Exception as error:  # the runtime's own errors share no other base
            raise RuntimeError(str(error)) from error

    def _first(self, x: Tensor) -> Tensor:
        (scores,) = self._session.run([self._output], {self._input: x.cpu().numpy()})
        if scores.dtype == np.float32 and len(scores) == len(x):
            self._answer = scores.shape[1:]
        return torch.from_numpy(scores).to(x.device)

    def _bound(self, x: Tensor, answer: tuple[int, ...]) -> Tensor:
        scores = torch.empty((len(x), *answer), device=x.device)
        place = (x.device.type, x.device.index or 0, np.float32)
        binding = self._session.io_binding()
        binding.bind_input(self._input, *place, tuple(x.shape), x.data_ptr())
        binding.bind_output(self._output, *place, tuple(scores.shape), scores.data_ptr())
        torch.get_device_module(x.device).synchronize(x.device)  # the runtime has a stream of its own
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return scores


def load_onnx(
    content: bytes, path: Path, device: str, threads: int, tensorrt: bool = False, exact: bool = False
) -> tuple[nn.Module, InputShape]:
    """The network in an ONNX file, on a device, and the input it takes.

    Args:
        content: the whole file.
        path: its name, for messages.
        tensorrt: whether TensorRT computes it. Never tried, for want of a GPU.
        exact: whether a GPU computes in fp32, not in faster types (TF32, TensorRT's fp16).

    Raises:
        WeightsError: ONNX Runtime is not installed, can't read the file, or can't run it on this device.
        Exception: the GPU fails, or runs out of memory.
    """
    os.environ.update(dict.fromkeys(_SILENCE, "1"))
    try:
        import onnxruntime
    except ImportError as error:
        problem = "ONNX files need ONNX Runtime, which is not installed"
        raise WeightsError(f"{path}: {problem}; pip install 'maskdrop[onnx]'") from error
    if tensorrt and device == "cpu":
        problem = "model.tensorrt = true is for a GPU, and the device is cpu"
        raise WeightsError(f"{path}: {problem}; set it to false")
    if exact and device != "cpu":
        os.environ[_NO_TF32] = "0"
    providers = providers_of(device, tensorrt, exact)
    provider, _ = providers[0]
    extra, less = ("tensorrt", "model.tensorrt = false") if tensorrt else ("onnx-gpu", "model.device = cpu")
    remedy = f"pip install 'maskdrop[{extra}]' without onnxruntime beside it, or set {less}"
    if provider not in onnxruntime.get_available_providers():
        raise WeightsError(f"{path}: this ONNX Runtime has no {provider}; {remedy}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only; its warnings are about the exporter's style
    try:
        # By default it goes on with the CPU when a device fails.
        session = onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)
        session.disable_fallback()
        network, shape = OnnxNetwork(session), _shape_of(session)
    except Exception as error:  # the runtime's own errors share no other base
        if device != "cpu" and is_devices_fault(error):
            raise
        problem = f"no ONNX network that can be run ({first_line(error)})"
        raise WeightsError(f"{path}: {problem}; export it again") from error
    if session.get_providers()[0] != provider:  # such as when its libraries fail to load, which it only logs
        raise WeightsError(f"{path}: ONNX Runtime can't use its {provider} here; {remedy}")
    return network, shape


def providers_of(
    device: str, tensorrt: bool = False, exact: bool = False
) -> list[tuple[str, dict[str, Any]]]:
    """ONNX Runtime's execution providers for a device, with their options; the first takes all that it can.

    By default, the CUDA provider tries every way to compute a convolution, again for each batch size ("CUDA
    Execution Provider"); here it asks cuDNN for the likeliest. TensorRT builds an engine for the range of
    batch sizes that it has seen, and another when a size beyond it comes ("TensorRT Execution Provider"). So
    before a worker is ready, it shows TensorRT the smallest size, then the largest, then those between.
    """
    if device == "cpu":
        return [("CPUExecutionProvider", {})]
    place = {"device_id": torch.device(device).index or 0}
    ways = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": 0 if exact else 1}
    cuda: tuple[str, dict[str, Any]] = ("CUDAExecutionProvider", {**place, **ways})
    if not tensorrt:
        return [cuda]
    with suppress(ImportError):
        import tensorrt_libs  # noqa: F401  # loads the libraries that pip puts where no loader looks
    return [("TensorrtExecutionProvider", {**place, "trt_fp16_enable": not exact}), cuda]


def _shape_of(session: Any) -> InputShape:
    """The input that a session takes; in ONNX, free dimensions are names, fixed ones numbers."""
    batch, _, height, width = session.get_inputs()[0].shape
    side = height if isinstance(height, int) and height == width else None
    return InputShape(batch, batch, side) if isinstance(batch, int) else InputShape(1, None, side)
