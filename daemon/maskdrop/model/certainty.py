"""How sure a network is of the labels it gave."""

import torch
from torch import Tensor

_CACHED_ROWS = 16
"""Rows of scores that are judged at once on a CPU: what is computed of them on the way (600 KiB each for 19
classes and 512 pixels a row) stays in a core's cache. Measured in docs/performance.md."""


def certainty_of(scores: Tensor, labels: Tensor) -> Tensor:
    """The sum of the probabilities (softmax) of the labels over each class's pixels, and the number of these.

    Args:
        scores: float (classes, side, side).
        labels: int64 (side, side), of the highest scores.

    Returns:
        float64 (classes, 2), on their device.
    """
    flat, count = labels.flatten(), len(scores)
    rows = _CACHED_ROWS if scores.device.type == "cpu" else scores.shape[1]
    strips = [_of_best(strip.float()) for strip in torch.split(scores, rows, dim=1)]
    sums = torch.bincount(flat, torch.cat(strips).double().flatten(), minlength=count)
    return torch.stack([sums, torch.bincount(flat, minlength=count).double()], dim=1)


def _of_best(scores: Tensor) -> Tensor:
    """Probability (softmax) of the class of highest score, of scores (classes, rows, side)."""
    return (scores.amax(dim=0) - scores.logsumexp(dim=0)).exp()
