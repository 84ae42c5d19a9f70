"""The daemon with nothing to do, and with one picture: time to ready and to stop, latency, memory, CPU time.

    python bench/idle.py [--pictures 20] [--seconds 10]

Starts the daemon with all defaults but settle_ms = 100, drops one picture at a time with pauses, and waits
for each result's name. Then leaves it alone, looks at what its processes hold and use, and tells it to
stop. Prints JSON.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil

import pictures
from maskdrop_daemon import configuration
from measured import PATIENCE_S, Daemon, running, scratch

SETTLE_MS = 100
PAUSE_S = 0.3


def one_by_one(base: Path, count: int) -> list[float]:
    """Milliseconds from each picture's arrival to its result's, less the settle time."""
    spent = []
    for number, path in enumerate(sorted((base / "staged").iterdir())[:count]):
        result, copy = base / "outbox" / f"{number}.jpg", base / f"{number}.jpg"
        shutil.copyfile(path, copy)
        time.sleep(PAUSE_S)
        began = time.monotonic()
        copy.rename(base / "inbox" / copy.name)
        while not result.exists():
            if time.monotonic() > began + PATIENCE_S:
                sys.exit(f"no result came:\n{(base / 'log').read_text()[-3000:]}")
            time.sleep(0.0005)
        spent.append((time.monotonic() - began) * 1000 - SETTLE_MS)
    return spent


def wait_for_rest(daemon: Daemon) -> None:
    """Wait until the daemon says that it saved nothing in the last ten seconds, and no stage is busy."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        health = daemon.health()
        if not health["throughput_per_s"] and not any(s["busy"] for s in health["stages"].values()):
            return
        if time.monotonic() > give_up:
            sys.exit(f"no rest came: {health}")
        time.sleep(0.2)


def processor_seconds(processes: list[psutil.Process]) -> float:
    return float(sum(process.cpu_times().user + process.cpu_times().system for process in processes))


def memory(processes: list[psutil.Process], workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Proportional and resident set size in MiB of the supervisor, its workers, and their helper."""
    stages = {worker["pid"]: worker["stage"] for worker in workers}
    rows = []
    for index, process in enumerate(processes):
        info = process.memory_full_info()
        name = "supervisor" if index == 0 else stages.get(process.pid, "multiprocessing's resource tracker")
        rows.append({"process": name, "pss_mib": info.pss / 2**20, "rss_mib": info.rss / 2**20})
    return rows


def run(base: Path, count: int, seconds: float) -> dict[str, Any]:
    (base / "inbox").mkdir()
    pictures.fill(base / "staged", count)
    settings = configuration({"watch.settle_ms": str(SETTLE_MS)}, default_outputs=False)
    began = time.monotonic()
    with running(base, settings, interval_s=1.0) as daemon:
        daemon.wait_saved(0)
        ready = time.monotonic() - began
        spent = one_by_one(base, count)
        parent = psutil.Process(daemon.process.pid)
        processes = [parent, *parent.children(recursive=True)]
        held = memory(processes, daemon.health()["workers"])
        wait_for_rest(daemon)
        before = processor_seconds(processes)
        time.sleep(seconds)
        used = processor_seconds(processes) - before
        told = time.monotonic()
        daemon.process.terminate()
        daemon.process.wait(PATIENCE_S)
        stopped = time.monotonic() - told
    return {
        "ready_s": ready,
        "stop_s": stopped,
        "latency_ms": statistics.median(spent),
        "idle_share": used / seconds,
        "memory": held,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with scratch("idle") as base:
        print(json.dumps(run(base, options.pictures, options.seconds)))


if __name__ == "__main__":
    main()
