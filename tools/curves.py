"""Draws a training run's log: loss, and mean IoU on the validation split where it was measured.

python tools/curves.py RUN/log.jsonl PICTURE.png
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def main(log: Path, target: Path) -> None:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    by_epoch = {line["epoch"]: line for line in lines}  # an epoch done twice after a stop counts once
    epochs = sorted(by_epoch)
    measured = [epoch for epoch in epochs if "miou" in by_epoch[epoch]]
    figure, losses = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    losses.plot(epochs, [by_epoch[epoch]["loss"] for epoch in epochs], color="tab:grey", label="loss")
    losses.set_xlabel("epoch")
    losses.set_ylabel("training loss")
    scores = losses.twinx()
    scores.plot(measured, [by_epoch[epoch]["miou"] for epoch in measured], "o-", color="tab:blue")
    scores.set_ylabel("mean IoU, validation, at 512 x 512", color="tab:blue")
    for before, epoch in pairwise(epochs):
        if by_epoch[epoch]["size"] != by_epoch[before]["size"]:
            losses.axvline(epoch - 0.5, color="lightgrey", linestyle=":")
            losses.annotate(f"{by_epoch[epoch]['size']} px", (epoch, losses.get_ylim()[1]), va="top")
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
