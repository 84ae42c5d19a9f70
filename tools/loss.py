"""What training minimises: cross-entropy weighted by class, and overlap, which is measured in the end."""

import torch
from torch import Tensor
from torch.nn import functional

from maskdrop.model.bisenet import BiSeNet
from maskdrop.parts import Part

AUXILIARY_SHARE = 0.4
"""Weight of each auxiliary head's loss."""

OVERLAP_SHARE = 0.7
"""Weight of the overlap term beside the cross-entropy."""

SMOOTHING = 0.02
"""Label smoothing: the borders of hand-drawn labels are uncertain."""


def class_weights(labels: Tensor) -> Tensor:
    """Weights for the cross-entropy: inverse square root of each label's frequency, 0.5 to 5 times skin's."""
    counts = torch.bincount(labels.flatten().long(), minlength=len(Part)).float()
    weights = (counts[Part.SKIN] / counts.clamp(min=1)).sqrt()
    return weights.clamp(0.5, 5.0)


def repeat_factors(labels: Tensor, threshold: float) -> Tensor:
    """How often to draw each picture so that rare classes are seen more.

    A class that a share ``f`` of the pictures holds has the factor ``max(1, sqrt(threshold / f))``;
    a picture has the factor of its rarest class (Gupta et al. 2019, LVIS, section 4.2).

    Args:
        labels: uint8 (pictures, 1, height, width).

    Returns:
        float (pictures,), each at least 1.
    """
    present = torch.stack([torch.bincount(one.flatten().long(), minlength=len(Part)) > 0 for one in labels])
    share = present.float().mean(dim=0).clamp(min=1e-6)
    factor = (threshold / share).sqrt().clamp(min=1.0)
    return (present.float() * factor).amax(dim=1)


def overlap_loss(scores: Tensor, target: Tensor) -> Tensor:
    """One minus the mean soft IoU of the classes that the batch holds (Rahman and Wang 2016).

    Args:
        scores: float (batch, classes, h, w).
        target: int64 (batch, h, w).
    """
    chances = scores.softmax(dim=1)
    truth = functional.one_hot(target, scores.shape[1]).permute(0, 3, 1, 2).to(chances.dtype)
    both = (chances * truth).sum(dim=(0, 2, 3))
    either = (chances + truth).sum(dim=(0, 2, 3)) - both
    present = truth.sum(dim=(0, 2, 3)) > 0
    return 1 - ((both + 1) / (either + 1))[present].mean()


def hard_cross_entropy(scores: Tensor, target: Tensor, weights: Tensor, share: float) -> Tensor:
    """Weighted cross-entropy over the pixels that the network finds hardest (OHEM, Shrivastava et al. 2016).

    Args:
        scores: float (batch, classes, h, w).
        target: int64 (batch, h, w).
        weights: `class_weights`.
        share: how many of the pixels count, 0 to 1; 1 is the plain cross-entropy.
    """
    if share >= 1:
        return functional.cross_entropy(scores, target, weights, label_smoothing=SMOOTHING)
    each = functional.cross_entropy(scores, target, weights, label_smoothing=SMOOTHING, reduction="none")
    hardest = each.flatten().topk(max(1, int(each.numel() * share)), sorted=False)
    return hardest.values.sum() / weights[target.flatten()[hardest.indices]].sum()


def loss_of(network: BiSeNet, view: Tensor, target: Tensor, weights: Tensor, hard: float = 1.0) -> Tensor:
    """Loss of the main head at half scale, and of the auxiliary heads at a quarter: finer costs too much.

    Args:
        view: normalised float (batch, 3, size, size).
        target: int64 (batch, size, size).
        weights: `class_weights`.
        hard: share of the main head's pixels that count, the hardest ones.
    """
    main, *auxiliary = network.raw_scores(view)
    half, quarter = target[:, ::2, ::2], target[:, ::4, ::4]
    scores = _at_scale_of(half, main)
    total = hard_cross_entropy(scores, half, weights, hard)
    total = total + OVERLAP_SHARE * overlap_loss(scores, half)
    for other in auxiliary:
        entropy = functional.cross_entropy(
            _at_scale_of(quarter, other), quarter, weights, label_smoothing=SMOOTHING
        )
        total = total + AUXILIARY_SHARE * entropy
    return total


def _at_scale_of(target: Tensor, scores: Tensor) -> Tensor:
    return functional.interpolate(scores.float(), target.shape[1:], mode="bilinear", align_corners=True)
