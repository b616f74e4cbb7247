"""Sizes of objects in masks, which several terms measure."""

from __future__ import annotations

import torch
from torch import Tensor

from ..classes import each_object


def class_sizes(masks: Tensor, foregrounds: int) -> list[Tensor]:
    """For each object class its pixels in those of the masks [m, H, W] that show it, float64."""
    objects = each_object(masks, foregrounds)
    pixels = [found.sum((1, 2), dtype=torch.float64) for found in objects]
    return [counts[counts > 0] for counts in pixels]


def mean_sizes(masks: Tensor, foregrounds: int) -> tuple[float | None, ...]:
    """For each object class the mean of its pixels in masks [m, H, W] that show it."""
    sizes = class_sizes(masks, foregrounds)
    return tuple(pixels.mean().item() if len(pixels) else None for pixels in sizes)
