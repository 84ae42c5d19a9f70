"""Turning 8-bit pixels into the numbers the network was trained on."""

from functools import lru_cache

import torch
from torch import Tensor

from maskdrop.config import IMAGENET_DEVIATION, IMAGENET_MEAN

Channels = tuple[float, float, float]


def normalise(
    pixels: Tensor, mean: Channels = IMAGENET_MEAN, deviation: Channels = IMAGENET_DEVIATION
) -> Tensor:
    """Scale to 0..1, subtract the mean, divide by the deviation.

    Args:
        pixels: (batch, 3, height, width), 0 to 255, any dtype.

    Returns:
        float32 of the same shape, on the same device.
    """
    middle, spread = _on(pixels.device, mean), _on(pixels.device, deviation)
    return pixels.float().div(255).sub_(middle).div_(spread)


@lru_cache(maxsize=8)
def _on(device: torch.device, channels: Channels) -> Tensor:
    """Channels as a tensor on a device. Cached, because copying them there waits for the device."""
    return torch.tensor(channels, device=device).view(1, 3, 1, 1)
