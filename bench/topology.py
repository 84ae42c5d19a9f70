"""What a picture costs outside the stages' own work: how many pictures one supervisor can pass on.

    python bench/topology.py [--pictures 3000] [--workers 1 4] [--repeats 3] [--no-write]

The real daemon on photographs of 64 x 64 with a network that is one convolution of a pixel. However fast a
device and however many cores, no more pictures a second go through a daemon than one core can do of its
supervisor's work. Processor time is the kernel's count for each process (proc(5)), from when all workers are
ready and warm to the last picture saved. The same supervisor is then measured with workers that do nothing
(passing.py): it is never idle then, as beside quicker devices and more cores. Writes its section in
docs/benchmarks.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import psutil
import torch
from torch import nn

import pictures
import report
from maskdrop_daemon import STAGES, WARM, configuration, saved_lines, told, wait_and_sample, warm_up
from measured import SCRATCH, Daemon, machine, running, scratch

BEGIN, END = "<!-- bench/topology.py writes from here -->", "<!-- to here: bench/topology.py -->"

SIDE, CLASSES, LARGEST_BATCH = 64, 19, 64

PROCESSES = ("supervisor", *STAGES)

AT_ONCE = (8, 16)
"""Numbers of workers, in each of two stages, that answer at once."""

Figures = dict[str, float]


def cheap_network(path: Path) -> Path:
    """An exported program that scores each pixel by its own three colours."""
    free = {0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)}
    sample = (torch.zeros(2, 3, SIDE, SIDE),)
    torch.export.save(
        torch.export.export(nn.Conv2d(3, CLASSES, 1).eval(), sample, dynamic_shapes=(free,)), path
    )
    return path


def settings(weights: Path, workers: int) -> str:
    changes = {
        "model.weights": f'"{weights}"',
        "model.input_size": str(SIDE),
        "face.locate": '"off"',
        "workers.preprocess": str(workers),
        "workers.save": str(workers),
    }
    return configuration(changes, default_outputs=False)


def processor_seconds(daemon: Daemon) -> Figures:
    """Processor time of each kind of process so far; children that ended are not counted."""
    stages = {worker["pid"]: worker["stage"] for worker in daemon.health()["workers"]}
    spent = dict.fromkeys(PROCESSES, 0.0)
    parent = psutil.Process(daemon.process.pid)
    for process in (parent, *parent.children()):
        name = "supervisor" if process.pid == parent.pid else stages.get(process.pid)
        if name is not None:
            times = process.cpu_times()
            spent[name] += times.user + times.system
    return spent


def run(folder: Path, weights: Path, workers: int) -> Figures:
    """Pictures a second, and milliseconds of processor time per picture for each kind of process."""
    with scratch("topology") as base:
        (base / "inbox").mkdir()
        shutil.copytree(folder, base / "staged" / "batch")
        names = sorted((base / "staged" / "batch").iterdir())
        with running(base, settings(weights, workers), interval_s=1.0) as daemon:
            daemon.wait_saved(0)
            warm_up(daemon, names)
            before = processor_seconds(daemon)
            (base / "staged" / "batch").rename(base / "inbox" / "batch")
            wait_and_sample(daemon, WARM + len(names))
            spent = {name: seconds - before[name] for name, seconds in processor_seconds(daemon).items()}
        rate = len(names) / told(saved_lines(base / "log"), [])["seconds"]
    return {"per_second": rate, **{name: spent[name] / len(names) * 1000 for name in PROCESSES}}


def passed_on(workers: int) -> Figures:
    """Figures of one run of passing.py."""
    command = [sys.executable, str(Path(__file__).with_name("passing.py")), "--workers", str(workers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def text(count: int, repeats: int, found: dict[int, list[Figures]], at_once: dict[int, list[Figures]]) -> str:
    """The section in Markdown."""
    rows = []
    for workers, runs in found.items():
        middle = {name: median(each[name] for each in runs) for name in ("per_second", *PROCESSES)}
        most = 1000 / middle["supervisor"]
        times = [f"{middle[name]:.2f}" for name in PROCESSES]
        rows.append([str(workers), f"{middle['per_second']:.0f}", *times, f"{most:.0f}"])
    quick = []
    for workers, runs in at_once.items():
        spent = median(each["per_picture_ms"] for each in runs)
        quick.append([str(workers), f"{spent:.2f}", f"{1000 / spent:.0f}"])
    head = ["preprocess and save workers, each", "pictures a second", *(f"{name}, ms" for name in PROCESSES)]
    pieces = [
        "## The supervisor's share",
        "```sh\npython bench/topology.py\n```",
        f"{count} photographs of {SIDE} x {SIDE}, dropped at once, and a network that is one convolution of "
        "a pixel: what is left is what a picture costs outside the stages' own work. Milliseconds are "
        "processor time a picture; the last column is what one core can do of the supervisor's. "
        f"Medians of {repeats} turns. {machine()}.",
        report.table([*head, "the supervisor's most, a second"], rows),
        "The same supervisor where it is never idle: its workers answer at once, so it has several reports "
        "to take in each time (`bench/passing.py`).",
        report.table(["workers of each of the two stages", "supervisor, ms", "its most, a second"], quick),
    ]
    return "\n\n".join(pieces) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4], help="of each of the two stages")
    parser.add_argument("--repeats", type=int, default=3, help="turns; medians are of them")
    parser.add_argument("--no-write", action="store_true", help="print, and change no file")
    options = parser.parse_args()
    found: dict[int, list[Figures]] = {workers: [] for workers in options.workers}
    at_once: dict[int, list[Figures]] = {workers: [] for workers in AT_ONCE}
    with tempfile.TemporaryDirectory(prefix="maskdrop-topology-") as name:
        base = Path(name)
        os.environ[SCRATCH] = name
        folder = pictures.fill(base / "pictures", options.pictures, SIDE)
        weights = cheap_network(base / "cheap.pt2")
        for turn in range(options.repeats):
            for workers, runs in found.items():
                runs.append(run(folder, weights, workers))
                told_now = ", ".join(f"{name} {value:.2f}" for name, value in runs[-1].items())
                print(f"  {turn + 1}/{options.repeats} {workers}: {told_now}", file=sys.stderr, flush=True)
            for workers, runs in at_once.items():
                runs.append(passed_on(workers))
    section = text(options.pictures, options.repeats, found, at_once)
    report.tell_section(section, BEGIN, END, write=not options.no_write)


if __name__ == "__main__":
    main()
