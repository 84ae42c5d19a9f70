"""How sure a network is of its labels."""

import torch
from torch import Tensor

_CACHED_ROWS = 16
"""Rows of scores judged at once on a CPU: the intermediate arrays (600 KiB each for 19 classes and 512 pixels
a row) then stay in a core's cache. Measured in docs/performance.md."""


def certainty_of(scores: Tensor, labels: Tensor) -> Tensor:
    """For each class, the sum of its pixels' label probabilities (softmax), and the number of these pixels.

    Args:
        scores: float (classes, side, side).
        labels: int64 (side, side), the classes of the highest scores.

    Returns:
        float64 (classes, 2), on the scores' device.
    """
    if scores.device.type != "cpu":
        return summed_later(_of_best(scores.float()), labels, len(scores))
    strips = [_of_best(strip.float()) for strip in torch.split(scores, _CACHED_ROWS, dim=1)]
    return summed(torch.cat(strips), labels, len(scores))


def summed(probabilities: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sum and number of each class's probabilities, from two maps (side, side): float64 (classes, 2)."""
    flat = labels.flatten()
    sums = torch.bincount(flat, probabilities.double().flatten(), minlength=classes)
    return torch.stack([sums, torch.bincount(flat, minlength=classes).double()], dim=1)


def summed_later(probabilities: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The same without bincount, which waits for a GPU to report how many bins there are."""
    ones = torch.ones_like(probabilities, dtype=torch.float64)
    pairs = torch.stack([probabilities.double(), ones], dim=-1).view(-1, 2)
    return pairs.new_zeros(classes, 2).index_add_(0, labels.flatten(), pairs)


def _of_best(scores: Tensor) -> Tensor:
    """Probability (softmax) of the highest score's class, from scores (classes, rows, side)."""
    return (scores.amax(dim=0) - scores.logsumexp(dim=0)).exp()
