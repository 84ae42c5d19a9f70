"""Running the network: from 8-bit pixels to 8-bit labels, in batches, on one device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from maskdrop.config import ModelSettings
from maskdrop.model.answer import DAMAGED, check_scores, first_tensor
from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.certainty import certainty_of
from maskdrop.model.embedded import embedded_weights
from maskdrop.model.errors import WeightsError, first_line
from maskdrop.model.faults import is_devices_fault
from maskdrop.model.folded import FoldedBiSeNet, most_scaled_up, scale_up
from maskdrop.model.fused import can_fuse
from maskdrop.model.known import LEAST_AGREEMENT, known_picture
from maskdrop.model.laid_out import in_format
from maskdrop.model.lanes import Lanes
from maskdrop.model.load import Form, Loaded, load_network
from maskdrop.model.memory import is_want_of_memory
from maskdrop.model.normalise import normalise
from maskdrop.model.pinned import pin, pinned
from maskdrop.model.precision import choose_precision, keep_to_fp32, precision_for
from maskdrop.model.streams import Streams, TakeIn
from maskdrop.model.under_way import UnderWay
from maskdrop.model.winners import labels_of

Pixels = NDArray[np.uint8]
Certainty = NDArray[np.float64]
Finished = TypeVar("Finished")

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ModelInfo:
    """What a parser runs, for the log and the health file."""

    weights: str
    sha256: str
    device: str
    precision: str


class FaceParser:
    """A network on a device, ready to label pictures.

    Args:
        loaded: a BiSeNet, in fp32 and on the CPU, which stays unchanged; or another network on the device.
        precision: as `maskdrop.model.precision.precision_for` gives it.
        threads: how many threads of a CPU compute at the same time.
        most_threads: see `Lanes`.

    Raises:
        WeightsError: in int8 the network answers differently, or its weights are damaged.
    """

    def __init__(
        self,
        loaded: Loaded,
        settings: ModelSettings,
        device: str,
        precision: str,
        threads: int = 1,
        most_threads: int | None = None,
    ) -> None:
        self.info = ModelInfo(loaded.path.name, loaded.sha256, device, precision)
        self._settings = settings
        self._path, self._shape = loaded.path, loaded.shape
        self._device = torch.device(device)
        self._dtype = _TYPES.get(precision, torch.float32)
        self._format = torch.channels_last if settings.channels_last else torch.contiguous_format
        self._lanes = Lanes(threads, most_threads)
        self._folded: FoldedBiSeNet | None = None
        self._on_cpu = self._device.type == "cpu"
        if not self._on_cpu and settings.precision == "fp32":
            keep_to_fp32()
        self._network = loaded.network
        if isinstance(loaded.network, BiSeNet):
            folded = FoldedBiSeNet(loaded.network, settings.mean, settings.deviation)
            if precision == "int8":
                in_format(folded, self._format)
                self._quantise(folded)
            else:
                in_format(folded.to(self._device, self._dtype), self._format)
                if self._on_cpu and settings.channels_last and can_fuse(self._dtype):
                    folded.fuse()
            self._folded = folded
        elif loaded.form is not Form.ONNX:
            self._network = loaded.network.to(self._device, self._dtype)
        module, at_once = torch.get_device_module(self._device), loaded.form is Form.ONNX
        self._streams = Streams(self._device, module, at_once)

    @torch.inference_mode()
    def _quantise(self, network: FoldedBiSeNet) -> None:
        """Make a network compute in 8-bit integers, and check that it still answers the same.

        Raises:
            WeightsError: it doesn't, or its weights are damaged.
        """
        side, wide = self._settings.input_size, _TYPES[choose_precision("cpu")]
        picture = torch.from_numpy(known_picture(side)[np.newaxis])
        scores = network.quantise(picture, wide)
        if not bool(torch.isfinite(scores).all()):  # 8-bit codes would hide it
            raise WeightsError(f"{self._path}: {DAMAGED}")
        labels = labels_of(network(picture, self._format), side)
        agreement = float((labels == labels_of(scores, side)).float().mean())
        if agreement < LEAST_AGREEMENT:
            problem = f"only {agreement:.1%} of a known picture's labels are the same in int8 as in fp32"
            raise WeightsError(f"{self._path}: {problem}; set model.precision = auto")

    def parse(self, pictures: Pixels) -> Pixels:
        """Label every pixel.

        Args:
            pictures: uint8 (batch, side, side, 3), RGB.

        Returns:
            uint8 (batch, side, side): the class of highest score. Only these bytes come
            back from the device.
        """
        labels = np.empty(pictures.shape[:3], dtype=np.uint8)
        self.begin(list(pictures), list(labels), lambda _, __: None).results()
        return labels

    def begin(
        self,
        pictures: Sequence[Pixels],
        labels: Sequence[Pixels],
        finish: Callable[[int, Certainty | None], Finished],
        company: int = 1,
        judge: bool = False,
    ) -> UnderWay[Finished]:
        """Begin to label pictures, and finish each when its labels are there.

        Where each of a CPU's cores has a picture of its own, or a GPU works, this doesn't wait for them.

        Args:
            pictures: each uint8 (side, side, 3), RGB.
            labels: where each picture's labels are written: uint8 (side, side).
            finish: called with a picture's number, from 0, and, if ``judge`` is set, how sure the network is:
                float64 (classes, 2), for each class the sum of its pixels' label probabilities (softmax), and
                the number of these pixels. On a CPU, several lanes may call it at the same time.
            company: see `Lanes.begin`.
            judge: whether to compute how sure the network is.

        Returns:
            The pictures under way; their results are what ``finish`` returned for each.
        """
        label = self._judge if judge else self._label

        def in_lane(at: int) -> Finished:
            maps, sums = label(torch.from_numpy(pictures[at])[None])
            labels[at][...] = maps[0].numpy()
            return finish(at, None if sums is None else sums[0].numpy())

        def ask(part: slice) -> TakeIn[Finished]:
            maps, sums = label(self._on_device(pictures[part]))
            for place, its_map in zip(labels[part], maps, strict=True):
                torch.from_numpy(place).copy_(its_map, non_blocking=True)
            certain = None if sums is None else sums.to("cpu", non_blocking=True).numpy()
            return lambda: [
                finish(part.start + at, None if certain is None else certain[at]) for at in range(len(maps))
            ]

        if self._folded is not None and self._on_cpu:  # which gains nothing from several at once
            return self._lanes.begin(in_lane, range(len(pictures)), company)
        return self._streams.begin(ask, self._shape.parts_of(len(pictures)))

    def sizes_up_to(self, most: int) -> list[int]:
        """The batch sizes that the network is given when up to ``most`` pictures come together."""
        parts = [part for count in range(1, most + 1) for part in self._shape.parts_of(count)]
        return sorted({self._shape.filled_up(part.stop - part.start) for part in parts})

    def room(self, *shape: int) -> Pixels:
        """Memory that the device reads and writes by itself; see `maskdrop.model.pinned.pinned`."""
        return pinned(shape, self._device)

    def pin(self, memory: Pixels) -> None:
        """Have the device read and write this memory by itself; see `maskdrop.model.pinned.pin`."""
        pin(memory, self._device)

    def wait_for_room(self) -> None:
        """Wait until so little is under way that a CPU's cores can begin with the next batch."""
        self._lanes.wait_for_room()

    def wait_for_rest(self) -> None:
        """Wait until nothing is under way."""
        self._lanes.wait_for_rest()
        self._streams.wait_for_rest()

    def probe(self) -> None:
        """Run once on noise, which also prepares the kernels, and check the answer.

        Raises:
            WeightsError: the network takes another input size, fails, or answers other than one
                finite score for each class and pixel; the message says which, and the remedy.
            RuntimeError: the GPU fails, or runs out of memory.
        """
        side = self._settings.input_size
        wanted = self._shape.side
        if wanted is not None and wanted != side:
            problem = f"takes pictures of {wanted} x {wanted}, not {side} x {side}"
            raise WeightsError(f"{self._path}: {problem}; set model.input_size = {wanted}")
        try:
            noise = np.random.default_rng(1).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
            scores = self._scores(torch.from_numpy(noise).to(self._device))
        except Exception as error:  # a foreign network fails in any way
            if not self._on_cpu and is_devices_fault(error):
                raise
            told = f"{type(error).__name__}: {first_line(error)}"
            problem = f"fails on a picture of {side} x {side} ({told})"
            remedy = "see model.input_size and model.precision"
            if is_want_of_memory(error) or isinstance(error, ImportError):  # of a library mapped when needed
                remedy += ", or give it more memory (ulimit -v and -d, LimitAS=, LimitDATA=, MemoryMax=)"
            raise WeightsError(f"{self._path}: {problem}; {remedy}") from error
        check_scores(scores, self._path, self._settings)

    def _on_device(self, pictures: Sequence[Pixels]) -> Tensor:
        """Pictures as one batch on the device: uint8 (batch, side, side, 3)."""
        batch = torch.empty((len(pictures), *pictures[0].shape), dtype=torch.uint8, device=self._device)
        for place, picture in zip(batch, pictures, strict=True):
            place.copy_(torch.from_numpy(picture), non_blocking=True)
        return batch

    @torch.inference_mode()
    def _scores(self, pixels: Tensor) -> Tensor:
        count = len(pixels)
        wanted = max(count, self._shape.fewest) if self._on_cpu else self._shape.filled_up(count)
        if wanted > count:
            pixels = functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, wanted - count))
        if self._folded is not None:
            return scale_up(self._folded(pixels, self._format)[:count], self._settings.input_size)
        batch = normalise(pixels.permute(0, 3, 1, 2), self._settings.mean, self._settings.deviation)
        batch = batch.to(self._dtype).contiguous(memory_format=self._format)
        return first_tensor(self._network(batch))[:count]

    @torch.inference_mode()
    def _label(self, pixels: Tensor) -> tuple[Tensor, None]:
        if self._folded is not None and self._on_cpu:
            coarse = self._folded(pixels, self._format)
            return labels_of(coarse, self._settings.input_size), None
        # max gives the same index as argmax, in a fraction of its time on a CPU.
        return self._scores(pixels).max(dim=1).indices.to(torch.uint8), None

    @torch.inference_mode()
    def _judge(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        if self._folded is not None and self._on_cpu:
            coarse = self._folded(pixels, self._format)
            labels = labels_of(coarse, self._settings.input_size).long()  # the same as without a sidecar
            scores = scale_up(coarse.float().contiguous(), self._settings.input_size)
        else:
            scores = self._scores(pixels)
            labels = scores.max(dim=1).indices
        # One picture after the other, so that there is never a second copy of all scores.
        sums = [certainty_of(one, label) for one, label in zip(scores, labels, strict=True)]
        return labels.to(torch.uint8), torch.stack(sums)


def load_parser(
    settings: ModelSettings,
    device: str,
    threads: int = 1,
    most_threads: int | None = None,
    max_batch: int | None = None,
) -> FaceParser:
    """A parser from a weights file, or from the embedded weights where none is named.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: how many threads of a CPU compute at the same time.
        most_threads: see `Lanes`.
        max_batch: the most pictures that the network gets at once, None for any number.

    Raises:
        WeightsError: the file can't be used, or not with these settings.
        Exception: the GPU fails, or runs out of memory.
    """
    file, exact = settings.weights or embedded_weights(), settings.precision == "fp32"
    loaded = load_network(file, device, threads, settings.tensorrt, exact)
    if settings.tensorrt and loaded.form is not Form.ONNX:
        problem = f"model.tensorrt = true is for ONNX networks, which this is not ({loaded.form})"
        raise WeightsError(f"{loaded.path}: {problem}; set it to false, or see maskdrop model export")
    named = tuple(loaded.card.classes)
    if named and named != settings.classes:
        problem = f"its classes are {', '.join(named)}, not those of model.classes"
        raise WeightsError(f"{loaded.path}: {problem}; set model.classes to them, or leave it out for faces")
    if max_batch is not None:
        loaded = replace(loaded, shape=loaded.shape.limited(max_batch))
    if device != "cpu" and loaded.form is Form.BISENET:
        most = most_scaled_up(len(settings.classes), settings.input_size)
        loaded = replace(loaded, shape=loaded.shape.limited(most))
    precision = precision_for(loaded, settings, device)
    return FaceParser(loaded, settings, device, precision, threads, most_threads)
