"""Random moves of the training images: shift, flip, rotation, scale, one affine map an image.

What belongs to an image moves with it. A network knows the place of a pixel (zero padding), and
where the objects lie at one place it can meet a few labels with one shape for all images; moved
images deny it that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.options import ImageAugmentation


def draw_moves(ranges: ImageAugmentation, count: int, generator: torch.Generator) -> Tensor:
    """``count`` affine maps [count, 2, 3], float32, of the kind ``affine_grid`` takes.

    They map places of the result to places of the source, both from -1 to 1.
    """
    draws = torch.rand(count, 6, generator=generator)
    angle = math.radians(ranges.rotation) * (2 * draws[:, 0] - 1)
    scale = ranges.scale ** (2 * draws[:, 1] - 1)
    flips = torch.where(draws[:, 2:4] < 0.5, -1.0, 1.0) if ranges.flip else torch.ones(count, 2)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)]
    # A side is 2 long in these coordinates.
    shifts = 2 * ranges.shift * (2 * draws[:, 4:] - 1)
    return torch.cat([torch.stack(rows, 1) * flips[:, None], shifts[..., None]], 2)


def move(values: Tensor, moves: Tensor, *, smooth: bool) -> Tensor:
    """``values`` [b, H, W] or [b, 1, H, W] of any dtype, moved; the border's values go on outside.

    ``smooth``: bilinear, for images; else the nearest value, for labels and masks.
    """
    planes = values if values.dim() == 4 else values.unsqueeze(1)
    grid = F.affine_grid(moves.to(planes.device), list(planes.shape), align_corners=False)
    mode = "bilinear" if smooth else "nearest"
    moved = F.grid_sample(
        planes.float(), grid, mode=mode, padding_mode="border", align_corners=False
    )
    return moved.view_as(values).to(values.dtype)
