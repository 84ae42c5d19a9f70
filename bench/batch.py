"""How fast `maskdrop batch` is, beside the article's pipeline and the daemon, and how much memory it takes.

    python bench/batch.py [--pictures 100] [--repeats 3] [--entries 1000 10000] [--cores 0,1] [--no-write]

Speed: the same photographs of faces for all, in turn; medians, and medians of ratios. Memory: for each number
of entries, a batch on as many small pictures, by a network that reads 64 x 64 pixels, since only the number
counts; then the same command again, which skips them all. Writes its section in docs/benchmarks.md.
A short look: --pictures 20 --repeats 1 --entries 50 100 --no-write.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import contests
import maskdrop_batch
import pictures
import report
from contests import Contestant, Figures, middle, ratio
from measured import SCRATCH, machine

BEGIN, END = "<!-- bench/batch.py writes from here -->", "<!-- to here: bench/batch.py -->"

BATCH = Contestant("maskdrop batch", ("maskdrop_batch.py", "PICTURES", "RESULTS"))

SIDE, SMALL_INPUT = 64, 64


def speed(base: Path, count: int, repeats: int) -> dict[str, list[Figures]]:
    """Each turn's batch gets an empty folder, or it would skip what is done."""
    folder = pictures.fill(base / "pictures", count)
    everyone = (contests.ARTICLE, contests.ARTICLE_ONE, contests.MASKDROP, BATCH)
    return contests.in_fresh_folders(everyone, folder, base / "results", repeats)


def memory(base: Path, counts: list[int]) -> list[tuple[int, Figures, Figures]]:
    """For each number of pictures, a first run and one that skips everything."""
    rows = []
    for count in counts:
        folder = pictures.fill(base / str(count), count, SIDE)
        runs = [maskdrop_batch.run(folder, base / f"out-{count}", SMALL_INPUT) for _ in range(2)]
        if runs[1]["skipped"] != count:
            sys.exit(f"{runs[1]['skipped']} of {count} were skipped the second time")
        rows.append((count, runs[0], runs[1]))
        print(f"  {count} entries: {runs[0]['all_mib']:.0f} MiB", file=sys.stderr, flush=True)
    return rows


def text(
    count: int, repeats: int, runs: dict[str, list[Figures]], rows: list[tuple[int, Figures, Figures]]
) -> str:
    """The section in Markdown."""
    batch = runs[BATCH.name]
    speeds = [
        [name, f"{middle(each, 'per_second'):.1f}", f"{ratio(batch, each):.2f}"]
        for name, each in runs.items()
    ]
    whole = f"{middle(batch, 'whole_s') - middle(batch, 'seconds'):.1f}"
    ahead = middle(batch, "ahead")
    memories = [
        [
            f"{entries:,}",
            f"{first['all_mib']:.0f}",
            f"{first['parent_mib']:.0f}",
            f"{again['all_mib']:.0f}",
            f"{entries / again['whole_s']:.0f}",
        ]
        for entries, first, again in rows
    ]
    cores = len(os.sched_getaffinity(0))
    pieces = [
        "## Batch",
        "```sh\npython bench/batch.py\n```",
        f"{count} photographs of faces, 512 x 512, for everybody in turn, 512 x 512 results; {repeats} "
        f"turns, {cores} cores; medians, and medians of ratios. {machine()}.",
        report.table(["", "pictures a second", "maskdrop batch / this"], speeds),
        "Clocks run from the first picture taken, or when all processes are up, to the last one saved. The "
        f"daemon has done a few before; a batch has {ahead:.0f} of its own in its slots by then, decoded "
        "while the network was loaded, and none labelled. Starting and ending take `maskdrop batch` "
        f"{whole} s more.",
        f"Memory on small pictures ({SIDE} x {SIDE}, read by the network at {SMALL_INPUT} x {SMALL_INPUT}): "
        "MiB of all processes together, shared memory counted once (PSS), the largest seen; and the same "
        "command again, which finds that all is done:",
        report.table(
            ["pictures", "all", "parent alone", "all, again", "skipped a second, with start"], memories
        ),
    ]
    return "\n\n".join(pieces) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200, help="photographs in each run")
    parser.add_argument("--repeats", type=int, default=3, help="turns; medians are of them")
    parser.add_argument("--entries", type=int, nargs="+", default=[1_000, 10_000], help="pictures for memory")
    parser.add_argument("--cores", help="cores for everybody, as 0,1,2; default: all that may be used")
    parser.add_argument("--no-write", action="store_true", help="print, and change no file")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    with tempfile.TemporaryDirectory(prefix="maskdrop-batch-") as base:
        os.environ[SCRATCH] = base
        runs = speed(Path(base), options.pictures, options.repeats)
        rows = memory(Path(base), options.entries)
    section = text(options.pictures, options.repeats, runs, rows)
    report.tell_section(section, BEGIN, END, write=not options.no_write)


if __name__ == "__main__":
    main()
