"""Ideas for a GPU, one against the other: copies, streams, graphs, two workers, decoding there.

    python bench/tries_gpu.py [--device cuda:0] [--batches 1 8 32 64] [--turns 5] [--precision auto]
        [--beside "ONNX Runtime" TensorRT]

Ways of labelling take turns; each turn is some batches without a pause between them. Pictures a second are of
the quickest turn. ONNX Runtime and TensorRT compute the network too, where they are installed. Then JPEGs are
decoded by the device (nvJPEG) and by one core. Prints Markdown tables. With --device cpu the same code runs
where there is no GPU, but the figures say nothing.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import pictures
from maskdrop.config import DecodeSettings, ModelSettings, Settings
from maskdrop.decoding import at_model_size, decode
from maskdrop.devices import find_devices
from maskdrop.infer import FirstLook
from maskdrop.model.embedded import embedded_weights
from maskdrop.model.errors import WeightsError
from maskdrop.model.export import export_network
from maskdrop.model.load import load_network
from maskdrop.model.parser import FaceParser, load_parser
from maskdrop.model.pinned import pin
from maskdrop.topology.slots import SharedSlots
from measured import PATIENCE_S, machine
from tries_beside import load_torchvision

SECONDS = 1.0
"""About how long a turn takes."""

Pixels = NDArray[np.uint8]
Way = Callable[[int], None]
"""Labels the given number of batches."""


class Labelling:
    """One parser's ways of labelling batches of a size.

    Args:
        unpinned, pinned: slots with three such batches of pictures, or more.
    """

    def __init__(self, parser: FaceParser, unpinned: SharedSlots, pinned: SharedSlots, size: int) -> None:
        self.parser, self.size = parser, size
        self.unpinned, self.pinned = unpinned, pinned
        folders = {"inbox": "/in", "outbox": "/out"}
        self._look = FirstLook(Settings.model_validate({"folders": folders}))

    def ways(self) -> Iterator[tuple[str, Way]]:
        yield "each batch waited for", lambda count: self.in_turns(self.unpinned, count, ahead=0)
        yield "one batch ahead, two streams", lambda count: self.in_turns(self.unpinned, count, ahead=1)
        yield "**and pinned slots** (as the daemon)", lambda count: self.in_turns(self.pinned, count, ahead=1)
        yield (
            "and without a look at each for small faces",
            lambda count: self.in_turns(self.pinned, count, ahead=1, looks=False),
        )
        yield (
            'and telling how sure the network is (`outputs = ["json"]`)',
            lambda count: self.in_turns(self.pinned, count, ahead=1, judge=True),
        )
        yield "the network alone, all there", self.network_alone
        if self.parser.info.device != "cpu" and not self.parser.info.weights.endswith(".onnx"):
            yield "the same as a CUDA graph", self.as_graph()

    def in_turns(
        self, slots: SharedSlots, count: int, ahead: int, looks: bool = True, judge: bool = False
    ) -> None:
        under_way = []
        for number in range(count):
            at = slice(number % 3 * self.size, (number % 3 + 1) * self.size)
            labels = list(slots.labels[at])

            def finish(one: int, _: Any, labels: list[Pixels] = labels) -> None:
                if looks:
                    self._look.finds_small(labels[one])

            under_way.append(self.parser.begin(list(slots.pictures[at]), labels, finish, judge=judge))
            if len(under_way) > ahead:
                under_way.pop(0).results()
        for last in under_way:
            last.results()

    def network_alone(self, count: int) -> None:
        pixels = self.parser._on_device(list(self.pinned.pictures[: self.size]))
        for _ in range(count):
            labels, _none = self.parser._label(pixels)
        labels.cpu()

    def as_graph(self) -> Way:
        pixels = self.parser._on_device(list(self.pinned.pictures[: self.size]))
        self.parser._label(pixels)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.parser.info.device), torch.cuda.graph(graph):
            labels, _ = self.parser._label(pixels)

        def replay(count: int) -> None:
            for _ in range(count):
                graph.replay()
            labels.cpu()

        return replay


def rate_of(way: Way, size: int, count: int) -> float:
    began = time.monotonic()
    way(count)
    return count * size / (time.monotonic() - began)


def one_of_two(
    device: str, wanted: ModelSettings, faces: Pixels, sizes: list[int], turns: int, barrier: Any, told: Any
) -> None:
    """A worker beside another one: reports size, turn and pictures a second of each turn."""
    parser, slots = load_parser(wanted, device), filled(faces, sizes)
    parser.pin(slots.memory)
    for size in sizes:
        labelling = Labelling(parser, slots, slots, size)

        def way(count: int, labelling: Labelling = labelling) -> None:
            labelling.in_turns(slots, count, ahead=1)

        way(2)
        barrier.wait()
        count = max(3, round(SECONDS * rate_of(way, size, 3) / size)) if turns > 1 else 3
        for turn in range(turns):
            barrier.wait()
            told.put((size, turn, rate_of(way, size, count)))


def two_workers(
    device: str, wanted: ModelSettings, faces: Pixels, sizes: list[int], turns: int
) -> list[float]:
    """Pictures a second of two processes together, for each batch size."""
    context = get_context("spawn")
    barrier, told = context.Barrier(2), context.Queue()
    arguments = (device, wanted, faces, sizes, turns, barrier, told)
    workers = [context.Process(target=one_of_two, args=arguments, daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    rates: Counter[tuple[int, int]] = Counter()
    for _ in range(2 * turns * len(sizes)):
        size, turn, rate = told.get(timeout=PATIENCE_S)
        rates[size, turn] += rate
    for worker in workers:
        worker.join()
    return [max(rates[size, turn] for turn in range(turns)) for size in sizes]


def filled(faces: Pixels, sizes: list[int]) -> SharedSlots:
    """Slots for three batches of the largest size, with faces in them."""
    slots = SharedSlots(3 * max(sizes), pictures.NATIVE)
    slots.pictures[:] = np.resize(faces, slots.pictures.shape)
    return slots


def labelling(
    parser: FaceParser,
    unpinned: SharedSlots,
    pinned: SharedSlots,
    sizes: list[int],
    turns: int,
    together: list[float],
) -> None:
    found: dict[str, list[float]] = {}
    for size in sizes:
        ways = dict(Labelling(parser, unpinned, pinned, size).ways())
        best = dict.fromkeys(ways, 0.0)
        counts = {}
        for name, way in ways.items():
            way(1)
            counts[name] = max(3, round(SECONDS * rate_of(way, size, 3) / size)) if turns > 1 else 3
        for _ in range(turns):
            for name, way in ways.items():
                best[name] = max(best[name], rate_of(way, size, counts[name]))
        for name, rate in best.items():
            found.setdefault(name, []).append(rate)
    found["two workers, each as the daemon's (`workers.infer = 2`)"] = together
    print("\n| pictures a second, in batches of | " + " | ".join(map(str, sizes)) + " |")
    print("|---|" + "---|" * len(sizes))
    for name, rates in found.items():
        print(f"| {name} | " + " | ".join(f"{rate:,.0f}" for rate in rates) + " |", flush=True)


def decoding(device: str, paths: list[Path], turns: int) -> None:
    """JPEGs to pixels on the device, all of them at once, beside one core's decoding and scaling."""
    load_torchvision()
    contents = [path.read_bytes() for path in paths]
    raw = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]

    def there(_: int) -> None:
        if device == "cpu":
            decoded = [torch.ops.image.decode_jpeg(one, 3, False) for one in raw]
        else:
            decoded = torch.ops.image.decode_jpegs_cuda(raw, 3, torch.device(device))
        decoded[-1].cpu()

    def here(_: int) -> None:
        for content in contents:
            at_model_size(decode(content, DecodeSettings()), pictures.NATIVE)

    ways: dict[str, Way] = {f"all at once on {device}": there, "Pillow on one core": here}
    best = dict.fromkeys(ways, 0.0)
    for turn in range(turns + 1):
        for name, way in ways.items():
            if turn:
                best[name] = max(best[name], rate_of(way, len(contents), 1))
            else:
                way(1)
    print("\n| decoding | JPEGs a second |\n|---|---|")
    for name, rate in best.items():
        print(f"| {name} | {rate:,.0f} |", flush=True)


def networks(options: argparse.Namespace, base: Path) -> Iterator[tuple[str, ModelSettings]]:
    """What computes the embedded network: PyTorch, and ONNX Runtime and TensorRT where they are installed."""
    for precision in options.precision:
        yield "PyTorch", ModelSettings(precision=precision)
    runtimes = [name for name in ("ONNX Runtime", "TensorRT") if name in options.beside]
    exported = base / "embedded.onnx"
    for name in runtimes:
        wanted = ModelSettings(weights=exported, tensorrt=name == "TensorRT")
        try:
            if not exported.exists():
                export_network(load_network(embedded_weights()), pictures.NATIVE, exported)
            load_parser(wanted, options.device)
        except WeightsError as error:
            print(f"\nwithout {name}: {error}")
        else:
            yield name, wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default=find_devices("auto")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--precision", nargs="+", default=["auto", "fp32"])
    parser.add_argument("--beside", nargs="*", default=["ONNX Runtime", "TensorRT"])
    parser.add_argument("--jpegs", type=int, default=256, help="decoded at once; 0: none")
    options = parser.parse_args()
    if options.device == "cpu" and "--device" not in sys.argv:
        sys.exit("there is no GPU here; --device cpu runs the same code without one")
    paths = pictures.faces()
    faces = np.stack(
        [
            np.asarray(at_model_size(decode(path.read_bytes(), DecodeSettings()), pictures.NATIVE))
            for path in paths[:16]
        ]
    )
    print(machine())
    unpinned, pinned = (filled(faces, options.batches) for _ in range(2))
    pin(pinned.memory, torch.device(options.device))
    with tempfile.TemporaryDirectory() as base:
        for name, wanted in networks(options, Path(base)):
            network = load_parser(wanted, options.device)
            print(f"\n{name}, {network.info.precision}:")
            together = two_workers(options.device, wanted, faces, options.batches, options.turns)
            labelling(network, unpinned, pinned, options.batches, options.turns, together)
    if options.jpegs:
        decoding(options.device, (paths * options.jpegs)[: options.jpegs], options.turns)


if __name__ == "__main__":
    main()
