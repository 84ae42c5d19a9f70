"""Workers, threads and slots chosen from the machine."""

import os
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.config import Settings
from maskdrop.machine.control_groups import groups_in
from maskdrop.machine.cores import quota_in, usable_cores
from maskdrop.machine.memory_limit import limit_in, usable_bytes
from maskdrop.supervisor.plan import (
    CPU_HELD,
    GPU_BATCH,
    GPU_HELD,
    INFERENCE_BYTES,
    inference_for,
    make_plan,
    plan_for,
    slot_bytes,
)


def settings(**workers: object) -> Settings:
    folders = {"inbox": Path("/a/in"), "outbox": Path("/a/out")}
    return Settings.model_validate({"folders": folders, "model": {"device": "cpu"}, "workers": workers})


def test_on_a_cpu_inference_gets_all_cores_and_there_are_slots_for_all() -> None:
    plan = make_plan(settings())
    assert set(plan.devices) == {"cpu"}
    assert usable_cores() - 1 <= len(plan.devices) * plan.threads <= plan.most_threads == usable_cores()
    assert usable_cores() <= len(os.sched_getaffinity(0))
    assert plan.preprocess >= 1
    assert plan.save >= 1
    assert plan.slots >= 2 * plan.max_batch + plan.preprocess + plan.save


@pytest.mark.parametrize(
    ("cores", "wanted", "on_gpu", "chosen"),
    [
        (1, {}, False, (1, 1, 1)),
        (2, {}, False, (1, 2, 2)),
        (3, {}, False, (1, 3, 3)),
        (4, {}, False, (2, 2, 4)),
        (5, {}, False, (2, 2, 5)),
        (16, {}, False, (8, 2, 16)),
        (2, {"infer": 2}, False, (2, 1, 2)),
        (2, {"infer": 5}, False, (5, 1, 2)),
        (16, {"infer": 1}, False, (1, 16, 16)),
        (16, {"inference_threads": 3}, False, (1, 3, 3)),
        (16, {"inference_threads": 3, "infer": 4}, False, (4, 3, 3)),
        (16, {}, True, (1, 1, 1)),
        (16, {"infer": 2}, True, (2, 1, 1)),
    ],
)
def test_a_cpu_has_several_inference_workers_and_a_gpu_one(
    cores: int, wanted: dict[str, int], on_gpu: bool, chosen: tuple[int, int, int]
) -> None:
    assert inference_for(settings(**wanted).workers, on_gpu, cores, 64 * 2**30) == chosen


@pytest.mark.parametrize(("gibibytes", "chosen"), [(1, (1, 16, 16)), (4, (5, 3, 16)), (32, (8, 2, 16))])
def test_inference_workers_take_half_of_the_memory_at_most(
    gibibytes: int, chosen: tuple[int, int, int]
) -> None:
    assert inference_for(settings().workers, False, 16, gibibytes * 2**30) == chosen
    assert inference_for(settings(infer=7).workers, False, 16, gibibytes * 2**30) == (7, 2, 16)


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 16, 64, 256])
@pytest.mark.parametrize("gibibytes", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("devices", [("cpu",), ("cuda:0",), ("cuda:0", "cuda:1")])
def test_slots_and_inference_workers_leave_a_quarter_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, cores: int, gibibytes: int, devices: tuple[str, ...]
) -> None:
    """As in a container, whose limit of memory may be small on a machine of many cores."""
    monkeypatch.setattr("maskdrop.supervisor.plan.usable_cores", lambda: cores)
    monkeypatch.setattr("maskdrop.supervisor.plan.usable_bytes", lambda: gibibytes * 2**30)
    chosen = settings()
    plan = plan_for(chosen, devices)
    slots, workers = plan.slots * slot_bytes(chosen), len(plan.devices) * INFERENCE_BYTES
    assert slots <= gibibytes * 2**28
    assert slots + (workers if devices == ("cpu",) else 0) <= gibibytes * 3 * 2**28
    assert plan.slots >= plan.held * len(plan.devices) + 4
    assert plan.held == plan.max_batch * (CPU_HELD if devices == ("cpu",) else GPU_HELD)
    if gibibytes == 64 and devices != ("cpu",):
        assert plan.max_batch == GPU_BATCH


@pytest.mark.parametrize(
    ("membership", "limits", "wanted"),
    [
        ("0::/\n", {}, []),
        ("0::/\n", {"": "max"}, []),
        ("0::/a/b\n", {"a/b": "max", "a": "1000", "": "5000"}, [1000, 5000]),
        ("0::/a/b\n", {"a/b": "900", "a/other": "1"}, [900]),
        ("0::/../elsewhere\n", {"": "4000", "elsewhere": "1"}, [4000]),
        ("4:cpu:/x\n3:memory:/a\n0::/\n", {"memory/a": "700", "x": "1"}, [700]),
    ],
)
def test_limits_of_memory_are_those_of_the_groups_and_all_that_hold_them(
    tmp_path: Path, membership: str, limits: dict[str, str], wanted: list[int]
) -> None:
    for group, limit in limits.items():
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        name = "memory.limit_in_bytes" if group.startswith("memory") else "memory.max"
        (tmp_path / group / name).write_text(limit + "\n")
    found = [limit_in(group) for group in groups_in(membership, tmp_path, "memory")]
    assert sorted(limit for limit in found if limit is not None) == wanted
    assert 0 < usable_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("devices", [("cpu",), ("cuda:0", "cuda:1")])
def test_a_plan_made_again_has_as_many_inference_workers(devices: tuple[str, ...]) -> None:
    plan = plan_for(settings(infer=2), devices)
    assert plan.devices == tuple(device for device in devices for _ in range(2))
    assert plan_for(settings(infer=2), plan.devices) == plan


def test_on_a_gpu_a_batch_is_at_hand_while_one_is_computed_and_one_is_begun() -> None:
    one, two = plan_for(settings(), ("cuda:0",)), plan_for(settings(), ("cuda:0", "cuda:1"))
    assert one.held == two.held == 3 * one.max_batch
    assert two.slots - one.slots == one.held


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
        ("2:cpu,cpuacct:/a/b\n", {"cpu/a": "150000 100000", "cpu/a/b": "-1 100000"}, 1.5),
        ("2:cpuset:/a\n3:cpu:/\n", {"cpu": "-1 100000", "cpu/a": "50000 100000"}, inf),
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
        if group.startswith("cpu"):
            for name, number in zip(("quota", "period"), content.split(), strict=True):
                (mounted / group / f"cpu.cfs_{name}_us").write_text(number + "\n")
        else:
            (mounted / group / "cpu.max").write_text(content + "\n")
    assert min(map(quota_in, groups_in(membership, mounted, "cpu"))) == wanted
