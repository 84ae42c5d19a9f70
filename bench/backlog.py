"""How the daemon starts on a full inbox: time to the first result, order, and the supervisor's memory.

    python bench/backlog.py [--counts 1000 10000 100000] [--results 40]

Each count gets a fresh inbox of small drawn pictures in 100 sub-folders with shuffled times,
and the real daemon with the embedded weights. Prints a Markdown table.
"""

import argparse
import os
import random
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image, ImageDraw

from measured import machine, running

FOLDERS = 100
YEAR_2020_S = 1_577_836_800


@dataclass(frozen=True)
class Figures:
    """One run. Seconds from the process's start to ready, and from ready to the first result; MiB
    resident in the supervisor at the first result, and the most until the last awaited result."""

    count: int
    ready_s: float
    first_s: float
    resident_mib: float
    most_mib: float
    in_order: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--results", type=int, default=40, help="results to wait for in each run")
    arguments = parser.parse_args()
    print(machine() + "\n")
    print("| files | ready | ready to first result | supervisor resident | at most | oldest first |")
    print("|---|---|---|---|---|---|", flush=True)
    for count in arguments.counts:
        base = Path(tempfile.mkdtemp(prefix="maskdrop-backlog-"))
        try:
            f = measure(base, count, arguments.results)
        finally:
            shutil.rmtree(base)
        print(
            f"| {f.count:,} | {f.ready_s:.1f} s | {f.first_s:.2f} s | {f.resident_mib:.1f} MiB | "
            f"{f.most_mib:.1f} MiB | {'yes' if f.in_order else 'NO'} |",
            flush=True,
        )


def measure(base: Path, count: int, results: int) -> Figures:
    """Fill an inbox, start the daemon, watch it until it has saved some pictures, end it."""
    names = fill(base / "inbox", count)
    began = time.monotonic()
    with running(base) as daemon:
        process = psutil.Process(daemon.process.pid)
        daemon.wait_saved(0)
        ready = time.monotonic()
        daemon.wait_saved(1)
        first, resident = time.monotonic(), process.memory_info().rss
        most = daemon.wait_saved(results)
    done = {str(path.relative_to(base / "archive")) for path in (base / "archive").rglob("*.jpg")}
    in_order = done == set(names[: len(done)])
    return Figures(count, ready - began, first - ready, resident / 2**20, most / 2**20, in_order)


def fill(inbox: Path, count: int) -> list[str]:
    """Small pictures with shuffled times; their paths in the inbox, oldest first."""
    picture = Image.new("RGB", (64, 64), (200, 160, 130))
    ImageDraw.Draw(picture).ellipse((16, 8, 48, 56), fill=(230, 190, 160))
    for folder in range(FOLDERS):
        (inbox / f"{folder:02}").mkdir(parents=True)
    picture.save(inbox.parent / "picture.jpg")
    content = (inbox.parent / "picture.jpg").read_bytes()
    order = list(range(count))
    random.Random(count).shuffle(order)
    names = [f"{number % FOLDERS:02}/{number:06}.jpg" for number in order]
    for age, name in enumerate(names):
        (inbox / name).write_bytes(content)
        os.utime(inbox / name, (YEAR_2020_S + age, YEAR_2020_S + age))
    return names


if __name__ == "__main__":
    main()
