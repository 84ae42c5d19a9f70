"""BiSeNet's convolutions as a CPU runs them: weights laid out once, and ReLU and sum in the same step.

PyTorch's convolution lays out its weights again for each picture, and the ReLU and the sum after it each go
through all its results once more. oneDNN, which computes them all, can keep weights in the order it wants,
and do the rest while the results are still at hand. PyTorch's own compiler reaches oneDNN through the
operators used here; they are not part of the documented interface, so `can_fuse` tries them before anything
relies on them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskdrop.model.bisenet import BiSeNet, ConvBNReLU, FeatureFusion
from maskdrop.model.laid_out import LaidOutWeight, in_format
from maskdrop.model.torchvision_resnet import BasicBlock

_TOLERANCE = 0.05
"""For results around 1, computed in bf16, which has 8 bits: a larger difference is not rounding."""


def can_fuse(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the operators for a CPU, and they compute what a convolution does."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        return _tries_well(dtype)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):  # gone, or with other arguments
        return False


@torch.inference_mode()
def _tries_well(dtype: torch.dtype) -> bool:
    x = torch.linspace(-1, 1, 1 * 8 * 6 * 6).view(1, 8, 6, 6)
    x, shortcut = (
        each.to(dtype).contiguous(memory_format=torch.channels_last) for each in (x, x.flip(1, 2, 3))
    )
    channels = x.shape[1]
    with torch.random.fork_rng(devices=[]):  # the caller may have seeded random numbers
        conv = nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype)
    for numbers in conv.parameters():
        numbers.copy_(torch.linspace(-0.1, 0.1, numbers.numel()).view_as(numbers))
    in_format(conv, torch.channels_last)
    plain, fused = conv(x), FusedConv(conv)
    expected = (plain, plain.relu(), (plain + shortcut).relu())
    found = (fused(x), FusedConv(conv, relu=True)(x), fused.added_to(shortcut, x))
    pairs = zip(found, expected, strict=True)
    return all(torch.allclose(mine, other, atol=_TOLERANCE, rtol=0) for mine, other in pairs)


def fuse(network: BiSeNet) -> None:
    """Replace a network's modules by fused steps: the same function, but for rounding.

    Args:
        network: on a CPU, with weights in channels_last and batch norms folded into its convolutions.
    """
    trunk = network.cp.resnet
    trunk.conv1 = FusedConv(trunk.conv1, relu=True)  # type: ignore[assignment]
    trunk.relu, trunk.maxpool = nn.Identity(), HalvingPool()
    fuse_below(network)
    network.ffm = _FusedFusion(network.ffm)  # type: ignore[assignment]


def fuse_below(module: nn.Module) -> None:
    """Replace the convolutions in a module by fused ones."""
    for name, child in list(module.named_children()):
        if isinstance(child, BasicBlock):
            setattr(module, name, _FusedBlock(child))
        elif isinstance(child, ConvBNReLU):
            setattr(module, name, FusedConv(child.conv, relu=True))
        elif isinstance(child, nn.Conv2d):
            setattr(module, name, FusedConv(child))
        else:
            fuse_below(child)


class FusedConv(nn.Module):
    """A convolution, followed by a ReLU if one is wanted, of bf16 or fp32 in channels_last."""

    def __init__(self, conv: nn.Conv2d, relu: bool = False) -> None:
        super().__init__()
        self._geometry = ([*conv.padding], [*conv.stride], [*conv.dilation], conv.groups)
        self._after = "relu" if relu else "none"
        self._bias = None if conv.bias is None else conv.bias.detach()
        self._weight = LaidOutWeight(conv.weight.detach(), self._lay_out)

    def forward(self, x: Tensor) -> Tensor:
        step: Any = torch.ops.mkldnn._convolution_pointwise
        result: Tensor = step(x, self._weight.read_by(x), self._bias, *self._geometry, self._after, [], "")
        return result

    def added_to(self, shortcut: Tensor, x: Tensor) -> Tensor:
        """ReLU of this convolution of x plus a shortcut; the result overwrites the shortcut."""
        step: Any = torch.ops.mkldnn._convolution_pointwise_.binary
        how: tuple[Any, ...] = (*self._geometry, "add", 1.0, "relu", [], "")
        result: Tensor = step(shortcut, x, self._weight.read_by(x), self._bias, *how)
        return result

    def _lay_out(self, plain: Tensor, x: Tensor) -> Tensor:
        reorder: Any = torch.ops.aten.mkldnn_reorder_conv2d_weight
        weight: Tensor = reorder(plain.to_mkldnn(), *self._geometry, x.shape)
        return weight


class _FusedBlock(nn.Module):
    """A ResNet's basic block. Without a downsample it overwrites its input with the sum, so features that
    others read too may only go into blocks with one."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self._first = FusedConv(block.conv1, relu=True)
        self._second = FusedConv(block.conv2)
        self._downsample = None if block.downsample is None else FusedConv(block.downsample[0])

    def forward(self, x: Tensor) -> Tensor:
        between = self._first(x)
        shortcut = x if self._downsample is None else self._downsample(x)
        return self._second.added_to(shortcut, between)


class HalvingPool(nn.Module):
    """ResNet's maximum of 3 x 3 in steps of 2: by rows, then by columns, in operations on whole arrays.

    It follows a ReLU, which leaves no negative numbers: bfloat16 numbers of one sign order as their bits do
    (bfloat16 is the upper half of an IEEE 754 single), and integers are compared without being widened. A NaN
    with its sign set, as processors make it, is then less than all others.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 2 or x.shape[3] % 2:  # where input_size doesn't divide by 4
            plain = x if x.is_floating_point() else x.float()  # PyTorch's takes few integer types
            return functional.max_pool2d(plain, kernel_size=3, stride=2, padding=1).to(x.dtype)
        ordered = x.view(torch.int16) if x.dtype == torch.bfloat16 else x
        by_pixel = ordered.permute(0, 2, 3, 1)
        rows = _halved(by_pixel[:, 0::2], by_pixel[:, 1::2], dim=1)
        return _halved(rows[:, :, 0::2], rows[:, :, 1::2], dim=2).permute(0, 3, 1, 2).view(x.dtype)


def _halved(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    """Maximum of each even line and its odd neighbours: the next, and the one before if there is one."""
    most = torch.maximum(even, odd)
    rest, count = most.narrow(dim, 1, most.shape[dim] - 1), odd.shape[dim] - 1
    torch.maximum(rest, odd.narrow(dim, 0, count), out=rest)
    return most


class _FusedFusion(nn.Module):
    """Feature fusion that weights and adds its features in one step."""

    def __init__(self, fusion: FeatureFusion) -> None:
        super().__init__()
        self._fusion = fusion

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        feature = self._fusion.convblk(torch.cat([spatial, context], dim=1))
        attention = self._fusion.attention(feature)
        return torch.addcmul(feature, feature, attention)
