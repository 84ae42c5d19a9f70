"""Workers, threads and slots chosen from the machine, and devices that are not there."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError
from maskdrop.supervisor.plan import count_gpus, find_devices, make_plan, usable_cores


def settings(**workers: object) -> Settings:
    folders = {"inbox": Path("/a/in"), "outbox": Path("/a/out")}
    return Settings.model_validate({"folders": folders, "model": {"device": "cpu"}, "workers": workers})


def test_on_a_cpu_inference_gets_all_cores_and_there_are_slots_for_all() -> None:
    plan = make_plan(settings())
    assert plan.devices == ("cpu",)
    assert plan.threads == usable_cores() <= len(os.sched_getaffinity(0))
    assert plan.preprocess >= 1
    assert plan.save >= 1
    assert plan.slots >= 2 * plan.max_batch + plan.preprocess + plan.save


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.integers(1, 64))
def test_what_is_set_is_taken(preprocess: int, save: int, threads: int, slots: int, batch: int) -> None:
    plan = make_plan(
        settings(preprocess=preprocess, save=save, inference_threads=threads, slots=slots, max_batch=batch)
    )
    chosen = (plan.preprocess, plan.save, plan.threads, plan.slots, plan.max_batch)
    assert chosen == (preprocess, save, threads, slots, batch)


def test_gpus_are_counted_as_torch_counts_them() -> None:
    count = torch.cuda.device_count()
    assert count_gpus() == count
    expected = tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)
    assert find_devices("auto") == expected


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there(device: str) -> None:
    if torch.cuda.device_count() > 7 or (torch.cuda.is_available() and device != "cuda:7"):
        pytest.skip("there is such a GPU here")
    with pytest.raises(ConfigurationError) as caught:
        find_devices(device)
    assert str(caught.value).startswith(f"model.device = {device!r}: ")
