"""BiSeNet for face parsing, after Yu et al. 2018 (arXiv 1808.00897).

Two paths meet: a context path, a ResNet-18 whose 1/16 and 1/32 features are weighted by
attention (section 3.2 of the paper), and a spatial path that keeps detail at 1/8. As in
the widely used face-parsing checkpoint, the 1/8 feature of the ResNet takes the place of a
separate spatial path. Attribute names are that checkpoint's state-dict keys, so that it
loads unchanged; do not rename them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskdrop.model.torchvision_resnet import BasicBlock, ResNet

CHANNEL_STEP = 8
"""Channel counts are multiples of this: CPU and GPU kernels work in such blocks."""


def scaled(channels: int, width: float) -> int:
    """Channel count at a width multiplier, rounded to a multiple of `CHANNEL_STEP`."""
    return max(CHANNEL_STEP, round(channels * width / CHANNEL_STEP) * CHANNEL_STEP)


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width), with no value below 0."""
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class Trunk(ResNet):
    """torchvision's ResNet-18 at a width multiplier, giving its 1/8, 1/16 and 1/32 features."""

    def __init__(self, width: float) -> None:
        self.width = width
        super().__init__(BasicBlock, [2, 2, 2, 2])
        stem = scaled(64, width)
        self.conv1 = nn.Conv2d(3, stem, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        del self.fc, self.avgpool

    def _make_layer(
        self,
        block: type,
        planes: int,
        blocks: int,
        stride: int = 1,
        dilate: bool = False,
    ) -> nn.Sequential:
        if planes == 64:  # the first stage reads the stem, which is scaled too
            self.inplanes = scaled(64, self.width)
        layer: nn.Sequential = super()._make_layer(block, scaled(planes, self.width), blocks, stride, dilate)
        return layer

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at 1/8, 1/16 and 1/32 of the input's height and width."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    """Attention refinement module (paper, figure 2b): channels weighted by attention to their means."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inputs, outputs)
        self.conv_atten = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        feature: Tensor = self.conv(x)
        attention = functional.adaptive_avg_pool2d(feature, 1)
        attention = torch.sigmoid(self.bn_atten(self.conv_atten(attention)))
        return feature * attention


class ContextPath(nn.Module):
    """ResNet features refined by attention and carried up to 1/8."""

    def __init__(self, width: float) -> None:
        super().__init__()
        middle = scaled(128, width)
        self.resnet = Trunk(width)
        self.arm16 = AttentionRefinement(scaled(256, width), middle)
        self.arm32 = AttentionRefinement(scaled(512, width), middle)
        self.conv_head32 = ConvBNReLU(middle, middle)
        self.conv_head16 = ConvBNReLU(middle, middle)
        self.conv_avg = ConvBNReLU(scaled(512, width), middle, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From a normalised picture, float (batch, 3, height, width), to the ResNet's features at 1/8 of its
        scale, and to context features at 1/8 and at 1/16."""
        eighth, sixteenth, thirtysecond = self.resnet.features(x)
        whole = self.conv_avg(functional.adaptive_avg_pool2d(thirtysecond, 1))
        up32 = self.arm32(thirtysecond) + whole
        up32 = self.conv_head32(functional.interpolate(up32, sixteenth.shape[2:], mode="nearest"))
        up16 = self.arm16(sixteenth) + up32
        up16 = self.conv_head16(functional.interpolate(up16, eighth.shape[2:], mode="nearest"))
        return eighth, up16, up32


class FeatureFusion(nn.Module):
    """Feature fusion module (paper, figure 2c)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convblk = ConvBNReLU(inputs, outputs, kernel=1)
        self.conv1 = nn.Conv2d(outputs, outputs // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs // 4, outputs, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Fuse inputs of (batch, …, height / 8, width / 8) into as many channels as the module puts out."""
        feature: Tensor = self.convblk(torch.cat([spatial, context], dim=1))
        return feature * self.attention(feature) + feature

    def attention(self, feature: Tensor) -> Tensor:
        """The weight of each channel, between 0 and 1: (batch, channels, 1, 1)."""
        mean = functional.adaptive_avg_pool2d(feature, 1)
        return torch.sigmoid(self.conv2(functional.relu(self.conv1(mean))))


class Head(nn.Module):
    """Turns features into one score per class and pixel, at the features' scale."""

    def __init__(self, inputs: int, middle: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inputs, middle)
        self.conv_out = nn.Conv2d(middle, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, classes, height, width)."""
        scores: Tensor = self.conv_out(self.conv(x))
        return scores


class BiSeNet(nn.Module):
    """The whole network.

    Args:
        classes: number of labels.
        width: multiplier on every channel count; 1.0 is the public checkpoint's size.
    """

    def __init__(self, classes: int = 19, width: float = 1.0) -> None:
        super().__init__()
        self.classes = classes
        self.width = width
        middle = scaled(128, width)
        self.cp = ContextPath(width)
        self.ffm = FeatureFusion(2 * middle, scaled(256, width))
        self.conv_out = Head(scaled(256, width), scaled(256, width), classes)
        # Auxiliary heads (paper, section 3.3): they serve training, and never run afterwards.
        self.conv_out16 = Head(middle, scaled(64, width), classes)
        self.conv_out32 = Head(middle, scaled(64, width), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores at full scale.

        Args:
            x: float (batch, 3, height, width), normalised; height and width divide by 32.

        Returns:
            float (batch, classes, height, width). Scaled up bilinearly with aligned
            corners, as the public checkpoint was trained.
        """
        eighth, context, _ = self.cp(x)
        scores = self.conv_out(self.ffm(eighth, context))
        return functional.interpolate(scores, x.shape[2:], mode="bilinear", align_corners=True)

    def raw_scores(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores to train on, each (batch, classes, …): the main head's at 1/8 of the input's scale, the
        auxiliary heads' at 1/8 and 1/16."""
        eighth, context, deep = self.cp(x)
        main = self.conv_out(self.ffm(eighth, context))
        return main, self.conv_out16(context), self.conv_out32(deep)
