"""The network in whole numbers of 8 bits: each step against plain arithmetic, all of it against fp32."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from drawing import encode
from maskdrop.config import ModelSettings
from maskdrop.model.errors import WeightsError
from maskdrop.model.folded import FoldedBiSeNet
from maskdrop.model.fused import HalvingPool
from maskdrop.model.known import known_picture
from maskdrop.model.laid_out import in_format
from maskdrop.model.parser import load_parser
from maskdrop.model.quantised import QuantisedConv, can_quantise, codes_of
from maskdrop.model.ranges import ranges_of
from maskdrop.model.weights import Card, save_weights
from running import Daemon, Rooms
from test_model import pictures_of
from waiting import PATIENCE_S
from weights_for_tests import EMBEDDED, skip_without_programs, tiny_network

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

has_int8 = pytest.mark.skipif(
    not can_quantise(), reason="this processor, or this PyTorch, has no whole numbers of 8 bits"
)

INT8 = ModelSettings(precision="int8")


def in_whole_numbers(conv: nn.Conv2d, codes: Tensor, scale: float, middle: int) -> Tensor:
    """What `QuantisedConv` is to compute, before its ReLU, in float64: only weights are rounded."""
    weight = conv.weight.detach()
    scales = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127
    whole, scales, weight = (weight / scales).round().double(), scales.double(), weight.double()
    bias = torch.zeros(len(weight)) if conv.bias is None else conv.bias.detach()
    sums = nn.functional.conv2d(codes.double(), whole, None, conv.stride, conv.padding)
    taken = middle * scale * weight.sum(dim=(1, 2, 3))
    return sums * scale * scales.view(1, -1, 1, 1) + (bias.double() - taken).view(1, -1, 1, 1)


@has_int8
@given(
    inputs=st.sampled_from([3, 8, 24, 64]),
    outputs=st.sampled_from([8, 19, 32]),
    kernel=st.sampled_from([1, 3, 7]),
    stride=st.sampled_from([1, 2]),
    bias=st.booleans(),
    relu=st.booleans(),
    middle=st.sampled_from([0, 128]),
    seed=st.integers(0, 10_000),
)
def test_a_step_is_a_convolution_of_whole_numbers(
    inputs: int, outputs: int, kernel: int, stride: int, bias: bool, relu: bool, middle: int, seed: int
) -> None:
    torch.manual_seed(seed)
    padding = 0 if middle else kernel // 2  # what is padded with zeros can't have anything taken off
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)
    codes = torch.randint(0, 256, (1, inputs, 16, 16), dtype=torch.uint8)
    codes = codes.contiguous(memory_format=torch.channels_last)
    scale = 0.02
    expected = in_whole_numbers(conv, codes, scale, middle)
    if relu:
        expected = expected.clamp(min=0)
    with torch.inference_mode():
        plain = QuantisedConv(conv, scale, torch.float32, relu, middle)(codes)
        result = max(float(expected.max()), 1e-3) / 200  # some are beyond the largest code, if one is 200
        found = QuantisedConv(conv, scale, result / 2, relu, middle)(codes)
    torch.testing.assert_close(plain.double(), expected, rtol=1e-4, atol=1e-4)
    wanted = (expected / (result / 2)).clamp(0, 255)
    assert found.dtype == torch.uint8
    assert float((found.double() - wanted).abs().max()) <= 0.51  # the nearest code, but for ties


@has_int8
@pytest.mark.parametrize("is_coded", [True, False])
def test_a_sum_is_written_over_what_is_added(is_coded: bool) -> None:
    torch.manual_seed(3)
    conv = nn.Conv2d(16, 16, 3, padding=1)
    codes = torch.randint(0, 256, (1, 16, 8, 8), dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    other = torch.randint(0, 256, (1, 16, 8, 8), dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    own, others = 0.02, 0.03
    expected = (in_whole_numbers(conv, codes, own, 0) + other.double() * others).clamp(min=0)
    with torch.inference_mode():
        if is_coded:
            result = float(expected.max()) / 255
            found = QuantisedConv(conv, own, result).added_to(other, codes, others)
            assert float((found.double() - expected / result).abs().max()) <= 0.51
        else:
            other = other.float() * others
            found = QuantisedConv(conv, own, torch.float32).added_to(other, codes)
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found, other)


@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=50), st.floats(1e-3, 1e3))
def test_numbers_become_the_nearest_code(numbers: list[float], scale: float) -> None:
    given_numbers = torch.tensor(numbers).view(1, 1, 1, -1)
    codes = codes_of(given_numbers, scale).double()
    wanted = (given_numbers.double() / scale).clamp(max=255)
    assert float((codes - wanted).abs().max()) <= 0.5 + 1e-4


@pytest.mark.parametrize("side", [8, 49])
def test_the_pool_takes_codes(side: int) -> None:
    codes = torch.randint(0, 256, (1, 8, side, side), dtype=torch.uint8)
    codes = codes.contiguous(memory_format=torch.channels_last)
    expected = nn.functional.max_pool2d(codes.float(), kernel_size=3, stride=2, padding=1)
    assert torch.equal(HalvingPool()(codes).float(), expected)


@has_int8
@pytest.mark.parametrize("side", [98, 100, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [0.125, 0.25])
def test_the_network_scores_nearly_as_in_fp32(side: int, dtype: torch.dtype, width: float) -> None:
    """On a picture that none of its ranges were measured with."""
    measured, pixels = (
        torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (1, side, side, 3), dtype=np.uint8))
        for seed in (1, 2)
    )
    with torch.inference_mode():
        network = FoldedBiSeNet(tiny_network(width), *IMAGENET)
        in_format(network, torch.channels_last)
        exact = network(pixels, torch.channels_last)
        told = network(measured, torch.channels_last)
        assert torch.equal(network.quantise(measured, dtype), told)
        scores = network(pixels, torch.channels_last).float()
    spread = exact - exact.mean()
    correlation = float(
        (spread * (scores - scores.mean())).sum() / spread.norm() / (scores - scores.mean()).norm()
    )
    assert correlation > 0.99
    assert float((scores - exact).abs().mean()) < 0.1 * float(spread.abs().mean())


@has_int8
def test_labels_are_nearly_those_of_fp32(faces: list[Path]) -> None:
    if not faces:
        pytest.skip("no photographs of faces here: set MASKDROP_FACES")
    pictures = pictures_of(faces[::60], 14)
    exact = load_parser(ModelSettings(precision="fp32"), "cpu").parse(pictures)
    assert (exact == load_parser(INT8, "cpu").parse(pictures)).mean() >= 0.995


@has_int8
def test_labels_are_the_same_with_however_many_threads() -> None:
    """Its scales too, which are measured with all of them."""
    pictures = np.stack([known_picture(512), np.roll(known_picture(512), 100, axis=0), known_picture(512)])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(load_parser(INT8, "cpu", threads).parse(pictures))
            found.append(np.concatenate([load_parser(INT8, "cpu").parse(pictures[:1]), found[-1][1:]]))
    finally:
        torch.set_num_threads(before)
    for labels in found[1:]:
        np.testing.assert_array_equal(labels, found[0])


def test_ranges_are_the_largest_numbers() -> None:
    network = FoldedBiSeNet(tiny_network(), *IMAGENET)
    pixels = torch.from_numpy(known_picture(64)[np.newaxis])
    seen: list[Tensor] = []
    inner = network._network
    hook = inner.ffm.register_forward_hook(lambda _, __, made: seen.append(made.clone()))
    with torch.inference_mode():
        ranges = ranges_of(inner, lambda: network(pixels, torch.channels_last))
        hook.remove()
        network(pixels, torch.channels_last)  # nothing is noted any more
    assert ranges.made[inner.ffm] == [float(seen[0].max())]
    (block, *_) = [module for name, module in inner.named_modules() if name.endswith("layer1.0")]
    assert len(ranges.made[block.relu]) == 2
    assert min(most for numbers in ranges.made.values() for most in numbers) > 0


@has_int8
def test_a_network_that_8_bits_are_too_few_for_is_refused(tmp_path: Path) -> None:
    """Here one channel's numbers are so much larger than the others' that these have no codes left."""
    network = tiny_network()
    with torch.no_grad():
        network.cp.resnet.bn1.weight[0] *= 1e3  # files keep numbers of 16 bits
    path = tmp_path / "uneven.safetensors"
    save_weights(path, network, Card(width=0.125, source="random, for tests"))
    load_parser(ModelSettings(weights=path), "cpu")
    with pytest.raises(
        WeightsError, match=r"uneven\.safetensors: only .*% .* int8 as in fp32; set model\.pr"
    ):
        load_parser(ModelSettings(weights=path, precision="int8"), "cpu")


@has_int8
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_damaged_weights_are_told_as_in_other_precisions(tmp_path: Path, number: float) -> None:
    """Codes hold neither, and hide them."""
    network = tiny_network()
    with torch.no_grad():
        network.cp.resnet.conv1.weight[1, 0, 0, 0] = number
    path = tmp_path / "damaged.safetensors"
    save_weights(path, network, Card(width=0.125, source="random, for tests"))
    with pytest.raises(WeightsError, match=r"damaged\.safetensors: answers NaN or infinity; .* get it anew"):
        load_parser(ModelSettings(weights=path, precision="int8"), "cpu")


def test_int8_is_refused_where_it_is_not_computed(tiny_weights: Path, tmp_path: Path) -> None:
    skip_without_programs()
    program = tmp_path / "network.pt2"
    torch.export.save(torch.export.export(nn.Conv2d(3, 19, 1), (torch.zeros(1, 3, 64, 64),)), program)
    with pytest.raises(WeightsError, match=r"network\.pt2: model\.precision = int8 is for BiSeNet weights"):
        load_parser(ModelSettings(weights=program, precision="int8"), "cpu")
    with pytest.raises(WeightsError, match="int8 is computed on a CPU, and the device is cuda:0; set auto"):
        load_parser(ModelSettings(weights=tiny_weights, precision="int8"), "cuda:0")
    for changes in ({"channels_last": False}, {"device": "cuda"}):
        with pytest.raises(ValueError, match=r"precision = int8 .*; .*set auto"):
            ModelSettings.model_validate({"precision": "int8", **changes})


def test_a_processor_without_the_instructions_is_told_so() -> None:
    """oneDNN is kept to AVX2, which adds up pairs of products in 16 bits: too few for the largest."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    program = (
        "from maskdrop.config import ModelSettings\n"
        "from maskdrop.model.parser import load_parser\n"
        "load_parser(ModelSettings(precision='int8'), 'cpu')\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, env=environment
    )
    assert "faces.safetensors: model.precision = int8 needs a processor with VNNI or AMX" in told.stderr


@has_int8
def test_the_check_compares_it_with_fp32(tmp_path: Path) -> None:
    config = tmp_path / "maskdrop.toml"
    config.write_text('[model]\nprecision = "int8"\n')
    command = [sys.executable, "-m", "maskdrop", "model", "check", "--config", str(config)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert told.returncode == 0, told.stderr
    assert "cpu, int8" in told.stdout
    assert "99." in told.stdout.partition("precision")[2].splitlines()[0]
    assert told.stdout.endswith("fit for use\n")


@has_int8
def test_the_daemon_labels_in_int8(rooms: Rooms, start: Callable[..., Daemon]) -> None:
    settings = '[model]\nprecision = "int8"\n[save]\noutputs = ["labels", "json"]\n'
    daemon = start("--weights", str(EMBEDDED), settings=settings)
    daemon.wait_ready()
    rooms.drop("face.png", encode(Image.fromarray(known_picture(512)), "PNG"))
    daemon.wait_count("saved", 1)
    assert daemon.health()["precision"] == "int8"
    labels: Any = np.asarray(Image.open(rooms.outbox / "face.labels.png"))
    expected = load_parser(INT8, "cpu").parse(known_picture(512)[np.newaxis])[0]
    np.testing.assert_array_equal(labels, expected)
    assert json.loads((rooms.outbox / "face.json").read_text())["confidence"] > 0.5
