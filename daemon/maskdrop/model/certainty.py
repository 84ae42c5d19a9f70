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
    if scores.device.type != "cpu":
        return summed_later(_of_best(scores.float()), labels, len(scores))
    strips = [_of_best(strip.float()) for strip in torch.split(scores, _CACHED_ROWS, dim=1)]
    return summed(torch.cat(strips), labels, len(scores))


def summed(probabilities: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sum and number of the probabilities (side, side) of each class: float64 (classes, 2)."""
    flat = labels.flatten()
    sums = torch.bincount(flat, probabilities.double().flatten(), minlength=classes)
    return torch.stack([sums, torch.bincount(flat, minlength=classes).double()], dim=1)


def summed_later(probabilities: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The same without bins: a GPU would have to tell first how many there are, and be waited for."""
    ones = torch.ones_like(probabilities, dtype=torch.float64)
    pairs = torch.stack([probabilities.double(), ones], dim=-1).view(-1, 2)
    return pairs.new_zeros(classes, 2).index_add_(0, labels.flatten(), pairs)


def _of_best(scores: Tensor) -> Tensor:
    """Probability (softmax) of the class of highest score, of scores (classes, rows, side)."""
    return (scores.amax(dim=0) - scores.logsumexp(dim=0)).exp()
