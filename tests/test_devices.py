"""Devices that are there, that are not, and a driver that doesn't answer."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError
from maskdrop.devices import count_gpus, find_devices
from maskdrop.supervisor.premises import take_premises


def test_gpus_are_counted_as_torch_counts_them() -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    assert count_gpus() == count
    expected = tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)
    assert find_devices("auto") == expected


TORCH = """
from types import SimpleNamespace
def init():
    {init}
cuda = SimpleNamespace(init=init, device_count=lambda: {nvml})
_C = SimpleNamespace(_cuda_getDeviceCount=lambda: {cuda})
"""
"""Stands in for PyTorch in the process that is asked."""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a driver's device file and such a PyTorch in place."""
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr("maskdrop.devices.GPU_NODES", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def put(**behaviour: object) -> None:
        (tmp_path / "torch.py").write_text(TORCH.format(**behaviour))

    return put


def test_gpus_are_counted_by_cuda_and_not_by_what_the_driver_manages(driver: Callable[..., None]) -> None:
    driver(nvml=2, init="raise RuntimeError('No CUDA GPUs are available')", cuda=2)
    assert find_devices("auto") == ("cpu",)
    with pytest.raises(ConfigurationError, match="no GPU is usable here; set it to auto or cpu, or mend"):
        find_devices("cuda")
    driver(nvml=1, init="pass", cuda=3)
    assert find_devices("auto") == ("cuda:0", "cuda:1", "cuda:2")


def test_a_hung_driver_is_not_waited_for(driver: Callable[..., None]) -> None:
    driver(nvml=1, init="import time; time.sleep(3600)", cuda=1)
    with pytest.raises(ConfigurationError, match=r"the GPU driver has not answered for 0\.5 s; mend it"):
        find_devices("auto", patience_s=0.5)


def test_a_reload_waits_less_for_a_driver_than_a_start(
    driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = {name: tmp_path / name for name in ("inbox", "outbox", "quarantine", "archive")}

    def on(device: str) -> Settings:
        return Settings.model_validate({"folders": folders, "model": {"device": device}})

    before = take_premises(on("cpu"))
    driver(nvml=1, init="import time; time.sleep(3600)", cuda=1)
    monkeypatch.setattr("maskdrop.supervisor.premises.RELOAD_PROBE_S", 0.5)
    with pytest.raises(ConfigurationError, match=r"the GPU driver has not answered for 0\.5 s; mend it"):
        take_premises(on("cuda"), before)
    before.leave()


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there(device: str) -> None:
    if torch.cuda.device_count() > 7 or (torch.cuda.is_available() and device != "cuda:7"):
        pytest.skip("there is such a GPU here")
    with pytest.raises(ConfigurationError) as caught:
        find_devices(device)
    assert str(caught.value).startswith(f"model.device = {device!r}: ")
