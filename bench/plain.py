"""The article's loop in a single process: one picture after the other through all three steps.

    python bench/plain.py PICTURES RESULTS [--threads 0]

The clock starts when the network is loaded and has labelled one picture. Prints JSON.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import article_steps


def run(pictures: Path, target: Path) -> dict[str, Any]:
    """Do all pictures of a folder; seconds in all, and mean milliseconds of each stage."""
    net = article_steps.network()
    paths = sorted(pictures.iterdir())
    article_steps.infer(net, article_steps.preprocess(paths[0])[0])
    spent = {"preprocess": 0.0, "infer": 0.0, "save": 0.0}
    began = time.monotonic()
    for path in paths:
        first = time.monotonic()
        tensor, pixels = article_steps.preprocess(path)
        second = time.monotonic()
        labels = article_steps.infer(net, tensor)
        third = time.monotonic()
        article_steps.finish(labels, pixels, target / path.name)
        spent["preprocess"] += second - first
        spent["infer"] += third - second
        spent["save"] += time.monotonic() - third
    seconds = time.monotonic() - began
    stages = {stage: value * 1000 / len(paths) for stage, value in spent.items()}
    return {"pictures": len(paths), "seconds": seconds, "stages": stages, "queues": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0: PyTorch's own choice")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.results.mkdir(parents=True, exist_ok=True)
    print(json.dumps(run(options.pictures, options.results)))


if __name__ == "__main__":
    main()
