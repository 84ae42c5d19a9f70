"""The network as it is run gives what the plain network gives: same scores, same labels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.nn import functional

from maskdrop.model.folded import FoldedBiSeNet, scale_up
from maskdrop.model.fused import HalvingPool, can_fuse
from maskdrop.model.laid_out import in_format
from maskdrop.model.normalise import normalise
from maskdrop.model.winners import first_of_highest, labels_of
from waiting import PATIENCE_S
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [32, 98, 100, 256])
def test_fused_steps_give_what_the_folded_network_gives(side: int, dtype: torch.dtype) -> None:
    """In fp32 but for rounding; in bf16 about as far from fp32 as the same network in single steps."""
    if not can_fuse(dtype):
        pytest.skip(f"this PyTorch has no fused steps in {dtype} on this processor")
    pixels = torch.from_numpy(
        np.random.default_rng(side).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    )
    with torch.inference_mode():
        exact = FoldedBiSeNet(tiny_network(0.25), *IMAGENET)(pixels, torch.channels_last)
        single, fused = (FoldedBiSeNet(tiny_network(0.25), *IMAGENET).to(dtype) for _ in range(2))
        for network in (single, fused):
            in_format(network, torch.channels_last)
        fused.fuse()
        distances = [float((net(pixels, torch.channels_last) - exact).abs().max()) for net in (single, fused)]
    assert distances[1] <= max(1.5 * distances[0], 1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("threads", [(1, 3), (3, 1), (2, 2)])
def test_weights_are_laid_out_for_however_many_threads_come(threads: tuple[int, int]) -> None:
    """Also for more than there were when the network was made."""
    if not can_fuse(torch.float32):
        pytest.skip("this PyTorch has no fused steps in fp32 on this processor")
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads[0])
        with torch.inference_mode():
            network = FoldedBiSeNet(tiny_network(0.25), *IMAGENET)
            in_format(network, torch.channels_last)
            plain = network(pixels, torch.channels_last)
            network.fuse()
            found = [network(pixels, torch.channels_last)]
            torch.set_num_threads(threads[1])
            found += [network(pixels, torch.channels_last) for _ in range(2)]
    finally:
        torch.set_num_threads(before)
    for scores in found:
        torch.testing.assert_close(scores, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_a_type_without_fused_steps_is_found_out_by_trying() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert not can_fuse(torch.float64)
    can_fuse(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_compiler_is_imported_to_run_the_network(tiny_weights: Path) -> None:
    """PyTorch's takes a second to import, and makes a folder in /tmp."""
    program = f"""
import sys
from pathlib import Path
from maskdrop.config import ModelSettings
from maskdrop.model.parser import load_parser
load_parser(ModelSettings(weights=Path({str(tiny_weights)!r})), "cpu", 2).probe()
print([name for name in sys.modules if name.startswith(("torch._inductor", "sympy"))])
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert told.stdout == "[]\n", told.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("height", "width"), [(2, 2), (16, 10), (7, 8), (9, 9)])
def test_the_pool_is_pytorchs(height: int, width: int, dtype: torch.dtype) -> None:
    wide = torch.randn(2, 8, height, width) * torch.logspace(-38, 38, 8).view(1, 8, 1, 1)
    x = wide.to(dtype).relu().contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, 0], x[1, 7, 1, 1] = torch.inf, torch.nan
    x[0, 1] = -0.0
    expected = functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    torch.testing.assert_close(HalvingPool()(x), expected, rtol=0, atol=0, equal_nan=True)


def test_the_pool_of_every_bfloat16_that_a_relu_leaves() -> None:
    every = torch.arange(1, 0x7F81, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)  # to infinity
    shuffled = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(1))]
    x = shuffled.view(1, 1, 96, 340).contiguous(memory_format=torch.channels_last)
    assert torch.equal(HalvingPool()(x), functional.max_pool2d(x, kernel_size=3, stride=2, padding=1))


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


@given(st.integers(1, 256), st.integers(1, 9), st.integers(0), st.booleans())
def test_the_first_of_several_highest_scores_wins(classes: int, cells: int, seed: int, alike: bool) -> None:
    torch.manual_seed(seed % 2**63)
    scores = torch.randint(-2, 3, (classes, cells)).float() if alike else torch.randn(classes, cells)
    assert torch.equal(first_of_highest(scores.clone()).long(), scores.argmax(dim=0))
    scores[:] = torch.nan
    assert int(first_of_highest(scores).max()) < classes


def test_a_class_that_wins_at_no_corner_may_win_between_them() -> None:
    scores = torch.tensor([[[0.0, 4.0], [0.0, 4.0]], [[4.0, 0.0], [4.0, 0.0]], [[3.0, 3.0], [3.0, 3.0]]])
    assert labels_of(scores[None], 9)[0, 4].tolist() == [1, 1, 1, 2, 2, 2, 0, 0, 0]
