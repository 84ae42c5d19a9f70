"""Random views of training pictures: what inboxes hold, made from aligned portraits.

Every function takes and returns batches of floats from 0 to 255, (batch, 3, height, width).
Randomness comes from torch's default generator only, so a seed repeats a run.
"""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from maskdrop.parts import MIRROR_PAIRS, Part

PLAIN_SHARE = 0.3
"""Share of pictures that keep their own scale: most of what people drop are portraits like these."""

FAR_SHARE = 0.15
"""Share of pictures that are shrunk to between two thirds and a third of the frame."""

GROUP_SHARE = 0.06
"""Share of views that become pictures of four people."""


def mirror_table() -> Tensor:
    """Each label's label in a mirrored picture: left and right change places."""
    table = torch.arange(len(Part))
    for left, right in MIRROR_PAIRS:
        table[left], table[right] = int(right), int(left)
    return table


def random_view(pictures: Tensor, labels: Tensor, size: int, mirrored: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures mirrored, turned, scaled, shifted, recoloured, and worn as cameras and networks wear them.

    Args:
        pictures: uint8 (batch, 3, h, w).
        labels: uint8 (batch, 1, h, w).
        mirrored: `mirror_table`.

    Returns:
        float (batch, 3, size, size), 0 to 255, and int64 (batch, size, size).
    """
    count = len(pictures)
    flip = torch.rand(count) < 0.5
    matrix = _placements(count, flip)
    grid = functional.affine_grid(matrix, [count, 3, size, size], align_corners=False)
    floats = pictures.float()
    view = functional.grid_sample(floats, grid, mode="bilinear", padding_mode="border", align_corners=False)
    target = functional.grid_sample(labels.float(), grid, mode="nearest", align_corners=False)
    outside = (grid.abs() > 1).any(dim=3).unsqueeze(1)
    view = torch.where(outside, _backdrop(floats, size), view)
    target = target.squeeze(1).long()
    target[flip] = mirrored[target[flip]]
    view, target = with_groups(recoloured(view), target)
    return worn(view), target


def _placements(count: int, flip: Tensor) -> Tensor:
    """Affine maps from view to picture, (count, 2, 3)."""
    angle = torch.randn(count) * math.radians(14)
    zoom = torch.empty(count).uniform_(math.log(0.7), math.log(1.5)).exp()
    chance = torch.rand(count)
    zoom = torch.where(chance < PLAIN_SHARE, torch.ones(count), zoom)
    far = torch.empty(count).uniform_(1.5, 3.0)
    zoom = torch.where(chance > 1 - FAR_SHARE, far, zoom)
    stretch = torch.empty(count).uniform_(math.log(0.9), math.log(1.1)).exp()
    sign = torch.where(flip, -1.0, 1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    shift = (torch.rand(count, 2) - 0.5) * (0.3 + (zoom - 1).clamp(min=0)[:, None] * 0.8)
    across = torch.stack([cos * sign * stretch, -sin, shift[:, 0]], 1)
    down = torch.stack([sin * sign * stretch, cos, shift[:, 1]], 1)
    return torch.stack([across, down], 1)


def _backdrop(pictures: Tensor, size: int) -> Tensor:
    """What surrounds a picture that doesn't fill its view: another one's colours, blurred, and grain."""
    others = pictures.roll(1, dims=0)
    cells = int(torch.randint(2, 24, ()))
    coarse = functional.adaptive_avg_pool2d(others, cells)
    coarse = coarse[:, :, torch.randperm(cells)]
    smooth = functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
    return smooth + torch.randn_like(smooth) * (torch.rand(len(smooth), 1, 1, 1) * 20)


def with_groups(view: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Some views replaced by four of the batch, each at half its size: pictures of several people."""
    views, targets = [], []
    for index, chance in enumerate(torch.rand(len(view)).tolist()):
        if chance >= GROUP_SHARE:
            views.append(view[index])
            targets.append(target[index])
            continue
        four = torch.randint(len(view), (4,))
        half = functional.interpolate(view[four], scale_factor=0.5, mode="bilinear", antialias=True)
        parts = target[four, ::2, ::2]
        views.append(torch.cat([torch.cat([half[0], half[1]], 2), torch.cat([half[2], half[3]], 2)], 1))
        targets.append(torch.cat([torch.cat([parts[0], parts[1]], 1), torch.cat([parts[2], parts[3]], 1)]))
    return torch.stack(views), torch.stack(targets)


def recoloured(view: Tensor) -> Tensor:
    """Random brightness, contrast, saturation and warmth; some grey, some dark."""
    count = len(view)

    def factor(spread: float, channels: int = 1) -> Tensor:
        return torch.empty(count, channels, 1, 1).uniform_(1 - spread, 1 + spread)

    def some(share: float) -> Tensor:
        return torch.rand(count, 1, 1, 1) < share

    view = view * factor(0.35) * factor(0.12, 3)
    mean = view.mean(dim=(1, 2, 3), keepdim=True)
    view = (view - mean) * factor(0.35) + mean
    grey = view.mean(dim=1, keepdim=True)
    saturation = torch.where(some(0.12), torch.zeros(1), factor(0.5))
    view = ((view - grey) * saturation + grey).clamp(0, 255)
    darkness = torch.where(some(0.12), torch.empty(count, 1, 1, 1).uniform_(0.12, 0.6), torch.ones(1))
    return view * darkness


def worn(view: Tensor) -> Tensor:
    """Some blurred, some shrunk and enlarged again, some with grain, some with JPEG artefacts."""
    view = view.clamp(0, 255)
    for index, chance in enumerate(torch.rand(len(view)).tolist()):
        one = view[index : index + 1]
        if chance < 0.10:
            one = functional.avg_pool2d(one, 3, stride=1, padding=1, count_include_pad=False)
        elif chance < 0.22:
            small = int(torch.randint(80, 224, ()))
            shrunk = functional.interpolate(one, (small, small), mode="bilinear", antialias=True)
            one = functional.interpolate(shrunk, view.shape[2:], mode="bilinear")
        elif chance < 0.32:
            one = (one + torch.randn_like(one) * float(torch.rand(()) * 16)).clamp(0, 255)
        elif chance < 0.48:
            one = _through_jpeg(one, int(torch.randint(15, 75, ())))
        view[index : index + 1] = one
    return view


def _through_jpeg(view: Tensor, quality: int) -> Tensor:
    pixels = view[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0).float()
