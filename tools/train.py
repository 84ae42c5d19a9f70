"""Trains the face-parsing network on a folder of images and labels.

    python tools/train.py FACES --out RUN --width 0.5 --stages 256x40 384x30 512x10
    python tools/train.py FACES --out RUN2 --start-from RUN/ema.safetensors --stages 512x8 --rate 5e-4

A stage ``256x40`` is 40 epochs at 256 x 256 pixels; one cosine schedule spans all stages. Each
epoch ends with a resumable checkpoint (``last.pt``), the averaged weights as fp16 safetensors
(``ema.safetensors``) and a line in ``log.jsonl``, every few epochs with the mean IoU on the
validation split. Run again with the same --out, it goes on where it stopped, and ends as it
would have without the stop: random numbers are seeded again at each epoch.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from augment import mirror_table, random_view
from evaluate import mean_iou_of
from faces import Face, find_faces
from loss import class_weights, loss_of, repeat_factors
from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.laid_out import in_format
from maskdrop.model.load import load_network
from maskdrop.model.normalise import normalise
from maskdrop.model.weights import Card, save_weights
from maskdrop.parts import Part

STORED_SIZE = 512
EMA_DECAY = 0.998
RARE = 0.25
"""Pictures of a class that fewer than this share of the pictures hold are drawn more often."""

WARM_UP = 0.03
"""Share of all steps over which the learning rate rises from zero."""


@dataclass(frozen=True)
class TrainingStage:
    """A number of epochs at one size, in pixels per side."""

    size: int
    epochs: int

    @classmethod
    def parse(cls, text: str) -> "TrainingStage":
        size, _, epochs = text.partition("x")
        stage = cls(int(size), int(epochs))
        if stage.size % 32 or stage.size <= 0 or stage.epochs <= 0:
            raise argparse.ArgumentTypeError(f"{text}: the size must divide by 32, and there must be epochs")
        return stage


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("faces", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and log")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument(
        "--stages",
        type=TrainingStage.parse,
        nargs="+",
        default=[TrainingStage(256, 40), TrainingStage(384, 30), TrainingStage(512, 10)],
        help="SIZExEPOCHS, in order",
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--measure-every", type=int, default=5, help="epochs between two measurements")
    parser.add_argument(
        "--hard", type=float, default=1.0, help="share of the pixels, the hardest, that count in the loss"
    )
    parser.add_argument("--start-from", type=Path, help="safetensors to begin with")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def load_all(faces: list[Face]) -> tuple[Tensor, Tensor]:
    """All pictures, uint8 (n, 3, 512, 512), and label maps, uint8 (n, 1, 512, 512)."""
    pairs = [face.load(STORED_SIZE) for face in faces]
    pictures = torch.from_numpy(np.stack([picture for picture, _ in pairs])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([label for _, label in pairs])).unsqueeze(1)
    return pictures, labels


def rate_at(step: int, steps: int) -> float:
    """Cosine decay after a linear warm-up, as a share of the peak rate."""
    warm = max(1, int(steps * WARM_UP))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def new_network(options: argparse.Namespace) -> BiSeNet:
    if options.start_from:
        loaded = load_network(options.start_from).network
        assert isinstance(loaded, BiSeNet)
        return loaded
    network = BiSeNet(len(Part), options.width)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


class Trainer:
    """A network in training: runs one epoch at a time, writes and reads checkpoints."""

    def __init__(self, options: argparse.Namespace, training: list[Face]) -> None:
        self._options = options
        self._device = torch.device(options.device)
        self._pictures, self._labels = load_all(training)
        self._weights = class_weights(self._labels).to(self._device)
        self._chances = repeat_factors(self._labels, RARE)
        self._mirrored = mirror_table()
        network = new_network(options).to(self._device).train()
        self.network = in_format(network, torch.channels_last)
        average_fn = get_ema_multi_avg_fn(EMA_DECAY)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(self.network, multi_avg_fn=average_fn, use_buffers=True)
        self._optimiser = torch.optim.AdamW(self.network.parameters(), lr=options.rate, weight_decay=0.02)
        self.epochs = [stage for stage in options.stages for _ in range(stage.epochs)]
        self._batches = len(training) // options.batch
        steps = len(self.epochs) * self._batches
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, lambda step: rate_at(step, steps))

    def train_epoch(self, epoch: int) -> float:
        """Train for one epoch; its mean loss. Pictures are drawn by their repeat factors."""
        torch.manual_seed(self._options.seed * 100_003 + epoch)
        size, batch = self.epochs[epoch].size, self._options.batch
        drawn = torch.multinomial(self._chances, self._batches * batch, replacement=True)
        losses = [self._step(chosen, size) for chosen in drawn.view(self._batches, batch)]
        return sum(losses) / len(losses)

    def _step(self, chosen: Tensor, size: int) -> float:
        view, target = random_view(self._pictures[chosen], self._labels[chosen], size, self._mirrored)
        view = normalise(view).to(self._device, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            loss = loss_of(self.network, view, target.to(self._device), self._weights, self._options.hard)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self._optimiser.step()
        self._schedule.step()
        self._average.update_parameters(self.network)
        return loss.item()

    def save(self, path: Path, epoch: int) -> None:
        parts = {name: part.state_dict() for name, part in self._parts()}
        partial = path.with_suffix(".tmp")
        torch.save({**parts, "epoch": epoch}, partial)
        partial.replace(path)

    def resume(self, path: Path) -> int:
        """Take up a checkpoint; the number of epochs done in it."""
        saved = torch.load(path, weights_only=True, map_location=self._device)
        for name, part in self._parts():
            part.load_state_dict(saved[name])
        return int(saved["epoch"])

    def export(self, path: Path) -> None:
        """Write the averaged weights, as the daemon loads them."""
        card = Card(
            width=self.network.width,
            classes=[part.label for part in Part],
            source=f"{len(self._pictures)} faces of CelebAMask-HQ, from scratch, maskdrop tools/train.py",
            licence="trained on CelebAMask-HQ: non-commercial research use only",
        )
        save_weights(path, self._average.module, card)

    def _parts(self) -> list[tuple[str, Any]]:
        return [
            ("network", self.network),
            ("average", self._average),
            ("optimiser", self._optimiser),
            ("schedule", self._schedule),
        ]


def main() -> None:
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    training, validation = find_faces(options.faces)
    if len(training) < options.batch or not validation:
        told = f"{len(training)} faces to train with and {len(validation)} to measure on"
        sys.exit(f"{options.faces}: {told}; --batch {options.batch} and one are the least")
    trainer = Trainer(options, training)
    checkpoint, weights = options.out / "last.pt", options.out / "ema.safetensors"
    first = trainer.resume(checkpoint) if checkpoint.exists() else 0

    for epoch in range(first, len(trainer.epochs)):
        began = time.monotonic()
        loss = trainer.train_epoch(epoch)
        trainer.export(weights)
        line = {
            "epoch": epoch + 1,
            "size": trainer.epochs[epoch].size,
            "loss": round(loss, 4),
            "seconds": round(time.monotonic() - began, 1),
        }
        if (epoch + 1) % options.measure_every == 0 or epoch + 1 == len(trainer.epochs):
            line["miou"] = round(mean_iou_of(weights, validation, options.device), 4)
        with (options.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(line, flush=True)
        trainer.save(checkpoint, epoch + 1)


if __name__ == "__main__":
    main()
