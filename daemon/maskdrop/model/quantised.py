"""BiSeNet's convolutions in 8-bit integers, of which a CPU multiplies twice as many at once as of bf16.

Between two convolutions of the trunk there is a ReLU, so numbers are at least 0: they are kept as codes from
0 to 255, times a scale. Weights are -127 to 127, with a scale for each channel; sums are 32-bit integers,
and exact. The scales follow from the largest numbers that a known picture gives (affine quantisation after
Jacob et al. 2018, arXiv 1712.05877, section 2.1, with a zero point of 0). The steps that weight features,
add them or score classes stay in bf16 or fp32: they are a hundredth of the products.

oneDNN computes all this through operators that PyTorch's compiler uses; fused.py says what that entails.
"""

from typing import Any

import torch
from torch import Tensor, nn

from maskdrop.model.bisenet import BiSeNet, ConvBNReLU, FeatureFusion
from maskdrop.model.fused import HalvingPool
from maskdrop.model.laid_out import LaidOutWeight
from maskdrop.model.ranges import Ranges
from maskdrop.model.torchvision_resnet import BasicBlock

_MOST, _MOST_WEIGHT = 255, 127
"""The largest code, and the largest weight."""

_LEAST_SCALE = 1e-12
"""The scale where every number is 0."""

Result = float | torch.dtype
"""What a step returns: codes of this scale, or plain numbers of this type."""


def can_quantise() -> bool:
    """Whether this PyTorch has the operators, and they compute exactly.

    Processors without VNNI add the products of two pairs in 16 bits, which can't hold the largest
    sums (oneDNN's developer guide, "Nuances of int8 computations"); so the largest are tried.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        return _tries_well()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):  # gone, or with other arguments
        return False


@torch.inference_mode()
def _tries_well() -> bool:
    channels = 16
    with torch.random.fork_rng(devices=[]):  # the caller may have seeded random numbers
        conv = nn.Conv2d(channels, channels, 3, padding=1)
    for numbers in conv.parameters():
        numbers.fill_(1.0)
    x = torch.full((1, channels, 6, 6), _MOST, dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    plain = conv(x.float())
    most = float(plain.max())
    found = QuantisedConv(conv, 1.0, torch.float32)(x)
    codes = QuantisedConv(conv, 1.0, most / _MOST)(x)
    total = QuantisedConv(conv, 1.0, most / _MOST).added_to(codes.clone(), x, most / _MOST)
    twice = (2 * plain * _MOST / most).round().clamp(max=_MOST)
    pairs = ((found, plain), (codes, (plain * _MOST / most).round()), (total, twice))
    return all(torch.allclose(mine.float(), other, atol=1.0, rtol=1e-3) for mine, other in pairs)


def quantise(network: BiSeNet, ranges: Ranges, dtype: torch.dtype, middle: int) -> None:
    """Replace a network's large convolutions by quantised steps.

    Args:
        network: on the CPU, in fp32, batch norms folded into its convolutions; the caller casts what is
            left of it to ``dtype``, in channels_last.
        ranges: of the numbers that passed through it.
        dtype: of everything that is not quantised.
        middle: what had to be subtracted from pixels for the first convolution; from now on it takes plain
            pixels.
    """
    context, trunk = network.cp, network.cp.resnet
    scale = _scale_of(ranges.made[trunk.maxpool][0])
    trunk.conv1 = QuantisedConv(trunk.conv1, 1.0, scale, middle=middle)  # type: ignore[assignment]
    trunk.relu, trunk.maxpool = nn.Identity(), HalvingPool()
    after: list[float] = []
    for layer in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
        for at, block in enumerate(layer):
            between, end = map(_scale_of, ranges.made[block.relu])
            is_last = block is trunk.layer4[-1]
            layer[at] = _QuantisedBlock(block, scale, between, dtype if is_last else end, dtype)
            scale = end
        after.append(scale)
    _, eighth, sixteenth, _ = after
    ahead = _scale_of(ranges.made[context.conv_head16][0])
    features = _scale_of(ranges.made[network.ffm][0])

    def coding_first(module: ConvBNReLU, result: Result) -> Any:
        scale = _scale_of(ranges.given[module][0])
        return nn.Sequential(_Coding(scale), QuantisedConv(module.conv, scale, result))

    context.arm16.conv = QuantisedConv(context.arm16.conv.conv, sixteenth, dtype)  # type: ignore[assignment]
    context.arm32.conv = coding_first(context.arm32.conv, dtype)
    context.conv_head32 = coding_first(context.conv_head32, dtype)
    context.conv_head16 = coding_first(context.conv_head16, ahead)
    network.ffm = _QuantisedFusion(network.ffm, (eighth, ahead), features, dtype)  # type: ignore[assignment]
    network.conv_out.conv = QuantisedConv(network.conv_out.conv.conv, features, dtype)  # type: ignore[assignment]


def codes_of(x: Tensor, scale: float) -> Tensor:
    """Numbers as codes, uint8: the nearest code to each, and so the largest for all beyond it."""
    nearest = x.to(torch.float32, copy=True).mul_(1 / scale).round_().clamp_(0, _MOST)
    # PyTorch converts float to uint8 one number at a time, but by way of int16 many at once.
    return nearest.to(torch.int16).to(torch.uint8)


def _scale_of(most: float) -> float:
    return max(most / _MOST, _LEAST_SCALE)


class QuantisedConv(nn.Module):
    """A convolution of codes, followed by a ReLU unless none is wanted.

    Args:
        conv: in fp32, padding with zeros, as is done to codes.
        scale: of the codes it takes.
        result: what it returns.
        middle: what ``conv`` expects to be subtracted from its input; the bias takes care of it.
    """

    def __init__(
        self, conv: nn.Conv2d, scale: float, result: Result, relu: bool = True, middle: int = 0
    ) -> None:
        super().__init__()
        weight = conv.weight.detach().float()
        self._scales = weight.abs().amax(dim=(1, 2, 3)).clamp(min=_LEAST_SCALE) / _MOST_WEIGHT
        whole = (weight / self._scales.view(-1, 1, 1, 1)).round().to(torch.int8)
        self._weight = LaidOutWeight(whole, self._lay_out)
        bias = torch.zeros(len(weight)) if conv.bias is None else conv.bias.detach().float()
        self._bias = bias - middle * scale * weight.sum(dim=(1, 2, 3))
        self._zeros = torch.zeros(len(weight), dtype=torch.long)
        self._geometry = ([*conv.stride], [*conv.padding], [*conv.dilation], conv.groups)
        self._scale, self._result, self._after = scale, result, "relu" if relu else "none"

    def forward(self, x: Tensor) -> Tensor:
        step: Any = torch.ops.onednn.qconv2d_pointwise
        how: tuple[Any, ...] = (self._bias, *self._geometry, *self._told, self._after, [], "")
        result: Tensor = step(x, self._scale, 0, self._weight.read_by(x), self._scales, self._zeros, *how)
        return result

    def added_to(self, other: Tensor, x: Tensor, scale: float = 1.0) -> Tensor:
        """ReLU of this convolution of x plus other numbers; the result overwrites these.

        Args:
            other: codes where this step returns codes, else plain numbers.
            scale: of these codes.
        """
        step: Any = torch.ops.onednn.qconv2d_pointwise.binary
        given = (x, self._scale, 0, self._weight.read_by(x), self._scales, self._zeros, other)
        then: tuple[Any, ...] = (scale, 0, "sum", 1.0, "relu", [], "")
        how: tuple[Any, ...] = (self._bias, *self._geometry, *self._told, *then)
        result: Tensor = step(*given, *how)
        return result

    @property
    def _told(self) -> tuple[float, int, torch.dtype]:
        """Scale, zero point and type of the result, as the operators want them."""
        if isinstance(self._result, torch.dtype):
            return 1.0, 0, self._result
        return self._result, 0, torch.uint8

    def _lay_out(self, plain: Tensor, x: Tensor) -> Tensor:
        prepack: Any = torch.ops.onednn.qconv_prepack
        weight: Tensor = prepack(plain, self._scales, self._scale, 0, *self._geometry, [*x.shape])
        return weight


class _Coding(nn.Module):
    """Turns plain numbers into codes."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self._scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return codes_of(x, self._scale)


class _QuantisedBlock(nn.Module):
    """A ResNet's basic block on codes. Without a downsample it may overwrite its input with the sum, so
    features that others read too may only go into blocks with one."""

    def __init__(
        self, block: BasicBlock, scale: float, between: float, result: Result, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self._scale, self._result = scale, result
        self._first = QuantisedConv(block.conv1, scale, between)
        self._downsample: QuantisedConv | None = None
        self._adds_plain = block.downsample is not None or isinstance(result, torch.dtype)
        if block.downsample is not None:  # its result may be below 0, and codes can't
            self._downsample = QuantisedConv(block.downsample[0], scale, dtype, relu=False)
        self._second = QuantisedConv(block.conv2, between, dtype if self._adds_plain else result)
        self._dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        between = self._first(x)
        if not self._adds_plain:
            return self._second.added_to(x, between, self._scale)
        if self._downsample is not None:
            shortcut = self._downsample(x)
        else:
            shortcut = x.to(self._dtype).mul_(self._scale)
        total = self._second.added_to(shortcut, between)
        return total if isinstance(self._result, torch.dtype) else codes_of(total, self._result)


class _QuantisedFusion(nn.Module):
    """Feature fusion of codes: the convolution of two concatenated features is the sum of one of each."""

    def __init__(
        self, fusion: FeatureFusion, scales: tuple[float, float], result: float, dtype: torch.dtype
    ) -> None:
        super().__init__()
        whole = fusion.convblk.conv
        parts = torch.split(whole.weight, whole.in_channels // 2, dim=1)
        convs = [nn.Conv2d(part.shape[1], len(part), 1) for part in parts]
        for conv, part in zip(convs, parts, strict=True):
            conv.weight, conv.bias = nn.Parameter(part), whole.bias
        convs[1].bias = None
        self._spatial = QuantisedConv(convs[0], scales[0], dtype)
        self._context = QuantisedConv(convs[1], scales[1], dtype, relu=False)
        self._fusion, self._result = fusion, result
        del fusion.convblk

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        feature = self._spatial.added_to(self._context(context), spatial)
        weighed = torch.addcmul(feature, feature, self._fusion.attention(feature))
        return codes_of(weighed, self._result)
