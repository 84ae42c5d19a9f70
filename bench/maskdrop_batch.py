"""`maskdrop batch` on a folder of pictures, measured by what it logs.

    python bench/maskdrop_batch.py PICTURES RESULTS [--input-size 512]

Everything is at its default but the outputs: 512 x 512 at JPEG quality 75, as the article writes them.
`seconds` runs from when all workers are ready to the last picture saved: the daemon and the article's
pipeline are up before their clocks start, too; `ahead` is how many pictures were taken before, to be decoded
while the network was loaded; `whole_s` is the command's time from start to end. Memory is the proportional
set size of all its processes together, the largest seen. Prints JSON.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from maskdrop_daemon import configuration
from measured import scratch

SAMPLE_S = 0.25

_READY = re.compile(r"^(\S+) INFO ready: ", re.MULTILINE)
_SAVED = re.compile(r"^(\S+) INFO saved .* total (\d+)$", re.MULTILINE)


def run(pictures: Path, target: Path, input_size: int = 512) -> dict[str, Any]:
    """Figures of one run; pictures that are done in the target already are skipped.

    Raises:
        SystemExit: the batch failed.
    """
    with scratch("bench") as base:
        config, log, report = (base / name for name in ("maskdrop.toml", "log", "report.json"))
        config.write_text(configuration({"model.input_size": str(input_size)}, default_outputs=False))
        command = [sys.executable, "-m", "maskdrop", "batch", str(pictures), str(target), "--verbose"]
        command += ["--config", str(config), "--report", str(report)]
        began = time.monotonic()
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        most = watched(process)
        whole, said = time.monotonic() - began, log.read_text()
        if process.returncode:
            sys.exit(f"the batch ended with {process.returncode}:\n{said[-3000:]}")
        counts = json.loads(report.read_text())
    return {
        "pictures": counts["saved"],
        "skipped": counts["done_before"],
        "seconds": span(said) if counts["saved"] else whole,
        "ahead": taken_before_ready(said),
        "whole_s": whole,
        **most,
    }


def watched(process: "subprocess.Popen[bytes]") -> dict[str, float]:
    """Wait for the end; the largest memory meanwhile in MiB, of all processes and of the parent alone."""
    most = {"all_mib": 0.0, "parent_mib": 0.0}
    while process.poll() is None:
        time.sleep(SAMPLE_S)
        most["parent_mib"] = max(most["parent_mib"], proportional_mib(process.pid))
        most["all_mib"] = max(most["all_mib"], all_mib(process.pid))
    process.wait()
    return most


def all_mib(pid: int) -> float:
    """Memory of a process and all that it has started, in MiB."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return 0.0
    return proportional_mib(pid) + sum(proportional_mib(child.pid) for child in children)


def proportional_mib(pid: int) -> float:
    """PSS in MiB (proc(5), smaps_rollup): memory that several processes share is divided among them."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0  # it has just ended
    found = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def span(log: str) -> float:
    """Seconds to the last picture saved, from when all workers were ready and the first was taken."""
    ends = [seconds_of(when) for when, _ in _SAVED.findall(log)]
    return max(ends) - max(ready_at(log), min(taken_at(log)))


def taken_before_ready(log: str) -> int:
    """Pictures that were taken before all workers were ready."""
    ready = ready_at(log)
    return sum(taken < ready for taken in taken_at(log))


def ready_at(log: str) -> float:
    return min(seconds_of(when) for when in _READY.findall(log))


def taken_at(log: str) -> list[float]:
    return [seconds_of(when) - int(total) / 1000 for when, total in _SAVED.findall(log)]


def seconds_of(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--input-size", type=int, default=512)
    options = parser.parse_args()
    print(json.dumps(run(options.pictures, options.results, options.input_size)))


if __name__ == "__main__":
    main()
