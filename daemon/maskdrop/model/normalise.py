"""Turning 8-bit pixels into the numbers the network was trained on."""

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue over ImageNet, on a scale of 0 to 1 (torchvision's reference)."""

DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of the same (torchvision's reference)."""


def normalise(pixels: Tensor) -> Tensor:
    """Scale to 0..1, subtract the mean, divide by the deviation.

    Args:
        pixels: (batch, 3, height, width), 0 to 255, any dtype.

    Returns:
        float32 of the same shape, on the same device.
    """
    mean = torch.tensor(MEAN, device=pixels.device).view(1, 3, 1, 1)
    deviation = torch.tensor(DEVIATION, device=pixels.device).view(1, 3, 1, 1)
    return pixels.float().div(255).sub_(mean).div_(deviation)
