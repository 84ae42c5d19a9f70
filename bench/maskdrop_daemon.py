"""The real daemon on a folder of pictures, measured by what its log says.

    python bench/maskdrop_daemon.py PICTURES RESULTS [--set workers.save=2 …] [--default-outputs]
        [--sync-ms 20] [--read-ms 20]

It starts on an empty inbox, saves a few pictures to be warm, and then gets all of them at once by one
rename. The clock runs from the first picture it takes to the last one that is saved: result synced,
original archived. Everything is at its default but what --set says, and the outputs: 512 x 512 at
JPEG quality 75, as the article writes them, or with --default-outputs as the daemon does by default.
With --sync-ms each fsync, and with --read-ms each read of a picture in the inbox, takes that much longer.
Prints JSON.
"""

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

import slow_disk
from measured import PATIENCE_S, SAME_OUTPUTS, Daemon, running, scratch

WARM = 8
POLL_S = 0.2
STAGES = ("preprocess", "infer", "save")

ENDS = 0.1
"""Share of a run at its beginning, and again at its end, in which stages fill and empty."""


@dataclass(frozen=True)
class Sample:
    """What is observed while pictures are worked on.

    Attributes:
        at: seconds of a monotonic clock.
        idle_s: seconds for which the cores that may be used have been idle since the machine's start.
        waiting: pictures in each queue.
    """

    at: float
    idle_s: float
    waiting: dict[str, int]


def configuration(changes: dict[str, str], default_outputs: bool) -> str:
    """TOML of the daemon's settings, from ``section.key`` to a value in TOML."""
    wanted = {"log.format": '"json"', "watch.settle_ms": "0"}
    if not default_outputs:
        wanted |= {f"save.{key}": in_toml(value) for key, value in SAME_OUTPUTS.items()}
    sections: dict[str, list[str]] = {}
    for name, value in {**wanted, **changes}.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, []).append(f"{key} = {value}")
    return "\n".join(f"[{section}]\n" + "\n".join(lines) for section, lines in sections.items())


def in_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one run; the results go to the target folder."""
    changes = dict(change.split("=", 1) for change in options.set)
    with scratch("bench") as base, scratch("library") as library:
        (base / "inbox").mkdir()
        if options.sync_ms or options.read_ms:
            slow = slow_disk.environment(library, options.sync_ms, options.read_ms, base / "inbox")
            os.environ.update(slow)
        shutil.copytree(options.pictures, base / "staged" / "batch")
        began = time.monotonic()
        with running(base, configuration(changes, options.default_outputs), interval_s=POLL_S) as daemon:
            daemon.wait_saved(0)
            ready = time.monotonic() - began
            names = sorted((base / "staged" / "batch").iterdir())
            warm_up(daemon, names)
            (base / "staged" / "batch").rename(base / "inbox" / "batch")
            samples = wait_and_sample(daemon, WARM + len(names))
        figures = told(saved_lines(base / "log"), samples)
        shutil.copytree(base / "outbox" / "batch", options.results, dirs_exist_ok=True)
    return {**figures, "ready_s": ready}


def warm_up(daemon: Daemon, paths: list[Path]) -> None:
    """Make the daemon save `WARM` pictures."""
    for number in range(WARM):
        copy = daemon.base / f"warm-{number}.jpg"
        shutil.copyfile(paths[number % len(paths)], copy)
        copy.rename(daemon.base / "inbox" / copy.name)
    daemon.wait_saved(WARM)


def wait_and_sample(daemon: Daemon, count: int) -> list[Sample]:
    """Wait for ``count`` saved pictures, and take samples meanwhile."""
    samples: list[Sample] = []
    deadline = time.monotonic() + PATIENCE_S + count
    while time.monotonic() < deadline:
        if daemon.process.poll() is not None:
            break
        health = daemon.health()
        if health["counts"]["saved"] >= count:
            return samples
        samples.append(Sample(time.monotonic(), idle_seconds(), health.get("queues", {})))
        time.sleep(POLL_S)
    sys.exit(f"{count} results did not come:\n{(daemon.base / 'log').read_text()[-3000:]}")


def idle_seconds() -> float:
    each = psutil.cpu_times(percpu=True)
    return float(sum(each[core].idle + each[core].iowait for core in os.sched_getaffinity(0)))


def idle_share(samples: list[Sample]) -> float | None:
    """Idle share of the cores' time, between the ends of a run; None if that was too short to say."""
    left_out = round(ENDS * len(samples))
    inner = samples[left_out : len(samples) - left_out]
    if len(inner) < 2:
        return None
    cores = len(os.sched_getaffinity(0))
    return (inner[-1].idle_s - inner[0].idle_s) / (inner[-1].at - inner[0].at) / cores


def saved_lines(log: Path) -> list[dict[str, Any]]:
    """Log entries of saved pictures of the batch."""
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [e for e in entries if e.get("result") == "saved" and e["picture"].startswith("batch/")]


def told(saved: list[dict[str, Any]], samples: list[Sample]) -> dict[str, Any]:
    """Pictures, seconds, the cores' idle share, and mean milliseconds of each stage and in each queue.

    A queue's time is its mean length over its throughput (Little's law); pictures that an
    inference worker holds beyond the batch it computes, and messages on their way, are "in hand".
    """
    ends = [datetime.fromisoformat(entry["time"]).timestamp() for entry in saved]
    begins = [end - entry["ms"]["total"] / 1000 for end, entry in zip(ends, saved, strict=True)]
    seconds, count = max(ends) - min(begins), len(saved)
    stages = {stage: sum(entry["ms"].get(stage, 0.0) for entry in saved) / count for stage in STAGES}
    total = sum(entry["ms"]["total"] for entry in saved) / count
    queues = {}
    for stage in STAGES:
        mean = sum(sample.waiting.get(stage, 0) for sample in samples) / max(1, len(samples))
        queues[stage] = mean * seconds / count * 1000
    queues["in hand"] = max(0.0, total - sum(stages.values()) - sum(queues.values()))
    times = {"stages": stages, "queues": queues, "total_ms": total}
    return {"pictures": count, "seconds": seconds, "idle_share": idle_share(samples), **times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--default-outputs", action="store_true")
    parser.add_argument("--sync-ms", type=float, default=0.0, metavar="MS")
    parser.add_argument("--read-ms", type=float, default=0.0, metavar="MS")
    print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
    main()
