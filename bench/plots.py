"""Benchmarks' figures as one plot: above, throughput, time by stage and queue, and sizes; below, growth."""

from pathlib import Path
from typing import Any

from contests import ALL_LIMITS, ARTICLE, LIMITS, MASKDROP, PLAIN, Figures, middle

COLOURS = {PLAIN.name: "#999", ARTICLE.name: "#d73", MASKDROP.name: "#2a7"}

PLACES = (
    ("waiting for preprocess", "queues", ("preprocess", "paths")),
    ("preprocess", "stages", ("preprocess",)),
    ("waiting for infer", "queues", ("infer", "images")),
    ("in hand, before its batch", "queues", ("in hand",)),
    ("infer", "stages", ("infer",)),
    ("waiting for save", "queues", ("save", "results")),
    ("save", "stages", ("save",)),
)
"""Places where a picture waits or is worked on, in order: name here, and kind and names in the figures."""

LEAST_MS = 0.5
"""Where the logarithmic axis of times begins; shorter times have no bar."""

TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
"""Pictures a second that the axis of sizes may name."""

Result = dict[str, Any]


def plot(result: Result, growth: dict[str, str], path: Path) -> None:
    """Write the plot as PNG, without parts that weren't measured; without throughput, write nothing.

    Args:
        result: the benchmarks' figures, as in docs/benchmarks.json.
        growth: parts that show how throughput grows, and with what.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    if "throughput" not in result:
        return
    grown = [name for name in growth if name in result]
    figure = pyplot.figure(figsize=(15, 8), layout="constrained")
    (above,), (below,) = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.4, 1))
    runs = result["throughput"]["runs"]
    rates, times, sizes = above.subplots(1, 3, width_ratios=(1, 1.3, 1))
    _rates(rates, runs)
    _times(times, {name: runs[name] for name in COLOURS})
    if "size" in result:
        _sizes(sizes, result["size"]["sizes"])
    else:
        sizes.set_axis_off()
    if grown:
        for axis, name in zip(below.subplots(1, len(grown), squeeze=False)[0], grown, strict=True):
            _growth(axis, result[name]["runs"], growth[name])
        below.supylabel("pictures a second", fontsize="medium")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _rates(axis: Any, runs: dict[str, list[Figures]]) -> None:
    rates = {name: middle(f, "per_second") for name, f in runs.items() if name not in ALL_LIMITS}
    rates["limit: all stages"] = middle(runs[LIMITS.name], "together")
    rates["limit: forward"] = middle(runs[LIMITS.name], "forward")
    colours = ["#2a7" if "maskdrop" in name else "#ccc" if "limit" in name else "#999" for name in rates]
    bars = axis.barh(list(rates), list(rates.values()), color=colours)
    axis.bar_label(bars, fmt="%.1f", padding=2)
    axis.invert_yaxis()
    axis.set_xlabel("pictures a second")
    axis.margins(x=0.2)


def _times(axis: Any, runs: dict[str, list[Figures]]) -> None:
    """Plot a group of bars for each place, one for each contestant that has it."""
    height = 0.8 / len(runs)
    for index, (name, figures) in enumerate(runs.items()):
        spent = {}
        for at, (_, kind, names) in enumerate(PLACES):
            if found := [key for key in figures[0][kind] if key in names]:
                spent[at + (index - (len(runs) - 1) / 2) * height] = middle(figures, kind, found[0])
        bars = axis.barh(list(spent), list(spent.values()), height, color=COLOURS[name], label=name)
        labels = [f"{value:,.0f}" if value >= LEAST_MS else "" for value in spent.values()]
        axis.bar_label(bars, labels, padding=2, fontsize="small")
    axis.set_yticks(range(len(PLACES)), [name for name, *_ in PLACES])
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlim(LEAST_MS, 5 * axis.dataLim.x1)  # room for the longest one's number
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.set_xlabel("milliseconds of a picture, while all are worked on")
    axis.legend(frameon=False)


def _sizes(axis: Any, sizes: dict[str, dict[str, list[Figures]]]) -> None:
    """Plot the contestants that have one name at all sizes: not the last, whose workers are set by hand."""
    *names, _ = next(iter(sizes.values()))
    for name in names:
        colour = "#2a7" if "maskdrop" in name else COLOURS.get(name.split(",")[0])
        rates = [middle(runs[name], "per_second") for runs in sizes.values()]
        axis.plot(list(sizes), rates, "o--" if "," in name else "o-", color=colour, label=name)
    axis.set_yscale("log")
    low, high = axis.dataLim.intervaly
    ticks = [tick for tick in TICKS if low / 2.5 < tick < high * 2.5]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("pixels a side")
    axis.set_ylabel("pictures a second")
    axis.legend(frameon=False, loc="lower left")


def _growth(axis: Any, runs: dict[str, list[Figures]], what: str) -> None:
    points = {label: middle(figures, "per_second") for label, figures in runs.items()}
    top = 1.2 * max(points.values())
    if (chosen := points.pop("auto", None)) is not None:
        axis.axhline(chosen, color="#999", linestyle="--", label="auto")
        axis.legend(loc="lower right", frameon=False)
    axis.plot(list(points), list(points.values()), "o-", color="#2a7")
    axis.set_xlabel(what)
    axis.set_ylim(0, top)
