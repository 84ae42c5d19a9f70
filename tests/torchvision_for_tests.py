"""Lets the whole of torchvision be imported beside a CPU build of torch, for tests that export its networks.

The package index's torchvision is built for CUDA; ``import torchvision`` attaches shape functions
to two operators that only its compiled part declares. Declaring their schemas first is enough.
"""

import torch


def make_importable() -> None:
    """Declare what is missing, if anything is."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
