"""ONNX Runtime: on which device it computes, and what becomes of its answers and errors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from maskdrop.config import ModelSettings
from maskdrop.model.errors import WeightsError
from maskdrop.model.export import export_network
from maskdrop.model.load import load_network
from maskdrop.model.onnx_network import OnnxNetwork, providers_of
from maskdrop.model.parser import load_parser
from weights_for_tests import skip_without_programs

SIDE = 64


@pytest.fixture
def exported(tmp_path: Path, tiny_weights: Path) -> Path:
    pytest.importorskip("onnxruntime", reason="needs maskdrop[onnx]")
    pytest.importorskip("onnxscript", reason="needs maskdrop[onnx]")
    skip_without_programs()
    path = tmp_path / "tiny.onnx"
    export_network(load_network(tiny_weights), SIDE, path)
    return path


def test_each_gpu_has_its_own_provider() -> None:
    assert providers_of("cpu") == [("CPUExecutionProvider", {})]
    ways = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": 1}
    assert providers_of("cuda") == [("CUDAExecutionProvider", {"device_id": 0, **ways})]
    assert providers_of("cuda:3") == [("CUDAExecutionProvider", {"device_id": 3, **ways})]
    for exact in (False, True):
        first, second = providers_of("cuda:3", tensorrt=True, exact=exact)
        assert first == ("TensorrtExecutionProvider", {"device_id": 3, "trt_fp16_enable": not exact})
        assert second == ("CUDAExecutionProvider", {"device_id": 3, **ways, "use_tf32": 0 if exact else 1})


def test_a_runtime_that_would_compute_on_a_cpu_instead_is_refused(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As onnxruntime-gpu does where it can't load CUDA's libraries: it names its provider all the same."""
    import onnxruntime

    with pytest.raises(WeightsError, match=r"no CUDAExecutionProvider; pip install 'maskdrop\[onnx-gpu\]'"):
        load_network(exported, "cuda:1")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    with pytest.raises(WeightsError, match="can't use its CUDAExecutionProvider here; pip install"):
        load_network(exported, "cuda:1")


def test_tensorrt_is_refused_where_it_cant_be_had(
    exported: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    wanted = ModelSettings(weights=exported, input_size=SIDE, tensorrt=True)
    with pytest.raises(
        WeightsError, match=r"tensorrt = true is for a GPU, and the device is cpu; set it to false"
    ):
        load_parser(wanted, "cpu")
    remedy = r"pip install 'maskdrop\[tensorrt\]'"
    with pytest.raises(WeightsError, match=f"this ONNX Runtime has no TensorrtExecutionProvider; {remedy}"):
        load_parser(wanted, "cuda:0")
    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    with pytest.raises(WeightsError, match=f"can't use its TensorrtExecutionProvider here; {remedy}"):
        load_parser(wanted, "cuda:0")
    others = wanted.model_copy(update={"weights": tiny_weights})
    with pytest.raises(WeightsError, match=r"for ONNX networks, which this is not \(BiSeNet weights\)"):
        load_parser(others, "cuda:0")
    with pytest.raises(ValueError, match="tensorrt = true is for a GPU, and device is cpu"):
        ModelSettings(tensorrt=True, device="cpu")


def test_answers_written_in_place_are_those_that_are_copied(exported: Path) -> None:
    network = load_network(exported).network
    pictures = torch.rand((5, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    wanted = torch.cat([load_network(exported).network(one[None]) for one in pictures])  # first calls
    for batch in (slice(0, 2), slice(0, 5), slice(1, 4), slice(0, 5)):
        scores = network(pictures[batch].to(memory_format=torch.channels_last))
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, wanted[batch], rtol=1e-4, atol=1e-4)


class Runtime:
    """A session that answers where it is told to, or doesn't know how; or fails."""

    def __init__(self, answer: type[np.floating] = np.float32) -> None:
        self.answer, self.runs = answer, 0

    def get_inputs(self) -> list["Runtime"]:
        return [self]

    get_outputs = get_inputs
    name = "one"

    def run(self, names: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.runs += 1
        return [given["one"].astype(self.answer)]


def test_answers_in_other_numbers_are_copied() -> None:
    runtime = Runtime(np.float16)
    network, x = OnnxNetwork(runtime), torch.rand(2, 3, 4, 4)
    for _ in range(2):
        assert torch.equal(network(x), x.half())
    assert runtime.runs == 2


class Failure(Exception):
    """The runtime's own errors share no base but this."""


def test_its_errors_are_told_as_pytorchs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Failure("CUDA failure 700: an illegal memory access was encountered ; GPU=0")

    runtime = Runtime()
    monkeypatch.setattr(runtime, "run", fail)
    with pytest.raises(RuntimeError, match="CUDA failure 700"):
        OnnxNetwork(runtime)(torch.rand(1, 3, 4, 4))
