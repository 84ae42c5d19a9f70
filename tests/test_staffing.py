"""How many workers each stage gets where that is ``auto``."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawing import face_bytes
from maskdrop.config import Settings
from maskdrop.machine.cores import usable_cores
from maskdrop.supervisor.plan import (
    BUSY,
    MOST_WAITERS,
    WAITERS,
    WAITERS_BUSY,
    WAITING,
    plan_for,
    rate_of,
    useful_workers,
    workers_for,
)
from maskdrop.supervisor.staffing import more_workers, share_computing, workers_in_full
from maskdrop.ticket import Cost, Stage
from running import EXECUTED, QUICK, Daemon, Rooms
from waiting import wait_for

sys.path.append("bench")

from slow_disk import environment, set_times

Start = Callable[..., Daemon]

AUTO = "workers = 'auto'\n[watch]\nsettle_ms = 100\n[face]\nlocate = 'off'\n[health]\ninterval_s = 0.2\n"

milliseconds = st.floats(0.01, 10_000)


def costs(preprocess: Cost, infer: Cost, save: Cost) -> dict[Stage, Cost]:
    return {Stage.PREPROCESS: preprocess, Stage.INFER: infer, Stage.SAVE: save}


def settings(workers: object) -> Settings:
    folders = {"inbox": Path("/a/in"), "outbox": Path("/a/out")}
    return Settings.model_validate({"folders": folders, "model": {"device": "cpu"}, "workers": workers})


def test_a_rate_is_bounded_by_devices_or_by_cores() -> None:
    light, waiting = Cost(2, 2), Cost(10, 3)
    on_cpu = costs(light, Cost(20, 40), waiting)
    assert rate_of(on_cpu, cores=2, inferrers=1) == pytest.approx(2000 / 45)
    assert rate_of(on_cpu, cores=16, inferrers=1) == pytest.approx(50)
    on_gpu = costs(light, Cost(0.5, 0.1), waiting)
    assert rate_of(on_gpu, cores=8, inferrers=1) == pytest.approx(8_000 / 5.1)
    assert rate_of(on_gpu, cores=160, inferrers=2) == pytest.approx(4_000)


@given(milliseconds, st.floats(0.01, 10_000))
def test_workers_are_as_few_as_keep_up(spent: float, rate: float) -> None:
    cores = 10**9
    count = workers_for(rate, Cost(spent, spent), cores)
    load = rate * spent / 1000
    assert load / count <= BUSY * (1 + 1e-9)
    assert count == 1 or load / (count - 1) > BUSY * (1 - 1e-9)


@given(st.integers(1, 300), st.floats(0, 1))
def test_there_are_more_than_one_a_core_only_where_they_mostly_wait(cores: int, computing: float) -> None:
    count = useful_workers(cores, computing)
    assert cores <= count <= max(cores, MOST_WAITERS)
    if computing > WAITING:
        assert count == cores
    elif count > cores:
        assert count * computing <= cores * (1 + 1e-9)  # together they don't fill the cores
        assert count == MOST_WAITERS or (count + 1) * computing > cores * (1 - 1e-9)


def test_saving_that_waits_for_a_disk_gets_as_many_workers_as_keep_up() -> None:
    """Two cores that label 60 pictures a second, and five syncs of 20 ms for each picture: 6.24 at once, busy
    for two fifths of their time. The same time spent computing gets one a core."""
    cores, light, network = 2, Cost(1, 1), Cost(15, 29)
    waiting = costs(light, network, Cost(104, 3.3))
    assert rate_of(waiting, cores, inferrers=1) == pytest.approx(60, rel=0.01)
    assert workers_for(60, waiting[Stage.SAVE], cores) == 16
    assert workers_for(60, Cost(104, 104), cores) == 2


def test_a_device_that_is_at_a_few_pictures_could_be_at_more() -> None:
    on_gpu = plan_for(settings({}), ("cuda:0",))
    assert on_gpu.at_once == on_gpu.max_batch == 32
    assert workers_in_full([2], on_gpu.at_once) == 1 / 16
    assert workers_in_full([64, 8, 0], on_gpu.at_once) == 1.25
    on_cpu = plan_for(settings({"inference_threads": 2}), ("cpu",))
    assert on_cpu.at_once == 2
    assert workers_in_full([16, 1], on_cpu.at_once) == 1.5


def test_a_worker_that_nothing_is_known_of_computes_all_the_time() -> None:
    assert share_computing({}, {}, since=0.25) == 1
    assert share_computing({}, {7: 100.0}, since=0.25) == 1
    assert share_computing({7: 3.0, 8: 5.0}, {7: 3.1, 8: 5.0}, since=0.25) == pytest.approx(0.2)
    assert share_computing({7: 3.0}, {7: 3.05, 9: 1.0}, since=0.25) == pytest.approx(0.6)


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 0.8))
def test_a_full_stage_gets_half_as_many_more_or_what_inference_could_do(
    count: int, computing: float, inferring: float
) -> None:
    more = more_workers(count, computing, inferring)
    assert more >= max(count + 1, int(1.5 * count))
    if computing > WAITING:
        assert more == max(count + 1, int(1.5 * count))
    else:
        assert more * inferring * WAITERS_BUSY >= count * (1 - 1e-9) or more >= MOST_WAITERS


def test_how_many_more_workers_wait_for_a_disk() -> None:
    """With one and inference busy for a fifth, five keep it busy, thirteen at leisure."""
    assert more_workers(1, 0.1, 0.2) == 13
    assert more_workers(8, 0.1, 0.7) == 29
    assert more_workers(1, 0.1, 0.0) >= MOST_WAITERS  # none came through at all


@given(milliseconds, milliseconds, milliseconds)
def test_there_is_a_slot_for_each_worker_that_may_come_to_be(one: float, two: float, three: float) -> None:
    known = costs(Cost(one, one), Cost(two, two), Cost(three, three))
    before, measured = (plan_for(settings("auto"), ("cpu",), c) for c in (None, known))
    assert before.slots == measured.slots  # or all workers would have to go
    assert 1 <= measured.preprocess <= usable_cores()  # computing all the time
    assert 1 <= measured.save <= usable_cores()
    assert usable_cores() <= measured.most_save == before.most_save == measured.most_preprocess
    assert measured.most_save <= max(usable_cores(), min(MOST_WAITERS, WAITERS * usable_cores()))
    assert measured.slots >= 2 * measured.max_batch + 2 * usable_cores()
    assert measured.slots >= measured.max_batch + measured.most_save + usable_cores()
    assert measured.slots >= measured.most_preprocess + measured.most_save


def test_numbers_that_are_set_stay_whatever_is_measured() -> None:
    known = costs(Cost(500, 500), Cost(1, 1), Cost(500, 500))
    plan = plan_for(settings({"preprocess": 1, "save": 3}), ("cpu",), known)
    assert (plan.preprocess, plan.save, plan.most_preprocess, plan.most_save) == (1, 3, 1, 3)


def test_workers_measure_themselves_at_the_start(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=AUTO).wait_ready()
    plan = daemon.health()["plan"]
    assert set(plan["measured_ms"]) == {"preprocess", "infer", "save"}
    assert all(spent > 0 for spent in plan["measured_ms"].values())
    log = daemon.log
    assert "measured for a picture: preprocess " in log
    assert f"ready: {plan['preprocess']} preprocess, 1 infer" in log
    assert f", {plan['save']} save, {plan['slots']} slots" in log
    assert list(rooms.outbox.iterdir()) == []  # measuring leaves nothing behind
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


def test_cores_that_come_during_the_start_take_no_worker_away(start: Start, rooms: Rooms) -> None:
    """A worker that is ready works while others are still measuring; what it holds is not lost with it."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("needs two cores")
    daemon = start(settings=AUTO, prefix=["taskset", "--cpu-list", str(cores[0])])
    daemon.wait_health(lambda h: daemon.workers("save"), "a saver that starts")
    (saver,) = daemon.workers("save")
    os.kill(saver, signal.SIGSTOP)
    health = daemon.wait_health(
        lambda h: any(w["stage"] == "infer" and w["ready"] for w in h["workers"]), "ready"
    )
    (infer,) = daemon.workers("infer")
    os.kill(infer, signal.SIGSTOP)
    for index in range(7):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon.wait_health(lambda h: h["in_flight"] == 7, "seven pictures in flight")
    for thread in psutil.Process(daemon.process.pid).threads():
        os.sched_setaffinity(thread.id, cores)
    os.kill(saver, signal.SIGCONT)
    daemon.wait_log("measured for a picture")
    os.kill(infer, signal.SIGCONT)
    daemon.wait_count("saved", 7)
    assert daemon.wait_ready().workers("infer") == [infer]
    assert daemon.health()["plan"]["slots"] == health["plan"]["slots"]
    assert daemon.stop() == 0


def test_workers_whose_numbers_are_set_do_not_measure(start: Start) -> None:
    daemon = start(settings="[workers]\npreprocess = 1\nsave = 1\n").wait_ready()
    assert daemon.health()["plan"]["measured_ms"] == dict.fromkeys(("preprocess", "infer", "save"))
    assert "measured" not in daemon.log


def test_a_reload_keeps_what_was_measured(start: Start, rooms: Rooms) -> None:
    daemon = start(settings=AUTO).wait_ready()
    before = {worker["pid"] for worker in daemon.health()["workers"]}
    measured = daemon.health()["plan"]["measured_ms"]
    (rooms.base / "maskdrop.toml").write_text(AUTO.replace("settle_ms = 100", "settle_ms = 101"))
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "the configuration is taken up" in daemon.log, "a reload")
    assert daemon.health()["plan"]["measured_ms"] == measured
    assert {worker["pid"] for worker in daemon.health()["workers"]} == before


def test_a_reload_to_auto_has_workers_measure(start: Start, rooms: Rooms) -> None:
    """Once: to numbers and back again, what was measured still holds, and nobody is replaced."""
    numbers = QUICK.replace("[workers]", "[workers]\nslots = 12")
    auto = numbers.replace("preprocess = 1", "preprocess = 'auto'").replace("save = 1", "save = 'auto'")
    daemon = start(settings=numbers).wait_ready()
    first = pids = {worker["pid"] for worker in daemon.health()["workers"]}
    for turn, settings in enumerate((auto, numbers, auto), 1):
        (rooms.base / "maskdrop.toml").write_text(settings)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_log("the configuration is taken up", turn)
        daemon.wait_ready()
        daemon.wait_health(lambda h: all(h["plan"]["measured_ms"].values()), "all stages measured")
        before, pids = pids, {worker["pid"] for worker in daemon.health()["workers"]}
        assert len(before & pids) == (0 if before is first else 3)
    assert daemon.log.count("measured for a picture: preprocess ") == 1
    assert daemon.stop() == 0


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: there is never a second saver")
def test_a_stage_that_holds_up_the_others_gets_more_workers(start: Start, rooms: Rooms) -> None:
    """Large PNGs keep one saver busy all the time, the rest idle."""
    slow = AUTO + "[save]\noutputs = ['cutout']\n"
    daemon = start(settings=slow).wait_ready()
    first = daemon.health()["plan"]["save"]
    content = face_bytes(1, width=3000, height=2000)
    for index in range(6):
        rooms.drop(f"{index}.jpg", content)
    if first < usable_cores():
        daemon.wait_health(lambda health: health["plan"]["save"] > first, "a second saver")
        assert "save holds up the others" in daemon.log
    daemon.wait_count("saved", 6)
    assert daemon.stop() == 0


few_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) >= MOST_WAITERS,
    reason="as many cores as savers on a slow disk",
)


@few_cores
def test_a_slow_disk_has_more_savers_than_cores_from_the_start(start: Start, rooms: Rooms) -> None:
    slow = environment(rooms.base, sync_ms=100)
    daemon = start(settings=AUTO, env={**EXECUTED, **slow}).wait_ready()
    plan = daemon.health()["plan"]
    assert plan["measured_ms"]["save"] > 500  # five syncs
    assert usable_cores() < plan["save"] <= WAITERS * usable_cores()
    assert len(daemon.workers("save")) == plan["save"]
    set_times(rooms.base, 0)
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    assert daemon.stop() == 0


@pytest.fixture
def rooms_in_memory() -> Iterator[Rooms]:
    """Where a sync takes no time, however slow this machine's disk is now."""
    with tempfile.TemporaryDirectory(prefix="maskdrop-tests-", dir="/dev/shm") as folder:
        yield Rooms.make(Path(folder))


@few_cores
def test_a_disk_that_becomes_slow_gets_more_savers_than_cores(
    rooms_in_memory: Rooms, tmp_path: Path, tiny_weights: Path
) -> None:
    """Fewer were enough when they measured themselves."""
    ours = environment(tmp_path)
    daemon = Daemon(rooms_in_memory, tiny_weights, AUTO, (), {"env": {**EXECUTED, **ours}})
    try:
        check_that_savers_become_more(daemon, tmp_path)
    finally:
        daemon.destroy()


def check_that_savers_become_more(daemon: Daemon, times: Path) -> None:
    rooms = daemon.wait_ready().rooms
    first = daemon.health()["plan"]["save"]
    if first > 4 * usable_cores():
        pytest.skip("savers wait too long for cores that others have now")
    set_times(times, 200)
    count = 24 + 2 * first
    for index in range(count):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    enough = max(first, usable_cores())
    daemon.wait_health(lambda health: health["plan"]["save"] > enough, "more savers than cores")
    assert "save holds up the others" in daemon.log
    set_times(times, 0)
    daemon.wait_count("saved", count)
    assert daemon.stop() == 0


@few_cores
def test_an_inbox_that_is_slow_to_read_gets_more_decoders_than_cores(start: Start, rooms: Rooms) -> None:
    """They measured themselves with a picture they had, so they come while the daemon works."""
    slow = environment(rooms.base, read_ms=150, below=rooms.inbox)
    daemon = start(settings=AUTO, env={**EXECUTED, **slow}).wait_ready()
    plan = daemon.health()["plan"]
    assert plan["preprocess"] <= usable_cores()
    count = 24 + 2 * usable_cores()
    for index in range(count):
        rooms.drop(f"{index}.jpg", face_bytes(index))
    daemon.wait_health(lambda health: health["plan"]["preprocess"] > usable_cores(), "more decoders")
    assert "preprocess holds up the others" in daemon.log
    assert daemon.health()["plan"]["preprocess"] <= WAITERS * usable_cores()
    set_times(rooms.base)
    daemon.wait_count("saved", count)
    assert daemon.stop() == 0
