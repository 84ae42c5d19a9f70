"""Measures weights on the validation split: IoU of every class, and their mean.

    python tools/evaluate.py FACES [--weights FILE] [--json FILE]

Labels and pictures are compared at 512 x 512, as the daemon runs the network. Classes that
no validation picture holds are left out of the mean and named.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faces import Face, find_faces
from maskdrop.config import MODEL_SIDE, ModelSettings
from maskdrop.model.parser import FaceParser, load_parser
from maskdrop.parts import Part

BATCH = 8


def confusion(truth: NDArray[np.uint8], answer: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Pixels counted by true class (rows) and answered class (columns)."""
    pairs = truth.astype(np.int64).ravel() * classes + answer.ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def intersection_over_union(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of each class (Everingham et al. 2010, section 4.3); NaN where a class is absent from the truth."""
    hits = np.diag(counts).astype(np.float64)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return np.where(counts.sum(axis=1) > 0, hits / np.maximum(union, 1), np.nan)


def count_pixels(parser: FaceParser, faces: list[Face], size: int = MODEL_SIDE) -> NDArray[np.int64]:
    """`confusion` summed over faces, labels compared at ``size`` x ``size``."""
    counts = np.zeros((len(Part), len(Part)), dtype=np.int64)
    for start in range(0, len(faces), BATCH):
        pairs = [face.load(size) for face in faces[start : start + BATCH]]
        answers = parser.parse(np.stack([picture for picture, _ in pairs]))
        for (_, truth), answer in zip(pairs, answers, strict=True):
            counts += confusion(truth, answer, len(Part))
    return counts


def mean_iou_of(weights: Path, faces: list[Face], device: str, precision: str = "auto") -> float:
    """Mean IoU over the classes that the faces hold."""
    parser = load_parser(ModelSettings(weights=weights, precision=precision), device)
    return float(np.nanmean(intersection_over_union(count_pixels(parser, faces))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("faces", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--weights", type=Path, help="in place of the embedded weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "int8", "auto"])
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()

    _, validation = find_faces(options.faces)
    settings = ModelSettings(weights=options.weights, precision=options.precision)
    network = load_parser(settings, options.device)
    began = time.monotonic()
    counts = count_pixels(network, validation)
    scores = intersection_over_union(counts)

    for part in Part:
        shown = "absent" if np.isnan(scores[part]) else f"{scores[part]:.3f}"
        print(f"{part.label:12} {shown}")
    mean = float(np.nanmean(scores))
    accuracy = float(np.diag(counts).sum() / counts.sum())
    print(
        f"mIoU {mean:.4f} over {int(np.isfinite(scores).sum())} classes, pixel accuracy {accuracy:.4f}, "
        f"{len(validation)} pictures, {network.info.precision}, {time.monotonic() - began:.0f} s"
    )
    if options.json:
        iou = {part.label: None if np.isnan(scores[part]) else round(float(scores[part]), 4) for part in Part}
        figures = {"weights_sha256": network.info.sha256, "miou": round(mean, 4), "iou": iou}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
