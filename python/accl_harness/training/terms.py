"""The terms beyond the paper: gated CRF and soft size prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class GatedCRF:
    """Pixels of like grey value near each other shall get the same label."""

    weight: float
    radius: int
    sigma_space: float
    sigma_image: float

    def energy(self, ops: Any, probabilities: Tensor, images: Tensor, seen: Tensor | None):
        """The mean over the pixels ``seen`` (bool [b, H, W]; None: all), without the weight."""
        from . import crf_loop

        return crf_loop.gated_crf_loss(
            probabilities,
            images,
            radius=self.radius,
            kernels=((1.0, self.sigma_space, self.sigma_image),),
            source_mask=seen,
            destination_mask=seen,
        )


@dataclass(frozen=True)
class SizePrior:
    """What masks of other images say of an object's size."""

    weight: float
    mean: float
    """Of log(1 + size)."""
    deviation: float

    def penalty(self, sizes: Tensor, present: Tensor) -> Tensor:
        """Mean over the images of half the squared deviation, in units of the prior's.

        Args:
            sizes: soft sizes [b, 1].
            present: bool [b]: which images hold the object; the others cost nothing.
        """
        deviations = (torch.log1p(sizes.squeeze(1)) - self.mean) / self.deviation
        return torch.where(present, 0.5 * deviations.square(), 0.0).mean()
