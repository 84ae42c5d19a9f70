"""BiSeNet as it is run: steps that only training needs apart are folded into its convolutions.

A trained batch norm is a factor and a summand for each channel, and so is the normalisation of
pixels; the convolution beside them takes both into its weights and bias.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.fused import can_fuse, fuse, fuse_below
from maskdrop.model.normalise import Channels
from maskdrop.model.quantised import quantise
from maskdrop.model.ranges import ranges_of

_MIDDLE = 128
"""Subtracted from every pixel, so that numbers are small on both sides of 0; bf16 holds -128..127 exactly."""

_MOST_NUMBERS = 2**31 - 1
"""The most numbers that CUDA's kernel for scaling up channels-last tensors agrees to write
(``ATen/native/cuda/UpSampleBilinear2d.cu``)."""


class FoldedBiSeNet(nn.Module):
    """The same function as a BiSeNet behind the normalisation, but for rounding.

    Args:
        network: on the CPU, in fp32; it stays unchanged.
        mean, deviation: of red, green and blue, on a scale of 0 to 1.
    """

    _border: Tensor
    _around: int

    def __init__(self, network: BiSeNet, mean: Channels, deviation: Channels) -> None:
        super().__init__()
        network = copy.deepcopy(network).eval()
        del network.conv_out16, network.conv_out32
        _fold_batch_norms(network)
        stem = network.cp.resnet.conv1
        self._around = int(stem.padding[0])
        network.cp.resnet.conv1 = _fold_normalisation(stem, mean, deviation)
        self._network = network
        # BiSeNet pads normalised pixels with 0; before normalisation, that is the mean.
        self.register_buffer("_border", torch.tensor(mean) * 255 - _MIDDLE)

    def fuse(self) -> None:
        """Run in fused steps from now on (see `maskdrop.model.fused`), on a CPU."""
        fuse(self._network)

    def quantise(self, picture: Tensor, dtype: torch.dtype) -> Tensor:
        """Run in 8-bit integers from now on, on a CPU (see `maskdrop.model.quantised`).

        Args:
            picture: uint8 (1, height, width, 3), typical of those to come: it sets how large the numbers
                between layers may become.
            dtype: of everything that is not quantised.

        Returns:
            The picture's scores before quantisation.
        """
        exact: list[Tensor] = []
        ranges = ranges_of(self._network, lambda: exact.append(self(picture, torch.channels_last)))
        quantise(self._network, ranges, dtype, _MIDDLE)
        self._border = (self._border + _MIDDLE).round().clamp(0, 255).to(torch.uint8)
        self._network.to(dtype)
        if can_fuse(dtype):
            fuse_below(self._network)
        return exact[0]

    def forward(self, pixels: Tensor, memory_format: torch.memory_format) -> Tensor:
        """Class scores at 1/8 of the input's scale, ``BiSeNet.forward`` before it scales them up.

        Args:
            pixels: uint8 (batch, height, width, 3).

        Returns:
            (batch, classes, height / 8, width / 8) in the network's own dtype.
        """
        batch, height, width, _ = pixels.shape
        around = self._around
        padded = self._border.new_empty(batch, height + 2 * around, width + 2 * around, 3)
        for edge in (slice(around), slice(-around, None)):
            padded[:, edge] = self._border
            padded[:, :, edge] = self._border
        inside = padded[:, around : around + height, around : around + width]
        if self._border.dtype == torch.uint8:
            inside.copy_(pixels)
        else:
            inside.copy_((pixels ^ _MIDDLE).view(torch.int8))  # flipping the first bit subtracts 128
        x = padded.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
        eighth, context, _ = self._network.cp(x)
        scores: Tensor = self._network.conv_out(self._network.ffm(eighth, context))
        return scores


def most_scaled_up(classes: int, side: int) -> int:
    """The most pictures whose scores a GPU can scale up at once."""
    return max(1, _MOST_NUMBERS // (classes * side * side))


def scale_up(scores: Tensor, side: int) -> Tensor:
    """Scores at full scale, (batch, classes, side, side), as `BiSeNet.forward` returns them."""
    return functional.interpolate(scores, (side, side), mode="bilinear", align_corners=True)


def _fold_batch_norms(network: BiSeNet) -> None:
    for module in network.modules():
        for conv, norm in _pairs(module):
            setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
            setattr(module, norm, nn.Identity())


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of a module's convolutions with the batch norms that follow them."""
    named = (("conv", "bn"), ("conv1", "bn1"), ("conv2", "bn2"), ("conv_atten", "bn_atten"), ("0", "1"))
    children = dict(module.named_children())
    return [(conv, norm) for conv, norm in named if isinstance(children.get(norm), nn.BatchNorm2d)]


def _fold_normalisation(stem: nn.Conv2d, mean: Channels, deviation: Channels) -> nn.Conv2d:
    """The same convolution for pixels minus `_MIDDLE`, padded already, in place of normalised pixels."""
    folded = nn.Conv2d(3, stem.out_channels, stem.kernel_size, stem.stride)  # type: ignore[arg-type]
    middle, spread = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, deviation))
    weight = stem.weight.double() / (255 * spread)
    shift = (weight * (255 * middle - _MIDDLE)).sum(dim=(1, 2, 3))
    bias = torch.zeros(()) if stem.bias is None else stem.bias.double()
    folded.weight, folded.bias = nn.Parameter(weight.float()), nn.Parameter((bias - shift).float())
    return folded
