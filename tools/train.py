"""Trains the face-parsing network on a folder of images and labels.

    python tools/train.py FACES --out RUN --width 0.5 --size 256 --epochs 30
    python tools/train.py FACES --out RUN2 --start-from RUN/ema.safetensors --size 512 --epochs 8

Each epoch ends with a resumable checkpoint (``last.pt``), the averaged weights as fp16
safetensors (``ema.safetensors``) and a line in ``log.jsonl``. Run again with the same
--out, it goes on where it stopped.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from faces import Face, find_faces
from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.normalise import normalise
from maskdrop.model.weights import Card, load_network, save_weights
from maskdrop.parts import MIRROR_PAIRS, Part

STORED_SIZE = 512
AUXILIARY_WEIGHT = 0.4
EMA_DECAY = 0.997
WARM_UP = 0.05
"""Share of all steps over which the learning rate rises from nothing."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("faces", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and log")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--size", type=int, default=256, help="pixels a side, divisible by 32")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start-from", type=Path, help="safetensors to begin with")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def load_all(faces: list[Face]) -> tuple[Tensor, Tensor]:
    """All pictures, uint8 (n, 3, 512, 512), and label maps, uint8 (n, 1, 512, 512)."""
    pairs = [face.load(STORED_SIZE) for face in faces]
    pictures = torch.from_numpy(np.stack([picture for picture, _ in pairs])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([label for _, label in pairs])).unsqueeze(1)
    return pictures, labels


def class_weights(labels: Tensor) -> Tensor:
    """Loss weights: inverse square root of each label's frequency, at most 6 times skin's."""
    counts = torch.bincount(labels.flatten().long(), minlength=len(Part)).float()
    weights = (counts[Part.SKIN] / counts.clamp(min=1)).sqrt()
    return weights.clamp(0.5, 6.0)


def mirror_table() -> Tensor:
    table = torch.arange(len(Part))
    for left, right in MIRROR_PAIRS:
        table[left], table[right] = int(right), int(left)
    return table


def augment(pictures: Tensor, labels: Tensor, size: int, mirrored: Tensor) -> tuple[Tensor, Tensor]:
    """A random view of each picture: mirror, turn, scale, shift, colour.

    Args:
        pictures: uint8 (batch, 3, h, w).
        labels: uint8 (batch, 1, h, w).

    Returns:
        Normalised float (batch, 3, size, size) and int64 (batch, size, size).
    """
    count = len(pictures)
    angle = torch.randn(count) * math.radians(12)
    zoom = torch.empty(count).uniform_(math.log(0.75), math.log(1.8)).exp()
    zoom = torch.where(torch.rand(count) < 0.4, torch.ones(count), zoom)
    flip = torch.rand(count) < 0.5
    sign = torch.where(flip, -1.0, 1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    shift = (torch.rand(count, 2) - 0.5) * 0.3
    matrix = torch.stack(
        [torch.stack([cos * sign, -sin, shift[:, 0]], 1), torch.stack([sin * sign, cos, shift[:, 1]], 1)], 1
    )
    grid = functional.affine_grid(matrix, [count, 3, size, size], align_corners=False)
    view = functional.grid_sample(pictures.float(), grid, mode="bilinear", align_corners=False)
    target = functional.grid_sample(labels.float(), grid, mode="nearest", align_corners=False)
    target = target.squeeze(1).long()
    target[flip] = mirrored[target[flip]]
    return normalise(jitter(view)), target


def jitter(view: Tensor) -> Tensor:
    """Random brightness, contrast and saturation, sometimes grey, sometimes blurred; 0 to 255."""
    count = len(view)

    def factor(spread: float) -> Tensor:
        return torch.empty(count, 1, 1, 1).uniform_(1 - spread, 1 + spread)

    view = view * factor(0.4)
    mean = view.mean(dim=(1, 2, 3), keepdim=True)
    view = (view - mean) * factor(0.4) + mean
    grey = view.mean(dim=1, keepdim=True)
    saturation = torch.where(torch.rand(count, 1, 1, 1) < 0.1, torch.zeros(1), factor(0.5))
    view = (view - grey) * saturation + grey
    if random.random() < 0.2:
        view = functional.avg_pool2d(view, 3, stride=1, padding=1, count_include_pad=False)
    return view.clamp(0, 255)


def loss_of(network: BiSeNet, view: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of main and auxiliary heads, at half scale: full scale costs 4 times as much."""
    half = target[:, ::2, ::2]
    total = torch.zeros((), device=view.device)
    shares = (1.0, AUXILIARY_WEIGHT, AUXILIARY_WEIGHT)
    for scores, share in zip(network.raw_scores(view), shares, strict=True):
        scores = functional.interpolate(scores.float(), half.shape[1:], mode="bilinear", align_corners=True)
        total = total + share * functional.cross_entropy(scores, half, weights, label_smoothing=0.02)
    return total


def rate_at(step: int, steps: int) -> float:
    """Cosine decay after a linear warm-up, as a share of the peak rate."""
    warm = max(1, int(steps * WARM_UP))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def main() -> None:
    options = parse_arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    device = torch.device(options.device)

    training, _ = find_faces(options.faces)
    pictures, labels = load_all(training)
    weights = class_weights(labels).to(device)
    mirrored = mirror_table()

    if options.start_from:
        network = load_network(options.start_from).network
        options.width = network.width
    else:
        network = BiSeNet(len(Part), options.width)
    network = network.to(device).train()
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not options.start_from:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average_fn = get_ema_multi_avg_fn(EMA_DECAY)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=average_fn, use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=0.02)
    steps = options.epochs * (len(training) // options.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_at(step, steps))

    first = 0
    checkpoint = options.out / "last.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
        torch.manual_seed(options.seed + first)

    for epoch in range(first, options.epochs):
        began = time.monotonic()
        losses = []
        order = torch.randperm(len(training))
        whole = len(order) // options.batch
        for batch in order[: whole * options.batch].view(whole, options.batch):
            view, target = augment(pictures[batch], labels[batch], options.size, mirrored)
            view = view.to(device, memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = loss_of(network, view, target.to(device), weights)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 2.0)
            optimiser.step()
            schedule.step()
            average.update_parameters(network)
            losses.append(loss.item())
        state = {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(),
            "epoch": epoch + 1,
        }
        partial = checkpoint.with_suffix(".tmp")
        torch.save(state, partial)
        partial.replace(checkpoint)
        card = Card(
            width=network.width,
            classes=[part.label for part in Part],
            source=f"{len(training)} faces of CelebAMask-HQ, from scratch, maskdrop tools/train.py",
            licence="trained on CelebAMask-HQ: non-commercial research use only",
        )
        save_weights(options.out / "ema.safetensors", average.module, card)
        line = {"epoch": epoch + 1, "loss": sum(losses) / len(losses), "seconds": time.monotonic() - began}
        with (options.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
