"""How the daemon starts on a full inbox: time to the first result, order, and the supervisor's memory.

    python bench/backlog.py [--counts 1000 10000 100000] [--results 40]

Each count gets a fresh inbox of small drawn pictures in 100 sub-folders with shuffled times,
and the real daemon with the embedded weights. Prints a Markdown table.
"""

import argparse
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import PIL
import psutil
import torch
from PIL import Image, ImageDraw

from maskdrop import __version__
from maskdrop.health import HealthUnreadable, read_health

FOLDERS = 100
YEAR_2020_S = 1_577_836_800
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Figures:
    """One run. Seconds from the process's start to ready, from ready to the first result; MiB
    resident in the supervisor at the first result and at most until the last that was awaited."""

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
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB; "
        f"Python {platform.python_version()}, torch {torch.__version__}, Pillow {PIL.__version__}, "
        f"maskdrop {__version__}\n"
    )
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
    config = base / "maskdrop.toml"
    config.write_text("[health]\ninterval_s = 0.1\n")
    folders = ["--inbox", str(base / "inbox"), "--outbox", str(base / "outbox")]
    command = [sys.executable, "-m", "maskdrop", "run", "--config", str(config), *folders]
    began = time.monotonic()
    with (base / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        process = psutil.Process(daemon.pid)
        wait_saved(base, daemon, 0)
        ready = time.monotonic()
        wait_saved(base, daemon, 1)
        first, resident = time.monotonic(), process.memory_info().rss
        most = wait_saved(base, daemon, results)
    finally:
        daemon.terminate()
        daemon.wait()
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


def wait_saved(base: Path, daemon: "subprocess.Popen[bytes]", count: int) -> int:
    """Wait until it runs and has saved so many; the supervisor's largest resident size meanwhile."""
    most, deadline = 0, time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if daemon.poll() is not None:
            sys.exit(f"the daemon ended:\n{(base / 'log').read_text()}")
        most = max(most, psutil.Process(daemon.pid).memory_info().rss)
        try:
            health = read_health(base / "health.json")
        except HealthUnreadable:
            health = {"state": "none", "counts": {"saved": 0}}
        if health["state"] == "running" and health["counts"]["saved"] >= count:
            return most
        time.sleep(0.02)
    sys.exit(f"{count} results did not come:\n{(base / 'log').read_text()[-3000:]}")


if __name__ == "__main__":
    main()
