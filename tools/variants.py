"""A table for choosing width and input size: mean IoU, megabytes and milliseconds a picture.

    python tools/variants.py FACES --weights A.safetensors B.safetensors --sizes 320 384 448 512 640

Each network reads the validation pictures at each size; its labels are scaled to 512 x 512 and
compared there. Milliseconds are the median of one picture at a time, one core, automatic precision.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from evaluate import confusion, intersection_over_union
from faces import find_faces
from maskdrop.config import MODEL_SIDE, ModelSettings
from maskdrop.model.embedded import embedded_weights
from maskdrop.model.load import load_network
from maskdrop.model.parser import FaceParser, load_parser
from maskdrop.parts import Part
from maskdrop.results.mask import scale_labels

Pixels = NDArray[np.uint8]
TIMED = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("faces", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--weights", type=Path, nargs="+", default=[embedded_weights()])
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 384, 448, 512, 640])
    options = parser.parse_args()
    _, validation = find_faces(options.faces)
    pairs = [face.load(MODEL_SIDE) for face in validation]
    print(f"torch {torch.__version__}\n")
    print("| weights | width | MB | input | mIoU | ms a picture |\n|---|---|---|---|---|---|", flush=True)
    for weights in options.weights:
        for size in options.sizes:
            network = load_parser(ModelSettings(weights=weights, input_size=size), "cpu")
            miou, milliseconds = measure(network, pairs, size)
            file = f"{weights.stem} | {width_of(weights):g} | {weights.stat().st_size / 1e6:.1f}"
            print(f"| {file} | {size} | {miou:.3f} | {milliseconds:.0f} |", flush=True)


def width_of(weights: Path) -> float:
    return load_network(weights).card.width


def measure(network: FaceParser, pairs: list[tuple[Pixels, Pixels]], size: int) -> tuple[float, float]:
    """Mean IoU, and the median of milliseconds."""
    counts, times = np.zeros((len(Part), len(Part)), dtype=np.int64), []
    for picture, truth in pairs:
        resized = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR)
        began = time.perf_counter()
        labels = network.parse(np.array(resized)[np.newaxis])[0]
        times.append((time.perf_counter() - began) * 1000)
        counts += confusion(truth, scale_labels(labels, MODEL_SIDE, MODEL_SIDE), len(Part))
    return float(np.nanmean(intersection_over_union(counts))), statistics.median(times[-TIMED:])


if __name__ == "__main__":
    main()
