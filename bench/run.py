"""`make bench`: all contestants on the same pictures and cores, in turn; medians and ratios.

    python bench/run.py [--pictures N] [--repeats 3] [--only throughput idle …] [--cores 0,1]

Parts: throughput (plain loop, the article's pipeline, maskdrop, limits), full-width (the same with a network
as wide as the public checkpoint's), idle (start, latency, memory, idle share), workers, threads, inferrers,
batch, size, backlog (how throughput grows), disk (how savers and decoders fare on slower disks). Parts that
are not run keep the figures of the last run. Writes docs/benchmarks.json, docs/images/benchmark.png, and the
section between the marks in docs/benchmarks.md. A short look:
--pictures 40 --repeats 1 --only throughput --no-write.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contests
import full_width
import pictures
import report
from contests import Figures, configured
from maskdrop.devices import find_devices
from maskdrop.model.quantised import can_quantise
from measured import SCRATCH, WEIGHTS, machine

CPU_PICTURES, GPU_PICTURES = 200, 4_000
"""Pictures in each run, unless told otherwise: some seconds of maskdrop's work."""

MOST_ON_GPU = 4
"""The most inference workers that are tried on GPUs."""

Part = Callable[[Path, argparse.Namespace], dict[str, Any]]


def on_gpu() -> bool:
    return find_devices("auto")[0] != "cpu"


def throughput(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    folder = pictures.fill(base / "pictures", options.pictures)
    everyone = (*contests.ALL, *([contests.INT8] if can_quantise() else []))
    runs = contests.in_fresh_folders(everyone, folder, base / "results", options.repeats)
    names = [each.name for each in contests.SAME_OUTPUTS if each.name in runs]
    alike = {name: least_alike(name, folder, base / "results", options.repeats) for name in names}
    return {"pictures": options.pictures, "runs": runs, "alike": alike}


def least_alike(name: str, folder: Path, results: Path, repeats: int) -> dict[str, float]:
    """Shares of a contestant's pixels that are like the plain loop's: the least of all turns."""
    found = []
    for turn in range(repeats):
        plain, theirs = (
            contests.results_of(each, contests.turn_of(results, turn)) for each in (contests.PLAIN.name, name)
        )
        found.append(contests.alike(plain, theirs, folder))
    return {key: min(shares[key] for shares in found) for key in found[0]}


def wide_throughput(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The same, where the network takes three times as long for each picture."""
    file = base / "full-width.safetensors"
    full_width.write(file)
    before = os.environ.get(WEIGHTS)
    os.environ[WEIGHTS] = str(file)
    try:
        return throughput(base, options)
    finally:
        del os.environ[WEIGHTS]
        if before is not None:
            os.environ[WEIGHTS] = before


def idle(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run the plain loop too: latency is compared with its time per picture when warm."""
    folder = pictures.fill(base / "pictures", min(40, options.pictures))
    daemon = contests.Contestant("idle", ("idle.py", "--pictures", str(min(20, options.pictures))))
    turns = []
    for _ in range(options.repeats):
        plain = contests.run(contests.PLAIN, folder, base / "plain")
        figures = contests.run(daemon, folder, base / "plain")
        turns.append({**figures, "plain_ms": 1000 / plain["per_second"]})
        print(
            f"  idle: {figures['latency_ms']:.0f} ms, plain {turns[-1]['plain_ms']:.0f} ms", file=sys.stderr
        )
    return {"runs": turns}


def workers(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    most = min(256, 2 * len(os.sched_getaffinity(0)))  # no more may be configured
    variants = {f"{n}": configured(workers__preprocess=n, workers__save=n) for n in contests.doublings(most)}
    return grown(base, options, variants)


def threads(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    most = len(os.sched_getaffinity(0))
    return grown(
        base, options, {f"{n}": configured(workers__inference_threads=n) for n in contests.doublings(most)}
    )


def inferrers(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    most = MOST_ON_GPU if on_gpu() else min(64, cores)  # no more may be configured
    return grown(base, options, {f"{n}": configured(workers__infer=n) for n in contests.doublings(most)})


def batch(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    sizes = (1, 8, 16, 32, 64, 128) if on_gpu() else (1, 2, 4, 8, 16)
    return grown(base, options, {f"{n}": configured(workers__max_batch=n) for n in sizes})


def grown(
    base: Path, options: argparse.Namespace, variants: dict[str, contests.Contestant]
) -> dict[str, Any]:
    """Throughput with all defaults, and of variants, in turn on the same pictures."""
    folder = pictures.fill(base / "pictures", options.pictures)
    everyone = [contests.MASKDROP, *variants.values()]
    runs = contests.interleaved(everyone, folder, base / "results", options.repeats)
    named = {label: runs[contestant.name] for label, contestant in variants.items()}
    return {"runs": {"auto": runs[contests.MASKDROP.name], **named}}


def size(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One size after the other, with all contestants in turn at each, and with fewer of the larger pictures.
    Also with maskdrop's own outputs, at the pictures' own size, where decoders and savers have most to do:
    with as many as it chooses, and with one of each per core."""
    cores = min(256, len(os.sched_getaffinity(0)))
    many = contests.Contestant(
        f"own outputs, {cores} + {cores} workers",
        (
            *contests.DEFAULTS.arguments,
            "--set",
            f"workers.preprocess={cores}",
            "--set",
            f"workers.save={cores}",
        ),
    )
    found: dict[str, dict[str, list[Figures]]] = {}
    for side, count in (
        (512, options.pictures),
        (2048, options.pictures // 2),
        (6000, options.pictures // 4),
    ):
        folder = pictures.fill(base / f"{side}", max(4, count), side)
        everyone = [contests.PLAIN, contests.ARTICLE_ONE, contests.MASKDROP, contests.DEFAULTS, many]
        found[str(side)] = contests.interleaved(everyone, folder, base / "results", options.repeats)
    return {"sizes": found}


def backlog(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One number of pictures after the other, not in turn as in other parts; large ones get fewer turns."""
    found: dict[str, list[Figures]] = {}
    for count in [n for n in (100, 1_000, 10_000) if n <= options.backlog]:
        folder = pictures.fill(base / f"{count}", count)
        repeats = max(1, min(options.repeats, 2_000 // count))
        runs = contests.interleaved([contests.MASKDROP], folder, base / "results", repeats)
        found[str(count)] = runs[contests.MASKDROP.name]
    return {"runs": found}


def disk(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """By how long a sync takes, one time after the other: with as many savers as maskdrop chooses, and with
    fixed numbers. The same for reads and decoders, with more pictures: maskdrop adds decoders only while
    pictures go through."""
    few, many = (pictures.fill(base / f"{n}", n * options.pictures) for n in (1, 4))
    syncs = {str(ms): slower("save", "--sync-ms", ms, few, options.repeats) for ms in (0, 2, 5, 20)}
    reads = {str(ms): slower("preprocess", "--read-ms", ms, many, options.repeats) for ms in (2, 5, 20)}
    return {"syncs": syncs, "reads": reads}


def slower(stage: str, option: str, ms: int, folder: Path, repeats: int) -> dict[str, list[Figures]]:
    """With one option's milliseconds: as many workers of a stage as maskdrop chooses, and fixed numbers."""
    cores = len(os.sched_getaffinity(0))
    numbers = sorted({min(256, n) for n in (1, cores, 4 * cores, 8 * cores)})  # no more may be configured
    arguments = (*contests.MASKDROP.arguments, option, f"{ms}")
    everyone = [contests.Contestant("auto", arguments)]
    for number in numbers:
        fixed = (*arguments, "--set", f"workers.{stage}={number}")
        everyone.append(contests.Contestant(f"{number}", fixed))
    return contests.interleaved(everyone, folder, folder.parent / "results", repeats)


PARTS: dict[str, Part] = {
    "throughput": throughput,
    "full-width": wide_throughput,
    "idle": idle,
    "workers": workers,
    "threads": threads,
    "inferrers": inferrers,
    "batch": batch,
    "size": size,
    "backlog": backlog,
    "disk": disk,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, help="512 x 512 pictures in each run")
    parser.add_argument("--repeats", type=int, default=3, help="turns; medians are of them")
    parser.add_argument("--backlog", type=int, default=10_000, help="largest backlog")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--cores", help="cores for everybody, as 0,1,2; default: all that may be used")
    parser.add_argument("--no-write", action="store_true", help="print, and change no file")
    options = parser.parse_args()
    options.pictures = options.pictures or (GPU_PICTURES if on_gpu() else CPU_PICTURES)
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    pictures.faces()
    result: dict[str, Any] = {} if options.no_write else report.last()
    with tempfile.TemporaryDirectory(prefix="maskdrop-run-") as base:
        os.environ[SCRATCH] = base
        for name in options.only:
            print(f"{name}:", file=sys.stderr, flush=True)
            (Path(base) / name).mkdir()
            part = PARTS[name](Path(base) / name, options)
            cores = len(os.sched_getaffinity(0))
            result[name] = {**part, "machine": machine(), "cores": cores, "repeats": options.repeats}
            if not options.no_write:
                report.keep(result)
    print(report.text(result))
    if not options.no_write:
        report.write(result)
        print(f"written: {report.DATA}, {report.PAGE}, {report.PLOT}", file=sys.stderr)


if __name__ == "__main__":
    main()
