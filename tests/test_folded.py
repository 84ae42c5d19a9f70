"""The network as it is run gives what the plain network gives: same scores, same labels."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn import functional

from maskdrop.model.folded import FoldedBiSeNet, scale_up
from maskdrop.model.normalise import normalise
from maskdrop.model.winners import labels_of
from weights_for_tests import tiny_network

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OTHERS = ((0.0, 0.5, 1.0), (1.0, 0.1, 0.5))


@pytest.mark.parametrize("side", [32, 100, 256])
@pytest.mark.parametrize(("mean", "deviation"), [IMAGENET, OTHERS])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_folding_changes_no_score(
    side: int,
    mean: tuple[float, float, float],
    deviation: tuple[float, float, float],
    memory_format: torch.memory_format,
) -> None:
    """At the borders too, where the plain network pads the normalised picture with zeros."""
    network = tiny_network(0.25)
    pixels = torch.from_numpy(
        np.random.default_rng(side).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    )
    with torch.inference_mode():
        plain = network(normalise(pixels.permute(0, 3, 1, 2), mean, deviation))
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        folded = FoldedBiSeNet(network, mean, deviation)
        scores = scale_up(folded(pixels, memory_format), side)
    spread = float(plain.std())
    torch.testing.assert_close(scores, plain, rtol=0, atol=1e-4 * max(1.0, spread))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@given(
    st.integers(1, 3),
    st.integers(2, 25),
    st.integers(2, 9),
    st.integers(0, 96),
    st.integers(0, 8),
    st.integers(0),
)
@example(1, 19, 64, 448, 4, 1)
@example(2, 2, 2, 0, 0, 1)
def test_labels_are_the_argmax_of_all_scores_scaled_up(
    batch: int, classes: int, n: int, more: int, smooth: int, seed: int
) -> None:
    """From wild scores to smooth ones, and from a scale of 1 upwards; where the best two are equal
    but for rounding, either may win.
    """
    side = n + more
    torch.manual_seed(seed % 2**63)
    scores = torch.randn(batch, classes, n, n)
    for _ in range(smooth):
        scores = functional.avg_pool2d(scores, 3, stride=1, padding=1, count_include_pad=False)
    scaled = scale_up(scores, side)
    best = scaled.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 1e-5
    labels = labels_of(scores, side)
    assert labels.dtype == torch.uint8
    assert labels.shape == (batch, side, side)
    assert torch.equal(labels[clear].long(), scaled.argmax(dim=1)[clear])


def test_a_class_that_wins_at_no_corner_may_win_between_them() -> None:
    scores = torch.tensor([[[0.0, 4.0], [0.0, 4.0]], [[4.0, 0.0], [4.0, 0.0]], [[3.0, 3.0], [3.0, 3.0]]])
    assert labels_of(scores[None], 9)[0, 4].tolist() == [1, 1, 1, 2, 2, 2, 0, 0, 0]
