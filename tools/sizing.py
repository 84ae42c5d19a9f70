"""How much hardware a number of pictures needs: the tables of docs/scale.md, from measured figures.

    python tools/sizing.py [docs/sizing.json]             # prints the tables
    python tools/sizing.py FIGURES --write docs/scale.md  # puts them in the places marked there

FIGURES is a JSON file: `machine`; under `pictures`, for each size in pixels, what bench/stage_costs.py
measured; under `assumed`, what that can't measure (a GPU's pictures a second, what an object store and a node
give). Put in your own figures of both kinds. Nothing is rounded before it is printed.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MILLION = 10**6
COUNTS = (MILLION, 100 * MILLION, 1000 * MILLION)
SIDE = 512
"""Pixels per side that the network reads."""

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
    """What bench/stage_costs.py doesn't measure.

    Attributes:
        engine_ms: milliseconds of a core per picture, to hand it from stage to stage.
        storage_ms: milliseconds of a core per picture, to talk to an object store.
        gpu_rates: pictures a second that a GPU labels.
        days: how long everything may take, where a table needs it.
        node_cores, node_gigabits: of one node with one GPU.
        reads_a_second, writes_a_second: requests that an object store serves below one prefix.
        input_reads, output_reads: GET and HEAD requests per picture, where pictures and where results are.
        writes: PUT requests per picture.
        names_a_list: names in the answer to one LIST request.
    """

    engine_ms: float = 3.5
    storage_ms: float = 2.1
    gpu_rates: tuple[float, ...] = (300, 1000, 3000)
    days: float = 1.0
    node_cores: int = 16
    node_gigabits: float = 10.0
    reads_a_second: float = 5500
    writes_a_second: float = 3500
    input_reads: float = 2.0
    output_reads: float = 1.0
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
        OSError, ValueError, TypeError, KeyError: it can't be read, is no JSON, or has other keys.
    """
    told: dict[str, Any] = json.loads(path.read_text())
    assumed = told.get("assumed", {})
    if "gpu_rates" in assumed:
        assumed["gpu_rates"] = tuple(assumed["gpu_rates"])
    pictures = {int(side): Picture(**figures) for side, figures in told["pictures"].items()}
    return Figures(told["machine"], pictures, Assumed(**assumed))


def hours(milliseconds: float, count: int) -> float:
    """Hours of one core (or GPU) for ``count`` pictures."""
    return milliseconds * count / 3_600_000


def beside_gpu(picture: Picture, assumed: Assumed) -> float:
    """Milliseconds of a core per picture where a GPU labels it."""
    return picture.decode_ms + picture.save_ms + assumed.engine_ms + assumed.storage_ms


def without_gpu(picture: Picture, assumed: Assumed) -> float:
    """The same where cores label it."""
    return beside_gpu(picture, assumed) + picture.forward_ms


def crossing(side: int, picture: Picture) -> int:
    """Bytes per picture that a node takes in or gives out, whichever is more, if it labels what others decode
    and save: pixels come, labels go. At the network's own size, results are made from the pixels, so these go
    on, too. At other sizes the file itself comes and goes along, to be decoded again.
    """
    pixels, labels = SIDE**2 * 3, SIDE**2
    if side == SIDE:
        return max(pixels, pixels + labels)
    return round(picture.bytes_in) + max(pixels, labels)


def node_limits(side: int, picture: Picture, assumed: Assumed) -> dict[str, float]:
    """Pictures a second that each part of a node would give if it were the only limit."""
    wire = assumed.node_gigabits * 1e9 / 8
    return {
        "cores": assumed.node_cores * 1000 / beside_gpu(picture, assumed),
        "network": wire / max(picture.bytes_in, picture.bytes_out),
        "network with pixels": wire / crossing(side, picture),
    }


def prefix_limit(assumed: Assumed) -> float:
    """Pictures a second that an object store gives with one prefix for pictures and one for results."""
    reads, writes = assumed.reads_a_second, assumed.writes_a_second
    return min(reads / assumed.input_reads, reads / assumed.output_reads, writes / assumed.writes)


def number(value: float) -> str:
    """A number for people: three significant digits, two below ten."""
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
    rows, assumed = [], figures.assumed
    for side, one in figures.pictures.items():
        stages = (one.decode_ms, one.forward_ms, one.save_ms, assumed.engine_ms, assumed.storage_ms)
        together = (beside_gpu(one, assumed), without_gpu(one, assumed))
        times = [f"{value:.1f}" for value in (*stages, *together)]
        rows.append([f"{side:,} px", *times, number(one.bytes_in / 1000), number(one.bytes_out / 1000)])
    heads = [
        "ms",
        "decode",
        "forward",
        "save",
        "engine",
        "storage",
        "without forward",
        "all",
        "kB in",
        "kB out",
    ]
    return table(heads, rows)


def _by_count(figures: Figures, heads: list[str], cells: Callable[[Picture, int], Iterable[str]]) -> str:
    """A row for each size and each number of pictures."""
    rows = [
        [people(count), f"{side:,} px", *cells(one, count)]
        for side, one in figures.pictures.items()
        for count in COUNTS
    ]
    return table(["pictures", "size", *heads], rows)


def _cores(figures: Figures) -> str:
    def cells(one: Picture, count: int) -> Iterable[str]:
        all_ms = without_gpu(one, figures.assumed)
        core_hours = hours(all_ms, count)
        return map(number, (1000 / all_ms, core_hours, core_hours / 16 / 24, core_hours / 1000))

    heads = ["a second, a core", "core-hours", "days on 16 cores", "hours on 1,000"]
    return _by_count(figures, heads, cells)


def _gpus(figures: Figures) -> str:
    rates = figures.assumed.gpu_rates

    def cells(one: Picture, count: int) -> Iterable[str]:
        busy = beside_gpu(one, figures.assumed)
        gpu_hours = " / ".join(number(hours(1000 / rate, count)) for rate in rates)
        cores = " / ".join(number(rate * busy / 1000) for rate in rates)
        return gpu_hours, number(hours(busy, count)), cores

    at = " / ".join(f"{rate:,.0f}" for rate in rates)
    heads = [f"GPU-hours at {at}/s", "core-hours beside", "cores that keep a GPU busy"]
    return _by_count(figures, heads, cells)


def _bytes(figures: Figures) -> str:
    assumed = figures.assumed
    reads = assumed.input_reads + assumed.output_reads

    def cells(one: Picture, count: int) -> Iterable[str]:
        terabytes = [each * count / 1e12 for each in (one.bytes_in, one.bytes_out)]
        requests = (reads * count, assumed.writes * count, math.ceil(count / assumed.names_a_list))
        return map(number, (*terabytes, *(each / MILLION for each in requests)))

    heads = ["TB read", "TB written", "million GET and HEAD", "million PUT", "million LIST"]
    return _by_count(figures, heads, cells)


def _in_time(figures: Figures) -> str:
    assumed = figures.assumed
    reads = assumed.input_reads + assumed.output_reads

    def cells(one: Picture, count: int) -> Iterable[str]:
        rate = count / (assumed.days * 86_400)
        gigabits = rate * (one.bytes_in + one.bytes_out) * 8 / 1e9
        gpus = " / ".join(str(math.ceil(rate / each)) for each in assumed.gpu_rates)
        cores = [f"{math.ceil(rate * ms(one, assumed) / 1000):,}" for ms in (without_gpu, beside_gpu)]
        wire = map(number, (gigabits, rate * reads, rate * assumed.writes))
        return number(rate), cores[0], gpus, cores[1], *wire, str(math.ceil(rate / prefix_limit(assumed)))

    heads = ["a second", "cores", "or GPUs", "and cores", "Gbit/s", "reads/s", "PUTs/s", "prefixes"]
    return _by_count(figures, heads, cells)


def _limits(figures: Figures) -> str:
    assumed, rows = figures.assumed, []
    prefix = prefix_limit(assumed)
    for side, one in figures.pictures.items():
        limits = node_limits(side, one, assumed)
        for rate in assumed.gpu_rates:
            of_node = {"GPU": rate, "cores": limits["cores"], "network": limits["network"]}
            least = min(of_node, key=lambda name: of_node[name])
            nodes = str(math.ceil(prefix / of_node[least]))
            numbers = [number(each) for each in (rate, *limits.values())]
            rows.append([f"{side:,} px", *numbers, least, number(of_node[least]), nodes])
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
