"""A batch by the local engine, by Ray on one node and by Ray on two, on the same pictures and cores, in turn.

    python bench/cluster.py [--pictures 4800] [--side 512 2048] [--repeats 3] [--cores 0,1] [--no-write]

Each turn runs `maskdrop batch` with the embedded weights and all defaults. Two cores for each engine: one
node of two processors, or two nodes of one. Rates are of the last 80 % of the pictures, so that loading Ray
and the network is not in them; that time is given apart. Processor time is of all processes of a turn, where
a control group can be made (by root). Writes its section into docs/benchmarks.md.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pictures
import report
from measured import machine

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
BEGIN, END = "<!-- bench/cluster.py writes from here -->", "<!-- to here, bench/cluster.py -->"

Figures = dict[str, Any]

ENGINES: dict[str, tuple[int, ...]] = {"local": (), "Ray, one node": (2,), "Ray, two nodes": (1, 1)}
"""Processors of each node; none: no cluster."""

STORE = 2**30
"""Bytes of object store for each processor: about what Ray takes where there are 4 GiB of memory for each."""

_SHARE_OF_START = 0.2
_GROUPS = (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup"))


def turn(engine: str, folder: Path, out: Path) -> Figures:
    """One run in a process of its own, which prints its figures on its last line."""
    command = [sys.executable, __file__, "--turn", engine, "--folder", str(folder), "--out", str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{engine} failed on {folder}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_turn(engine: str, folder: Path, out: Path) -> Figures:
    with _control_group() as used:
        if not ENGINES[engine]:
            return _batch(folder, out, ["--engine", "local"], used)
        from ray_nodes import ray_nodes

        with ray_nodes(*ENGINES[engine], store=STORE) as nodes:
            figures = _batch(folder, out, ["--engine", "ray", "--address", nodes.address, "--verbose"], used)
            return {**figures, "spills": len(nodes.spills())}


def _batch(folder: Path, out: Path, options: list[str], used: "Used") -> Figures:
    """Run a batch, and watch its results as they come."""
    count = len(list(folder.iterdir()))
    first = max(1, int(count * _SHARE_OF_START))
    began = time.monotonic()
    command = [sys.executable, "-m", "maskdrop", "batch", str(folder), str(out), *options]
    with (out.parent / "told").open("w+") as told:
        process = subprocess.Popen(command, stdout=told, stderr=told)
        first_at, work = 0.0, 0.0
        while process.poll() is None:
            if not first_at and len(list(out.glob("*.jpg"))) >= first:
                first_at, work = time.monotonic(), used()
            time.sleep(0.05)
        ended = time.monotonic()
        told.seek(0)
        said = told.read()
    if process.returncode:
        sys.exit(said)
    times = sorted(path.stat().st_mtime for path in out.glob("*.jpg"))
    return {
        "per_second": (count - first) / (times[-1] - times[first - 1]),
        "before_s": first_at - began,
        "whole_s": ended - began,
        "cpu_ms": (used() - work) * 1000 / (count - first) if work else None,
        "operators": operators(said),
    }


def operators(statistics: str) -> dict[str, float]:
    """Seconds of work in each operator, from Ray's own statistics."""
    found: defaultdict[str, float] = defaultdict(float)
    name = None
    for line in statistics.splitlines():
        if heading := re.match(r"Operator \d+ (?:\w+\()?(\w+)\)?", line):
            name = heading[1]
        elif name and (told := re.match(r"\* Remote wall time: .* ([\d.]+)(us|ms|s) total", line)):
            found[name] += float(told[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[told[2]]
            name = None
    return dict(found)


class Used:
    """Seconds of processor time of this process's control group; 0 where there is none."""

    def __init__(self, group: Path | None) -> None:
        self._group = group

    def __call__(self) -> float:
        if self._group is None:
            return 0.0
        if (usage := self._group / "cpuacct.usage").exists():
            return int(usage.read_text()) / 1e9
        return int((self._group / "cpu.stat").read_text().split()[1]) / 1e6


@contextlib.contextmanager
def _control_group() -> Iterator[Used]:
    """A control group, v1 (cpuacct) or v2, for this process and all that it starts."""
    top = next((folder for folder in _GROUPS if (folder / "cgroup.procs").exists()), None)
    group = None
    with contextlib.suppress(OSError):
        if top is not None:
            group = top / f"maskdrop-bench-{os.getpid()}"
            group.mkdir()
            (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield Used(group)
    finally:
        if top is not None and group is not None:
            (top / "cgroup.procs").write_text(str(os.getpid()))
            with contextlib.suppress(OSError):
                group.rmdir()


def same(out: Path, others: Path, folder: Path) -> int:
    """How many pictures have results of both engines that are the same to the last bit."""
    both = ((out / path.name, others / path.name) for path in folder.iterdir())
    return sum(
        one.exists() and other.exists() and one.read_bytes() == other.read_bytes() for one, other in both
    )


@dataclass(frozen=True)
class Race:
    """Runs on pictures of one size.

    Attributes:
        alike: by engine, how many results equal the local engine's to the last bit, and how many pictures
            there were, over all turns.
    """

    side: int
    count: int
    runs: dict[str, list[Figures]]
    alike: dict[str, tuple[int, int]]


def text(races: list[Race], repeats: int) -> str:
    """The section in Markdown."""
    turns = "one turn (`--repeats 1`)" if repeats == 1 else f"medians of {repeats} turns"
    return "\n\n".join(
        [
            "## One machine and a cluster",
            "```sh\npython bench/cluster.py\n```",
            "Photographs of faces by `maskdrop batch` with the embedded weights and all defaults; "
            f"{turns} in which all take part, 2 cores for everybody. "
            f"{machine()}, {_ray()}.",
            *(part for race in races for part in told(race)),
        ]
    )


def told(race: Race) -> list[str]:
    """The section's part about pictures of one size."""
    runs, alike = race.runs, race.alike
    local, rows = runs["local"], []
    for engine, figures in runs.items():
        pairs = list(zip(figures, local, strict=True))
        rate = median(one["per_second"] for one in figures)
        ratio = median(one["per_second"] / base["per_second"] for one, base in pairs)
        more = median(1000 / one["per_second"] - 1000 / base["per_second"] for one, base in pairs)
        work = [one["cpu_ms"] for one in figures if one["cpu_ms"]]
        rows.append(
            [
                engine,
                f"{rate:.1f}",
                f"{ratio:.2f}",
                f"{more:+.1f} ms" if engine != "local" else "",
                f"{median(work):.0f} ms" if work else "-",
                f"{median(one['before_s'] for one in figures):.0f} s",
                f"{sum(one.get('spills', 0) for one in figures)}" if engine != "local" else "",
                "{} of {}".format(*alike[engine]) if engine != "local" else "",
            ]
        )
    head = ["", "pictures a second", "/ local", "engine's overhead a picture", "processor time a picture"]
    head += ["first fifth after", "spills", "bit-equal to local"]
    return [
        f"{race.count} pictures, {race.side} x {race.side}:",
        report.table(head, rows),
        "Share of the work in each operator, by Ray's own statistics (remote wall time):",
        report.table(["", *OPERATORS], [[e, *_shares(f)] for e, f in runs.items() if e != "local"]),
    ]


OPERATORS = ("decode_block", "Labeller", "finish_block")


def _shares(runs: list[Figures]) -> list[str]:
    sums = {name: median(run["operators"].get(name, 0.0) for run in runs) for name in OPERATORS}
    whole = sum(sums.values()) or 1.0
    return [f"{spent / whole:.0%}" for spent in sums.values()]


def _ray() -> str:
    import pyarrow
    import ray

    return f"Ray {ray.__version__}, pyarrow {pyarrow.__version__}"


def race(side: int, count: int, repeats: int) -> Race:
    """Run all engines in turn, ``repeats`` times, on the same pictures."""
    base = Path(tempfile.mkdtemp(prefix="maskdrop-cluster-"))
    runs: dict[str, list[Figures]] = {engine: [] for engine in ENGINES}
    alike: dict[str, tuple[int, int]] = {}
    try:
        folder = pictures.fill(base / "pictures", count, side)
        for number in range(repeats):
            for engine in ENGINES:
                out = base / engine.replace(" ", "-") / "out"
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir(parents=True)
                figures = turn(engine, folder, out)
                runs[engine].append(figures)
                equal, every = alike.get(engine, (0, 0))
                alike[engine] = equal + same(out, base / "local" / "out", folder), every + count
                rate = f"{figures['per_second']:.2f} a second, cpu {figures['cpu_ms']} ms"
                print(f"  {side} px {number + 1}/{repeats} {engine}: {rate}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(base)
    return Race(side, count, runs, alike)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4800, help="in each run; a third of the larger ones")
    parser.add_argument("--side", type=int, nargs="+", default=[512, 2048], help="pixels a side")
    parser.add_argument("--repeats", type=int, default=3, help="turns; medians are of them")
    parser.add_argument("--cores", default="0,1", help="the two cores, as 0,1")
    parser.add_argument("--no-write", action="store_true", help="print, and change no file")
    for name in ("--turn", "--folder", "--out"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    if options.turn:
        print(json.dumps(run_turn(options.turn, Path(options.folder), Path(options.out))))
        return
    races = []
    for side in options.side:
        count = options.pictures if side <= pictures.NATIVE else max(1, options.pictures // 3)
        races.append(race(side, count, options.repeats))
    section = text(races, options.repeats)
    report.tell_section(section, BEGIN, END, write=not options.no_write)


if __name__ == "__main__":
    main()
