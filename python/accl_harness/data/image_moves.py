"""Random changes of the training images: one affine map an image, and other grey values.

The map shifts, mirrors, turns and scales. What belongs to an image moves with it. A network knows
the place of a pixel (zero padding), and where the objects lie at one place it can meet a few labels
with one shape for all images; moved images deny it that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .options import ImageMoves


def draw_moves(ranges: ImageMoves, count: int, generator: torch.Generator) -> Tensor:
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
    """``values`` moved; the border's values go on outside.

    Args:
        values: [b, H, W] or [b, maps, H, W] of any dtype.
        moves: affine maps [b, 2, 3] of :func:`draw_moves`.
        smooth: bilinear, for images; else the nearest value, for labels and masks.
    """
    planes = values if values.dim() == 4 else values.unsqueeze(1)
    grid = F.affine_grid(moves.to(planes.device), list(planes.shape), align_corners=False)
    mode = "bilinear" if smooth else "nearest"
    moved = F.grid_sample(
        planes.float(), grid, mode=mode, padding_mode="border", align_corners=False
    )
    return moved.view_as(values).to(values.dtype)


def enlargement(moves: Tensor) -> Tensor:
    """How many times larger each move makes an object's area: [b]."""
    return 1 / torch.linalg.det(moves[:, :, :2]).abs()


def inside(moves: Tensor, height: int, width: int) -> Tensor:
    """Which pixels of the moved images were in the frame before: bool [b, H, W]."""
    grid = F.affine_grid(moves, [len(moves), 1, height, width], align_corners=False)
    return (grid.abs() <= 1).all(3)


def draw_greys(reach: float, count: int, generator: torch.Generator) -> Tensor:
    """Gain, offset and gamma for ``count`` images: float32 [count, 3]."""
    draws = 2 * torch.rand(count, 3, generator=generator) - 1
    factors = (1 + reach) ** draws
    return torch.stack([factors[:, 0], reach * draws[:, 1], factors[:, 2]], 1)


def change_greys(images: Tensor, greys: Tensor) -> Tensor:
    """``images`` [b, 1, H, W] in [-1, 1] with other grey values, which may leave that range.

    With black 0 and white 1 a value v becomes gain * v ** gamma + offset.
    """
    gain, offset, gamma = greys.to(images).view(-1, 3, 1, 1, 1).unbind(1)
    values = ((images + 1) / 2).clamp(min=0) ** gamma
    return 2 * (gain * values + offset) - 1
