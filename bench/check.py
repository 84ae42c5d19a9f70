"""What finds broken pictures, and how fast: maskdrop check, opening headers, ImageMagick, jpeginfo.

    python bench/check.py FOLDER [--repeats 3] [--many 100000]

FOLDER holds whole JPEG files, for timing. The broken files are those of tests/broken_files.py.
With --many, that many more files (links to a small picture or an empty file) are checked, and memory
is measured.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from maskdrop_batch import SAMPLE_S, all_mib
from measured import machine

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from broken_files import broken_files
from drawing import face_bytes

Finder = Callable[[Path], set[str]]

BATCH = 100
"""Files named in one call of the other tools."""


def maskdrop_check(folder: Path, processes: int | None = None) -> set[str]:
    """Names of the files that ``maskdrop check`` reports."""
    command = [sys.executable, "-m", "maskdrop", "check", str(folder), "--format", "json"]
    command += ["--processes", str(processes)] if processes else []
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return {entry["path"] for entry in report["findings"]}


def headers(folder: Path) -> set[str]:
    """Names of the files that ``PIL.Image.open``, which reads no pixel, refuses."""
    refused = set()
    for path in folder.iterdir():
        try:
            with Image.open(path):
                pass
        except Exception:
            refused.add(path.name)
    return refused


def each_alone(*command: str) -> Finder:
    """Finds the files on which a command fails, called for one file at a time."""

    def find(folder: Path) -> set[str]:
        def fails(path: Path) -> bool:
            return subprocess.run([*command, str(path)], capture_output=True, check=False).returncode != 0

        return {path.name for path in folder.iterdir() if fails(path)}

    return find


def in_batches(*command: str) -> Finder:
    """Runs a command on all files, many per call: for timing on whole files, so it finds none."""

    def find(folder: Path) -> set[str]:
        paths = [str(path) for path in folder.iterdir()]
        for start in range(0, len(paths), BATCH):
            subprocess.run([*command, *paths[start : start + BATCH]], capture_output=True, check=False)
        return set()

    return find


IDENTIFY = ("identify", "-regard-warnings")
PING = ("identify", "-ping")
JPEGINFO = ("jpeginfo", "--check", "--quiet")

FINDERS: dict[str, tuple[Finder, Finder]] = {
    "maskdrop check": (maskdrop_check, maskdrop_check),
    "maskdrop check --processes 1": (maskdrop_check, lambda folder: maskdrop_check(folder, 1)),
    "PIL.Image.open": (headers, headers),
    "identify -ping": (each_alone(*PING), in_batches(*PING)),
    "identify -regard-warnings": (each_alone(*IDENTIFY), in_batches(*IDENTIFY)),
    "jpeginfo --check": (each_alone(*JPEGINFO), in_batches(*JPEGINFO)),
}


def what_each_finds(base: Path) -> None:
    broken, whole = base / "broken", base / "whole"
    broken.mkdir()
    whole.mkdir()
    files = broken_files()
    for name, content in files.items():
        (broken / name).write_bytes(content)
    for index, form in enumerate(("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")):
        (whole / f"whole.{form.lower()}").write_bytes(face_bytes(index, form))
    chosen = {name: one for name, (one, _) in FINDERS.items() if "processes" not in name}
    found = {name: find(broken) for name, find in chosen.items()}
    wrong = {name: find(whole) for name, find in chosen.items()}
    print("| broken file | " + " | ".join(f"`{name}`" for name in chosen) + " |")
    print("|---|" + "---|" * len(chosen))
    for file in files:
        print(f"| `{file}` | " + " | ".join("found" if file in found[n] else "-" for n in chosen) + " |")
    print(f"| **found of {len(files)}** | " + " | ".join(f"**{len(found[n])}**" for n in chosen) + " |")
    print("| whole files of 7 formats refused | " + " | ".join(f"{len(wrong[n])}" for n in chosen) + " |\n")


def how_fast(folder: Path, repeats: int) -> None:
    count = len(list(folder.iterdir()))
    times: dict[str, list[float]] = {name: [] for name in FINDERS}
    work: dict[str, list[float]] = {name: [] for name in FINDERS}
    for _ in range(repeats):
        for name, (_, find) in FINDERS.items():
            began, used = time.monotonic(), processor_seconds()
            find(folder)
            times[name].append(time.monotonic() - began)
            work[name].append(processor_seconds() - used)
    print(f"| on {count} photographs, median of {repeats} | seconds | files a second | CPU ms a file |")
    print("|---|---|---|---|")
    for name, seconds in times.items():
        median, used = statistics.median(seconds), statistics.median(work[name])
        print(f"| `{name}` | {median:.1f} | {count / median:.0f} | {used * 1000 / count:.2f} |", flush=True)
    print()


def processor_seconds() -> float:
    """Processor time of this process, of the children it has waited for, and of their children."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def many(base: Path, count: int) -> None:
    """Time and memory of the command itself on a great many files, every tenth one broken."""
    top = base / "many"
    top.mkdir()
    (top / "whole").write_bytes(face_bytes(1, "JPEG", 64, 64))
    (top / "empty").write_bytes(b"")
    for index in range(count):
        folder = top / f"{index % 100:02}"
        folder.mkdir(exist_ok=True)
        number = index // 20_000  # ext4 allows 65,000 names of one file
        for kind in ("whole", "empty"):
            if index % 20_000 == 0:
                shutil.copy(top / kind, base / f"{kind}-{number}")
        os.link(base / f"{'empty' if index % 10 == 0 else 'whole'}-{number}", folder / f"{index:06}.jpg")
    (top / "whole").unlink()
    (top / "empty").unlink()
    command = [sys.executable, "-m", "maskdrop", "check", str(top), "--output", str(base / "report")]
    began, largest = time.monotonic(), 0.0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            largest = max(largest, all_mib(process.pid))
            time.sleep(SAMPLE_S)
        assert process.stderr is not None
        told = process.stderr.read().strip()
    print(
        f"{told}; in all {time.monotonic() - began:.0f} s, {largest:.0f} MiB at most (PSS of all processes)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="whole JPEG files, to be timed on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--many", type=int, default=0, help="check so many files too, for memory")
    options = parser.parse_args()
    missing = [tool for tool in ("identify", "jpeginfo") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; apt-get install imagemagick jpeginfo")
    print(machine() + "\n")
    base = Path(tempfile.mkdtemp(prefix="maskdrop-bench-check-"))
    try:
        what_each_finds(base)
        how_fast(options.folder, options.repeats)
        if options.many:
            many(base, options.many)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
