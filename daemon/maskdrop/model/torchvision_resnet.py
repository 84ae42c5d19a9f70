"""Imports torchvision's ResNet, also where torchvision's compiled operators cannot load.

A CPU build of torch beside the package index's torchvision (built for CUDA) is a common
pair. Its Python part needs nothing of the compiled one, but ``import torchvision``
attaches shape functions to two operators that only the compiled part declares, and fails
(https://github.com/pytorch/vision/issues/9085). Declaring their schemas first is enough.
"""

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _declare_missing_operators() -> None:
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", _SCHEMA)


try:
    from torchvision.models.resnet import BasicBlock, ResNet
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    _declare_missing_operators()
    from torchvision.models.resnet import BasicBlock, ResNet

__all__ = ["BasicBlock", "ResNet"]
