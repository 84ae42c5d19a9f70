"""The public face-parsing checkpoint, as a stranger's file would be: its keys and shapes, written out.

Shares nothing with maskdrop's own network, so that a renamed attribute is found.
"""

import torch
from torch import Tensor


def _batch_norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    per_channel = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (channels,) for part in per_channel}, f"{name}.num_batches_tracked": ()}


def _conv(name: str, outputs: int, inputs: int, kernel: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.conv.weight": (outputs, inputs, kernel, kernel), **_batch_norm(f"{name}.bn", outputs)}


def public_shapes() -> dict[str, tuple[int, ...]]:
    """Key names and shapes of ``79999_iter.pth``."""
    shapes: dict[str, tuple[int, ...]] = {"cp.resnet.conv1.weight": (64, 3, 7, 7)}
    shapes |= _batch_norm("cp.resnet.bn1", 64)
    inputs = 64
    for layer, outputs in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"cp.resnet.layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (outputs, inputs, 3, 3)
            shapes |= _batch_norm(f"{name}.bn1", outputs)
            shapes[f"{name}.conv2.weight"] = (outputs, outputs, 3, 3)
            shapes |= _batch_norm(f"{name}.bn2", outputs)
            if inputs != outputs:
                shapes[f"{name}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                shapes |= _batch_norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    for name, inputs in (("cp.arm16", 256), ("cp.arm32", 512)):
        shapes |= _conv(f"{name}.conv", 128, inputs, 3)
        shapes[f"{name}.conv_atten.weight"] = (128, 128, 1, 1)
        shapes |= _batch_norm(f"{name}.bn_atten", 128)
    shapes |= _conv("cp.conv_head32", 128, 128, 3) | _conv("cp.conv_head16", 128, 128, 3)
    shapes |= _conv("cp.conv_avg", 128, 512, 1)
    shapes |= _conv("ffm.convblk", 256, 256, 1)
    shapes |= {"ffm.conv1.weight": (64, 256, 1, 1), "ffm.conv2.weight": (256, 64, 1, 1)}
    for name, inputs, middle in (("conv_out", 256, 256), ("conv_out16", 128, 64), ("conv_out32", 128, 64)):
        shapes |= _conv(f"{name}.conv", middle, inputs, 3)
        shapes[f"{name}.conv_out.weight"] = (19, middle, 1, 1)
    return shapes


def public_checkpoint() -> dict[str, Tensor]:
    """Random tensors under those names."""
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, shape in public_shapes().items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(80_000)
        elif name.endswith("running_var"):
            tensors[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            tensors[name] = torch.randn(shape, generator=generator) * 0.05
    return tensors
