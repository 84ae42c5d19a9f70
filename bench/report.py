"""Benchmarks' figures as JSON, as a section of docs/benchmarks.md, and as a plot.

    python bench/report.py

makes the section and the plot again from docs/benchmarks.json; nothing is measured.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from statistics import median

from contests import ALL_LIMITS, ARTICLE, ARTICLE_ONE, FP32, FP32_LIMITS, LIMITS, Figures, middle, ratio
from plots import Result, plot

DOCS = Path(__file__).parent.parent / "docs"
DATA, PAGE, PLOT = DOCS / "benchmarks.json", DOCS / "benchmarks.md", DOCS / "images" / "benchmark.png"

BEGIN, END = "<!-- make bench writes from here -->", "<!-- to here -->"

ALT = (
    "Pictures a second; milliseconds of a picture in each stage and queue; pictures a second by size, and of "
    "maskdrop by its settings and by backlog"
)
"""What the plot shows, for those who can't see it."""

GROWTH = {
    "workers": "preprocess and save workers, each",
    "threads": "threads of the inference worker",
    "inferrers": "inference workers",
    "batch": "largest batch",
    "backlog": "pictures dropped at once",
}


def last() -> Result:
    """The figures of the last run; none where there was none."""
    result: Result = json.loads(DATA.read_text()) if DATA.exists() else {}
    return result


def keep(result: Result) -> None:
    DATA.write_text(json.dumps(result, indent=1) + "\n")


def write(result: Result) -> None:
    """Write all three files; in the page, text outside the marks stays."""
    keep(result)
    put_section(text(result), BEGIN, END)
    plot(result, GROWTH, PLOT)


def put_section(section: str, begin: str, end: str) -> None:
    """Replace what is between two marks in the page; without marks, add it as the first section."""
    page, marked = PAGE.read_text(), f"{begin}\n{section}\n{end}"
    if begin in page:
        page = page[: page.index(begin)] + marked + page[page.index(end) + len(end) :]
    else:
        title, first, rest = re.split(r"(\n(?:<!-- |## ))", page, maxsplit=1)
        page = f"{title}\n{marked}\n{first}{rest}"
    PAGE.write_text(page)


def tell_section(section: str, begin: str, end: str, write: bool) -> None:
    """Print a section, and put it into the page if ``write`` is set."""
    print(section)
    if write:
        put_section(section, begin, end)
        print(f"written: {PAGE}", file=sys.stderr)


def text(result: Result) -> str:
    """The section in Markdown."""
    pieces = ["## Throughput and latency", "```sh\nmake bench\n```"]
    if "throughput" in result:
        pieces += [_throughput(result["throughput"]), _times(result["throughput"]["runs"])]
    if "full-width" in result:
        pieces.append(_full_width(result["full-width"]))
    if "idle" in result:
        pieces.append(_idle(result["idle"]))
    for name, what in GROWTH.items():
        if name in result:
            pieces.append(_growth(result[name], what))
    if "size" in result:
        pieces.append(_sizes(result["size"]))
    if "disk" in result:
        pieces.append(_disks(result["disk"]))
    if "throughput" in result:
        pieces.append(f"![{ALT}](images/benchmark.png)")
    return _naming_once("\n\n".join(pieces), result) + "\n"


def _naming_once(section: str, result: Result) -> str:
    """The same section, with each machine named only where it comes first."""
    for machine in {part["machine"] for part in result.values()}:
        before, name, after = section.partition(f"{machine}.")
        section = before + name + after.replace(f"{machine}.", "The same machine.")
    return section


def _where(part: Result, order: str = "") -> str:
    turns = order or f"{part['repeats']} turns"
    return f"{turns}, {part['cores']} cores for everybody. {part['machine']}."


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _throughput(part: Result) -> str:
    intro = (
        f"{part['pictures']} photographs of faces, 512 x 512, dropped at once; medians, and medians of "
        f"ratios. {_where(part)}\n\nThe article is the tutorial that maskdrop grew out of, "
        "“PyTorch多进程模型推理” (inference with several processes in PyTorch): a process lists the "
        "pictures, eight preprocess, eight infer and eight mask and save, joined by unbounded queues. The "
        "plain loop is its three steps in one process. Both are in `bench/`, and run the same network as the "
        "article does (fp32, one picture at a time, numpy's argmax), without the two further outputs that "
        "its network computes. The article's float tensors go from process to process in shared memory, as "
        "torch.multiprocessing's queues have it; pixels and labels are pickled whole. "
        '"Own outputs" is what the daemon writes by default: own size, JPEG quality 95. '
        f"{_alike(part['alike'])}"
    )
    return f"{intro}\n\n{_compared(part['runs'])}"


def _full_width(part: Result) -> str:
    intro = (
        "### At the public checkpoint's width\n\n"
        "The same with a network as wide as the public checkpoint, which takes about three times as long: "
        "the embedded one with each channel there twice (`bench/full_width.py`), so that its labels are the "
        "same. "
        f"{part['pictures']} photographs. {_where(part)} {_alike(part['alike'])}"
    )
    return f"{intro}\n\n{_compared(part['runs'])}"


def _compared(runs: dict[str, list[Figures]]) -> str:
    """Each contestant's pictures a second beside maskdrop's, the limits', and how idle the cores were."""
    limits, maskdrop = runs[LIMITS.name], runs["maskdrop"]
    on_gpu = any(figures.get("on_gpu") for figures in limits)  # figures of an earlier run may not have it
    shared = (
        "limit where decoders and savers share the cores" if on_gpu else "limit where all share the cores"
    )
    rows = []
    for name, figures in runs.items():
        if name not in ALL_LIMITS:
            rate = f"{middle(figures, 'per_second'):.1f}"
            rows.append([name, rate, f"{ratio(maskdrop, figures):.2f}"])
    for key, name in (
        ("decode", "decoding alone"),
        ("forward", "forward alone"),
        ("save", "saving alone"),
        ("together", shared),
    ):
        rows.append([name, f"{middle(limits, key):.1f}", f"{ratio(maskdrop, limits, other=key):.2f}"])
    told = table(["", "pictures a second", "maskdrop / this"], rows)
    if FP32.name in runs and not on_gpu:
        pairs = [f"{ratio(runs[FP32.name], runs[each.name]):.2f}" for each in (ARTICLE, ARTICLE_ONE)]
        told += (
            "\n\nAs on a processor without bf16 instructions (fp32): "
            f"{pairs[0]} times the article's pipeline, {pairs[1]} times with one thread each"
        )
        if FP32_LIMITS.name in runs:  # figures of an earlier run may not have it
            alone, fp32 = runs[FP32_LIMITS.name], runs[FP32.name]
            told += (
                f", and {ratio(fp32, alone, other='forward'):.2f} of the forward alone "
                f"({middle(alone, 'forward'):.1f} a second)"
            )
        told += "."
    idle = [run["idle_share"] for run in maskdrop if run.get("idle_share") is not None]
    if idle:
        told += (
            f"\n\nWhile maskdrop worked, {median(idle):.1%} of the cores' time was idle; the first and last "
            "tenth, in which stages fill and empty, are not in it."
        )
    return told


def _alike(shares: dict[str, dict[str, float]]) -> str:
    """Pixels like the plain loop's, in words. An earlier run may have shares of all pixels only."""
    told = []
    for name, share in shares.items():
        kept = f" ({share['kept']:.2%} of those that aren't black in both)" if "kept" in share else ""
        told.append(f"{share['all']:.2%} of {name}'s{kept}")
    return (
        "Pixels that are the plain loop's but for 32 of 255 in any channel, which JPEG alone may make: "
        + ", ".join(told)
        + "."
    )


def _times(runs: dict[str, list[Figures]]) -> str:
    rows = []
    for name in ("plain loop", "article", "maskdrop"):
        for kind in ("queues", "stages"):
            spent = [f"{key} {middle(runs[name], kind, key):.0f}" for key in runs[name][0][kind]]
            rows.append([name, kind, ", ".join(spent) or "-"])
    note = (
        "Milliseconds that a picture spends on average in each stage and each queue while all are worked on. "
        "maskdrop's stages infer whole batches, and its queues are short because no more pictures are in "
        'flight than there are slots; "in hand" is with the inference worker, ahead of its batch.'
    )
    return f"{note}\n\n{table(['', '', 'ms'], rows)}"


def _idle(part: Result) -> str:
    runs: list[Figures] = part["runs"]
    latency = [figures["latency_ms"] / figures["plain_ms"] for figures in runs]
    stop = ""
    if "stop_s" in runs[0]:  # figures of an earlier run may not have it
        stop = f"; told to stop, it is gone after {middle(runs, 'stop_s'):.1f} s"
    lines = [
        f"### An idle daemon\n\n{_where(part)}",
        f"* Start to ready: {middle(runs, 'ready_s'):.1f} s{stop}.\n"
        f"* A single picture is saved {middle(runs, 'latency_ms'):.0f} ms after it was dropped, less the "
        f"time to settle: {sorted(latency)[len(latency) // 2]:.2f} of what the plain loop takes for one when "
        f"warm ({middle(runs, 'plain_ms'):.0f} ms).\n"
        f"* With nothing to do it uses {middle(runs, 'idle_share'):.2%} of a core.",
        table(
            ["process", "proportional set size", "resident"],
            [
                [row["process"], f"{row['pss_mib']:.0f} MiB", f"{row['rss_mib']:.0f} MiB"]
                for row in runs[-1]["memory"]
            ],
        ),
    ]
    return "\n\n".join(lines)


def _growth(part: Result, what: str) -> str:
    runs: dict[str, list[Figures]] = part["runs"]
    rows = [[label, f"{middle(figures, 'per_second'):.1f}"] for label, figures in runs.items()]
    head, order = [what, "pictures a second"], ""
    turns = [str(len(figures)) for figures in runs.values()]
    if len(set(turns)) > 1:  # the backlogs: a larger one comes after the smaller ones, and less often
        head, rows = [*head, "turns"], [[*row, count] for row, count in zip(rows, turns, strict=True)]
        order = "Turns as told, one number after the other"
    told = f"### By {what}\n\n{_where(part, order)}\n\n{table(head, rows)}"
    return f"{told}\n\n{_choice(runs)}" if "auto" in runs else told


def _choice(runs: dict[str, list[Figures]]) -> str:
    """How maskdrop's own choice compares with the best fixed one: medians of the ratios, turn by turn."""
    share, best = _best(runs)
    return f"`auto` gives {share:.2f} of the best fixed choice, {best}."


def _best(runs: dict[str, list[Figures]]) -> tuple[float, str]:
    """The share of the best fixed choice's rate that ``auto`` reaches, and which choice that is."""
    fixed = {label: figures for label, figures in runs.items() if label != "auto"}
    best = max(fixed, key=lambda label: middle(fixed[label], "per_second"))
    return ratio(runs["auto"], fixed[best]), best


def _disks(part: Result) -> str:
    order = f"{part['repeats']} turns at each, one time after the other"
    syncs = (
        "### On a slow disk\n\n"
        "Pictures a second by save workers, and by what a disk takes longer for a sync than this "
        f"machine's (`bench/slow_disk.py`); a picture wants five. {_where(part, order)}"
    )
    reads = (
        "The same by preprocess workers, and by what a read from the inbox takes longer; a picture wants "
        "two. Four times as many pictures: workers measure themselves with a picture that they have in "
        "memory, so more of these come only while pictures go through."
    )
    pieces = [syncs, _slower("a sync takes", part["syncs"]), reads, _slower("a read takes", part["reads"])]
    return "\n\n".join(pieces)


def _slower(what: str, times: dict[str, dict[str, list[Figures]]]) -> str:
    names = list(next(iter(times.values())))
    rows, chosen = [], []
    for milliseconds, runs in times.items():
        rates = [f"{middle(runs[name], 'per_second'):.1f}" for name in names]
        rows.append([f"{milliseconds} ms", *rates])
        chosen.append(f"{milliseconds} ms {_best(runs)[0]:.2f}")
    beside = f"`auto` beside the best fixed choice: {', '.join(chosen)}."
    return f"{table([what, *names], rows)}\n\n{beside}"


def _sizes(part: Result) -> str:
    names = list(next(iter(part["sizes"].values())))
    chosen = [
        f"{side} px {ratio(runs[names[-2]], runs[names[-1]]):.2f}" for side, runs in part["sizes"].items()
    ]
    note = f"Workers as chosen beside one of each stage a core: {', '.join(chosen)}."
    rows = [
        [f"{side} x {side}", *(f"{middle(runs[name], 'per_second'):.2f}" for name in names)]
        for side, runs in part["sizes"].items()
    ]
    where = _where(part, f"{part['repeats']} turns at each size, one size after the other")
    rates = table(["", *names], rows)
    return f"### By size of the pictures\n\nIn pictures a second. {where}\n\n{rates}\n\n{note}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    result = last()
    put_section(text(result), BEGIN, END)
    plot(result, GROWTH, PLOT)


if __name__ == "__main__":
    main()
