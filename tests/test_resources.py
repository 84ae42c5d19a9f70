"""What the daemon takes of the machine: nothing while idle, and no more for many pictures than for few."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from drawing import draw_face, encode, face_bytes
from maskdrop.topology.slots import SharedSlots
from running import FULL, Daemon, Rooms
from waiting import wait_for

Start = Callable[..., Daemon]

IDLE_S = 10.0
WAKE_UPS_A_SECOND = 5
"""Two files a second, and up to two waits for the disk to take each."""
DEFAULTS = "[watch]\nsettle_ms = 500\n"


def processor_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(t.user + t.system for t in times))


def resident_bytes(processes: list[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


def wake_ups(processes: list[psutil.Process]) -> int:
    """How often threads have begun to wait for something; who polls does so all the time."""
    statuses = [task / "status" for p in processes for task in Path(f"/proc/{p.pid}/task").iterdir()]
    return sum(int(s.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for s in statuses)


def test_an_idle_daemon_neither_polls_nor_spins(start: Start, rooms: Rooms) -> None:
    """With metrics, which come on top of the health file. It is idle once it says that nothing was done in
    the last ten seconds; until then what it says changes each second."""
    metrics = f"[metrics]\nfile = '{rooms.base}/maskdrop.prom'\n"
    daemon = start(settings=DEFAULTS + metrics).wait_ready()
    rooms.drop("a.jpg", face_bytes(1))
    daemon.wait_count("saved", 1)
    daemon.wait_health(lambda h: not h["throughput_per_s"], "ten seconds without a picture")
    daemon.wait_health(lambda h: not any(s["busy"] for s in h["stages"].values()), "rest")
    processes = daemon.processes()
    assert len(processes) >= 4
    before, woken = processor_seconds(processes), wake_ups(processes)
    time.sleep(IDLE_S)  # not hope: this is the time that is counted in
    assert wake_ups(processes) - woken < WAKE_UPS_A_SECOND * IDLE_S
    assert processor_seconds(processes) - before < 0.1


def page_faults(pid: int) -> int:
    """Pages that the kernel had to give a process, reading nothing (minflt, proc_pid_stat(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def test_memory_of_large_pictures_is_kept_while_they_come_and_given_back_after_a_rest(
    start: Start, rooms: Rooms
) -> None:
    """A picture of 3,000 x 3,000 is 27 MB of pixels in each of several steps."""
    large, pages = encode(draw_face(1, 3000, 3000)), 3000 * 3000 * 3 // 4096
    daemon = start(settings="[workers]\npreprocess = 1\nsave = 1\n").wait_ready()
    workers = daemon.workers("preprocess") + daemon.workers("save")
    idle = {pid: resident_bytes([psutil.Process(pid)]) for pid in workers}

    def drop_and_wait(first: int, end: int) -> None:
        for index in range(first, end):
            rooms.drop(f"{index}.jpg", large)
        daemon.wait_count("saved", end)

    drop_and_wait(0, 2)
    before = [page_faults(pid) for pid in workers]
    drop_and_wait(2, 6)
    resident = [resident_bytes([psutil.Process(pid)]) for pid in workers]
    for pid, at_first, later in zip(workers, before, resident, strict=True):
        assert page_faults(pid) - at_first < pages  # of all four pictures together
        assert later > idle[pid] + 27_000_000

    def is_given_back() -> bool:
        return all(resident_bytes([psutil.Process(pid)]) < idle[pid] + 10_000_000 for pid in workers)

    wait_for(is_given_back, "workers to give memory back")
    assert daemon.stop() == 0


def test_memory_does_not_grow_with_the_number_of_pictures(start: Start, rooms: Rooms) -> None:
    contents = [face_bytes(seed, width=96, height=96) for seed in range(50)]
    daemon = start(settings=FULL + "[model]\ninput_size = 96\n").wait_ready()

    def drop_and_wait(first: int, end: int) -> int:
        for index in range(first, end):
            rooms.drop(f"{index}.jpg", contents[index % len(contents)])
        daemon.wait_count("saved", end, 240)
        return resident_bytes(daemon.processes())

    after_200 = drop_and_wait(0, 200)
    after_2000 = drop_and_wait(200, 2000)
    assert after_2000 <= 1.1 * after_200
    assert daemon.stop() == 0
    assert len(rooms.pictures("outbox")) == len(rooms.pictures("archive")) == 2000


def test_slots_have_their_memory_from_the_start() -> None:
    """Where there is too little of it, that is said then, and not by a signal in mid-work."""
    slots = SharedSlots(3, 256, views=1)
    assert os.fstat(slots._descriptor).st_blocks * 512 >= 3 * 2 * 256 * 256 * 4
    slots.close()
