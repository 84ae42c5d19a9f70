"""The end of a device's memory: batches are halved, and only a single picture too large ends the worker."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from maskdrop.config import ModelSettings, Settings
from maskdrop.folders import prepare_folders
from maskdrop.inbox.lock import InboxLock
from maskdrop.infer import compute, serve
from maskdrop.model.errors import WeightsError
from maskdrop.model.load import Form, Loaded, load_network
from maskdrop.model.memory import is_want_of_memory
from maskdrop.model.parser import FaceParser
from maskdrop.model.program import why_no_programs
from maskdrop.ticket import Infer, Stage, Started
from maskdrop.topology.slots import SharedSlots
from maskdrop.topology.worker import Link, Workplace
from running import Rooms
from weights_for_tests import skip_without_programs

COUNT = 24


def run_batch(weights: Path, device: str, mib: int) -> dict[str, Any]:
    script = Path(__file__).parent / "little_memory.py"
    command = [sys.executable, str(script), str(weights), device, str(COUNT), str(mib)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    if done.returncode == -signal.SIGSEGV and why_no_programs() is not None:
        pytest.skip("this old PyTorch dies where memory ends")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def check_halved(told: dict[str, Any]) -> None:
    """The whole batch was tried first, smaller ones went through, each picture's labels are its own."""
    everyone = list(range(1, COUNT + 1))
    assert told["error"] == ""
    assert told["reports"][0] == ["Started", everyone]
    inferred = [numbers for kind, numbers in told["reports"] if kind == "Inferred"]
    assert [number for numbers in inferred for number in numbers] == everyone
    assert 1 < len(inferred) <= COUNT
    assert min(told["alike"]) > 0.99


@pytest.fixture
def foreign_weights(tmp_path: Path) -> Path:
    """A network of which maskdrop knows nothing: it gets whole batches on a CPU, too."""
    skip_without_programs()
    path = tmp_path / "foreign.pt2"
    free = {0: torch.export.Dim("batch", min=1, max=64)}
    network = torch.nn.Conv2d(3, 19, 1).eval()
    torch.export.save(
        torch.export.export(network, (torch.zeros(2, 3, 512, 512),), dynamic_shapes=(free,)), path
    )
    return path


def test_where_memory_ends_a_batch_is_done_in_halves(foreign_weights: Path) -> None:
    check_halved(run_batch(foreign_weights, "cpu", mib=120))


def test_where_memory_ends_an_onnx_network_does_a_batch_in_halves(
    foreign_weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="needs maskdrop[onnx]")
    pytest.importorskip("onnxscript", reason="needs maskdrop[onnx]")
    written = torch.onnx.export(torch.export.load(foreign_weights), dynamo=True, verbose=False)
    assert written is not None
    path = tmp_path / "foreign.onnx"
    written.save(path)
    check_halved(run_batch(path, "cpu", mib=800))


def test_where_one_picture_is_too_much_it_is_the_only_one_at_work(tiny_weights: Path) -> None:
    told = run_batch(tiny_weights, "cpu", mib=10)
    assert "one picture is too much for cpu" in told["error"]
    assert told["reports"][-1] == ["Started", [1]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_where_a_gpus_memory_ends_a_batch_is_done_in_halves(tiny_weights: Path) -> None:
    check_halved(run_batch(tiny_weights, "cuda:0", mib=150))


def test_where_the_network_has_no_room_at_all_its_size_is_blamed(tiny_weights: Path) -> None:
    program = f"""
from pathlib import Path
from little_memory import limit_memory
from maskdrop.config import ModelSettings
from maskdrop.model.errors import WeightsError
from maskdrop.model.parser import load_parser
settings = ModelSettings(weights=Path({str(tiny_weights)!r}), precision="fp32", input_size=4096)
limit_memory("cpu", 100)  # a picture of 4,096 x 4,096 is 200 MB of fp32
try:
    load_parser(settings, "cpu").probe()
except WeightsError as error:
    print(error)
"""
    told = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=Path(__file__).parent,
    )
    assert "fails on a picture of 4096 x 4096" in told.stdout, told.stderr
    assert "see model.input_size" in told.stdout
    assert "or give it more memory (ulimit -v" in told.stdout


class Faulty(FaceParser):
    """A parser whose device is at fault, which no smaller batch mends."""

    def begin(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_other_faults_of_a_device_end_the_worker(tiny_weights: Path) -> None:
    parser = Faulty(load_network(tiny_weights), ModelSettings(), "cpu", "fp32")
    context = torch.multiprocessing.get_context("spawn")
    (tasks, _), (reports, theirs) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        compute([Infer(1, 0), Infer(2, 1)], parser, SharedSlots(2, 512), Link(tasks, theirs))
    assert reports.recv() == Started((1, 2))
    assert not reports.poll(0)


class Failing(torch.nn.Module):
    """A network on a device that fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise self.error


class Beside(FaceParser):
    """A parser whose device counts as one beside the CPU."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__(loaded, ModelSettings(), "cpu", "fp32")
        self._on_cpu = False


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("No CUDA GPUs are available"),
        RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        Exception("CUDA failure 2: out of memory ; GPU=0 ; hostname=somewhere"),
    ],
)
def test_what_a_device_fails_at_is_not_put_down_to_the_network(tiny_weights: Path, error: Exception) -> None:
    """An unfit network ends a daemon that has just started; a worker that dies is started again."""
    loaded = replace(load_network(tiny_weights), network=Failing(error), form=Form.PROGRAM)
    with pytest.raises(type(error)) as caught:
        Beside(loaded).probe()
    assert caught.value is error
    with pytest.raises(WeightsError, match=r"see model\.input_size"):  # where it can only be its own
        FaceParser(loaded, ModelSettings(), "cpu", "fp32").probe()


def test_a_worker_whose_device_is_full_says_so_and_dies(
    tiny_weights: Path, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    loaded = replace(load_network(tiny_weights), network=Failing(error), form=Form.PROGRAM)
    monkeypatch.setattr("maskdrop.infer.load_parser", lambda *_, **__: Beside(loaded))
    folders = {"inbox": rooms.inbox, "outbox": rooms.outbox}
    settings = Settings.model_validate({"folders": folders, "workers": {"max_batch": 1}})
    place = (prepare_folders(settings), SharedSlots(1, 512), InboxLock(-1))
    workplace = Workplace(Stage.INFER, "infer-0", settings, *place, device="cuda:0")
    context = torch.multiprocessing.get_context("spawn")
    (tasks, _), (reports, theirs) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    with pytest.raises(MemoryError, match="finds none on cuda:0: CUDA out of memory"):
        serve(workplace, Link(tasks, theirs))
    assert not reports.poll(0)


def test_what_a_network_fails_at_is_put_down_to_it_on_a_gpu_too(tiny_weights: Path) -> None:
    error = RuntimeError("Given groups=1, expected input[1, 3, 512, 512] to have 4 channels")
    loaded = replace(load_network(tiny_weights), network=Failing(error), form=Form.PROGRAM)
    with pytest.raises(WeightsError, match="to have 4 channels"):
        Beside(loaded).probe()


@pytest.mark.parametrize(
    ("error", "wanting"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=somewhere"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_which_errors_are_want_of_memory(error: Exception, wanting: bool) -> None:
    assert is_want_of_memory(error) is wanting
