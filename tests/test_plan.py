"""Workers, threads and slots chosen from the machine, and devices that are not there."""

import os
from math import inf
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError
from maskdrop.cores import quota_of, usable_cores
from maskdrop.supervisor.plan import count_gpus, find_devices, make_plan


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


@pytest.mark.parametrize(
    ("membership", "quotas", "wanted"),
    [
        ("0::/\n", {}, inf),
        ("0::/\n", {"": "max 100000"}, inf),
        ("0::/\n", {"": "150000 100000"}, 1.5),  # a container, which sees its own group as the uppermost
        ("0::/system.slice/maskdrop.service\n", {"system.slice/maskdrop.service": "200000 100000"}, 2.0),
        ("0::/a/b\n", {"": "900000 100000", "a": "100000 50000", "a/b": "max 100000"}, 2.0),
        ("0::/a/b\n", {"a/other": "10000 100000"}, inf),
        ("0::/../elsewhere\n", {"": "400000 100000"}, 4.0),
        ("12:cpu:/a\n1:name=systemd:/a\n0::/a\n", {"a": "50000 100000"}, 0.5),
        ("2:cpu:/a\n", {"": "max 100000"}, inf),
    ],
)
def test_the_least_quota_of_the_control_groups_counts(
    tmp_path: Path, membership: str, quotas: dict[str, str], wanted: float
) -> None:
    mounted = tmp_path / "cgroup"
    (mounted / "a" / "b").mkdir(parents=True)
    (mounted.parent / "cpu.max").write_text("1000 100000")  # of nobody's
    for group, content in quotas.items():
        (mounted / group).mkdir(parents=True, exist_ok=True)
        (mounted / group / "cpu.max").write_text(content + "\n")
    assert quota_of(membership, mounted) == wanted


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
