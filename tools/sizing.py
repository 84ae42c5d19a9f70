"""How much machine so many pictures need: the tables of docs/scale.md, from measured figures.

    python tools/sizing.py [docs/sizing.json]             # prints the tables
    python tools/sizing.py FIGURES --write docs/scale.md  # puts them in the places marked there

FIGURES is a JSON file: `machine`, and under `pictures` for each size in pixels what bench/stage_costs.py
measured; under `assumed` what it can't measure (a GPU's pictures a second, what an object store and a node
give). Put in your own figures of both kinds. Nothing is rounded before it is printed.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MILLION = 10**6
COUNTS = (MILLION, 100 * MILLION, 1000 * MILLION)
SIDE = 512
"""Pixels a side that the network reads."""

FIGURES = Path(__file__).parent.parent / "docs" / "sizing.json"
_PLACE = re.compile(r"(<!-- sizing: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Picture:
    """One picture of a size: file bytes, and milliseconds of one core in each stage."""

    bytes_in: float
    bytes_out: float
    decode_ms: float
    forward_ms: float
    save_ms: float


@dataclass(frozen=True)
class Assumed:
    """What is not measured.

    Attributes:
        engine_ms: of a core a picture, to hand it from stage to stage.
        gpu_rates: pictures a second that a GPU labels.
        days: in which all is to be done, where a table needs it.
        node_cores, node_gigabits: of one node with one GPU.
        gets_a_second, puts_a_second: that an object store serves below one prefix.
        reads, writes: requests a picture.
        names_a_list: names in the answer to one LIST request.
    """

    engine_ms: float = 1.5
    gpu_rates: tuple[float, ...] = (300, 1000, 3000)
    days: float = 1.0
    node_cores: int = 16
    node_gigabits: float = 10.0
    gets_a_second: float = 5500
    puts_a_second: float = 3500
    reads: float = 1.0
    writes: float = 1.0
    names_a_list: int = 1000


@dataclass(frozen=True)
class Figures:
    machine: str
    pictures: dict[int, Picture]
    assumed: Assumed


def read(path: Path) -> Figures:
    """Figures from a JSON file.

    Raises:
        OSError, ValueError, TypeError: it can't be read, is no JSON, or has other keys.
    """
    told: dict[str, Any] = json.loads(path.read_text())
    assumed = told.get("assumed", {})
    if "gpu_rates" in assumed:
        assumed["gpu_rates"] = tuple(assumed["gpu_rates"])
    pictures = {int(side): Picture(**figures) for side, figures in told["pictures"].items()}
    return Figures(told["machine"], pictures, Assumed(**assumed))


def hours(milliseconds: float, count: int) -> float:
    """Hours of one core (or GPU) for so many pictures."""
    return milliseconds * count / 3_600_000


def beside_gpu(picture: Picture, assumed: Assumed) -> float:
    """Milliseconds of a core a picture where a GPU labels it."""
    return picture.decode_ms + picture.save_ms + assumed.engine_ms


def without_gpu(picture: Picture, assumed: Assumed) -> float:
    """The same where cores label it."""
    return beside_gpu(picture, assumed) + picture.forward_ms


def crossing(assumed_side: int = SIDE) -> int:
    """Bytes a picture from stage to stage: RGB pixels to the network, one byte of label a pixel back."""
    return assumed_side**2 * 3 + assumed_side**2


def node_limits(picture: Picture, assumed: Assumed) -> dict[str, float]:
    """Pictures a second that each part of a node would give if it were the only limit."""
    wire = assumed.node_gigabits * 1e9 / 8
    return {
        "cores": assumed.node_cores * 1000 / beside_gpu(picture, assumed),
        "network": wire / max(picture.bytes_in, picture.bytes_out),
        "network with pixels": wire / (max(picture.bytes_in, picture.bytes_out) + crossing()),
    }


def prefix_limit(assumed: Assumed) -> float:
    """Pictures a second that an object store gives below one prefix for pictures and one for results."""
    return min(assumed.gets_a_second / assumed.reads, assumed.puts_a_second / assumed.writes)


def number(value: float) -> str:
    """For people: three digits that count, and two of what is below ten."""
    if value >= 1000:
        return f"{round(value, 2 - math.floor(math.log10(value))):,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:#.2g}"


def people(count: int) -> str:
    billions = count // (1000 * MILLION)
    return f"{billions} billion" if billions else f"{count // MILLION} million"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _picture(figures: Figures) -> str:
    rows = []
    for side, one in figures.pictures.items():
        stages = (one.decode_ms, one.forward_ms, one.save_ms, figures.assumed.engine_ms)
        together = (beside_gpu(one, figures.assumed), without_gpu(one, figures.assumed))
        in_out = [number(size / 1000) for size in (one.bytes_in, one.bytes_out)]
        rows.append([f"{side:,} px", *(f"{value:.1f}" for value in (*stages, *together)), *in_out])
    heads = ["picture", "decode", "forward", "save", "engine", "without forward", "all", "kB in", "kB out"]
    return table(heads, rows)


def _cores(figures: Figures) -> str:
    rows = []
    for side, one in figures.pictures.items():
        all_ms = without_gpu(one, figures.assumed)
        for count in COUNTS:
            core_hours = hours(all_ms, count)
            times = (core_hours / 16 / 24, core_hours / 1000)
            cells = [number(1000 / all_ms), number(core_hours), *map(number, times)]
            rows.append([people(count), f"{side:,} px", *cells])
    heads = ["pictures", "size", "a second, a core", "core-hours", "days on 16 cores", "hours on 1,000"]
    return table(heads, rows)


def _gpus(figures: Figures) -> str:
    rates = figures.assumed.gpu_rates
    rows = []
    for side, one in figures.pictures.items():
        busy = beside_gpu(one, figures.assumed)
        for count in COUNTS:
            gpu_hours = " / ".join(number(hours(1000 / rate, count)) for rate in rates)
            cores = " / ".join(number(rate * busy / 1000) for rate in rates)
            rows.append([people(count), f"{side:,} px", gpu_hours, number(hours(busy, count)), cores])
    at = " / ".join(f"{rate:,.0f}" for rate in rates)
    heads = ["pictures", "size", f"GPU-hours at {at}/s", "core-hours beside", "cores that keep a GPU busy"]
    return table(heads, rows)


def _bytes(figures: Figures) -> str:
    assumed, rows = figures.assumed, []
    for side, one in figures.pictures.items():
        for count in COUNTS:
            read_tb, written_tb = (each * count / 1e12 for each in (one.bytes_in, one.bytes_out))
            requests = (
                assumed.reads * count,
                assumed.writes * count,
                math.ceil(count / assumed.names_a_list),
            )
            cells = [number(read_tb), number(written_tb), *(f"{round(each):,}" for each in requests)]
            rows.append([people(count), f"{side:,} px", *cells])
    return table(["pictures", "size", "TB read", "TB written", "GET", "PUT", "LIST"], rows)


def _in_time(figures: Figures) -> str:
    assumed, rows = figures.assumed, []
    for side, one in figures.pictures.items():
        for count in COUNTS:
            rate = count / (assumed.days * 86_400)
            gigabits = rate * (one.bytes_in + one.bytes_out) * 8 / 1e9
            prefixes = max(1, math.ceil(rate / prefix_limit(assumed)))
            gpus = " / ".join(str(math.ceil(rate / each)) for each in assumed.gpu_rates)
            cores = [math.ceil(rate * ms(one, assumed) / 1000) for ms in (without_gpu, beside_gpu)]
            numbers = [number(rate), f"{cores[0]:,}", gpus, f"{cores[1]:,}", number(gigabits), str(prefixes)]
            rows.append([people(count), f"{side:,} px", *numbers])
    heads = ["pictures", "size", "GET/s and PUT/s", "cores", "or GPUs", "and cores", "Gbit/s", "prefixes"]
    return table(heads, rows)


def _limits(figures: Figures) -> str:
    assumed, rows = figures.assumed, []
    prefix = prefix_limit(assumed)
    for side, one in figures.pictures.items():
        limits = node_limits(one, assumed)
        for rate in assumed.gpu_rates:
            of_node = {"GPU": rate, "cores": limits["cores"], "network": limits["network"]}
            first = min(of_node, key=lambda name: of_node[name])
            nodes = math.ceil(prefix / of_node[first])
            cells = [
                number(rate),
                *(number(limits[name]) for name in limits),
                first,
                number(of_node[first]),
                str(nodes),
            ]
            rows.append([f"{side:,} px", *cells])
    heads = ["size", "GPU", "cores", "network", "with pixels", "the least", "a node gives", "nodes a prefix"]
    return table(heads, rows)


TABLES: dict[str, Callable[[Figures], str]] = {
    "picture": _picture,
    "cores": _cores,
    "gpus": _gpus,
    "bytes": _bytes,
    "in_time": _in_time,
    "limits": _limits,
}


def put(text: str, figures: Figures) -> str:
    """A document with the tables in their places: between ``<!-- sizing: NAME -->`` and ``<!-- end -->``.

    Raises:
        KeyError: a place names no table.
    """
    return _PLACE.sub(lambda place: f"{place[1]}{TABLES[place[2]](figures)}{place[3]}", text)


def places(text: str) -> Iterator[str]:
    """The names of a document's places."""
    return (place[2] for place in _PLACE.finditer(text))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("figures", type=Path, nargs="?", default=FIGURES, help="JSON file of figures")
    parser.add_argument("--write", type=Path, metavar="DOC", help="put the tables into this document")
    options = parser.parse_args()
    try:
        figures = read(options.figures)
    except (OSError, ValueError, TypeError, KeyError) as error:
        sys.stderr.write(f"{options.figures}: {error}\n")
        return 1
    if options.write is not None:
        options.write.write_text(put(options.write.read_text(), figures))
    else:
        sys.stdout.write("\n".join(f"{name}\n\n{make(figures)}" for name, make in TABLES.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
