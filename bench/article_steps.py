"""The article's three steps, written from its description: one picture, fp32, scores at full scale.

The network and its weights are maskdrop's own, run as the article runs its network: in fp32, in
PyTorch's default memory layout, one picture at a time, labels by numpy from scores at full scale.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from maskdrop.config import IMAGENET_DEVIATION, IMAGENET_MEAN, MODEL_SIDE
from maskdrop.model.embedded import embedded_weights
from maskdrop.model.load import load_network
from maskdrop.parts import ARTICLE_PARTS, PART_NAMES
from measured import WEIGHTS

Pixels = NDArray[np.uint8]

KEPT = [PART_NAMES.index(name) for name in ARTICLE_PARTS]


def network() -> nn.Module:
    """The network, fp32, contiguous; on the GPU where there is one."""
    loaded = load_network(Path(os.environ.get(WEIGHTS, embedded_weights()))).network.eval()
    return loaded.to(device())


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def preprocess(path: Path) -> tuple[Tensor, Pixels]:
    """A normalised float32 tensor (1, 3, 512, 512), and the pixels it was made from."""
    with Image.open(path) as image:
        resized = image.resize((MODEL_SIDE, MODEL_SIDE), Image.Resampling.BILINEAR).convert("RGB")
    pixels: Pixels = np.array(resized)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div(255)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return ((tensor - mean) / deviation).unsqueeze(0), pixels


def infer(net: nn.Module, tensor: Tensor) -> NDArray[np.int64]:
    """Labels (512, 512): all scores are copied to the CPU, where numpy chooses."""
    with torch.no_grad():
        scores: NDArray[Any] = net(tensor.to(device())).squeeze(0).cpu().numpy()
    labels: NDArray[np.int64] = scores.argmax(axis=0)
    return labels


def finish(labels: NDArray[np.int64], pixels: Pixels, target: Path) -> None:
    """Keep the article's parts, black elsewhere, and save with Pillow's own settings."""
    masked = np.zeros_like(pixels)
    chosen = np.isin(labels, KEPT)
    masked[chosen] = pixels[chosen]
    Image.fromarray(masked).save(target)
