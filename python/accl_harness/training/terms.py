"""The terms beyond the paper: gated CRF, soft size prior and size balance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class GatedCRF:
    """Pixels of like grey value near each other shall get the same label."""

    weight: float
    radius: int
    sigma_space: float
    sigma_image: float

    def energy(self, ops: Any, probabilities: Tensor, images: Tensor, seen: Tensor | None):
        """The mean over the pixels ``seen`` (bool [b, H, W]; None: all), without the weight."""
        return ops.gated_crf_loss(
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
            sizes: soft sizes [b], as they would be without the move.
            present: bool [b]: which images hold the object; the others cost nothing.
        """
        deviations = (torch.log1p(sizes) - self.mean) / self.deviation
        return torch.where(present, 0.5 * deviations.square(), 0.0).mean()


class SizeBalance(nn.Module):
    """Holds the mean size over the training images at that of the reference masks.

    The prior draws every image to one size. This term draws the pixels of all images alike, up
    where their masks came out too small over about an epoch, down where too large, and leaves each
    image its place among them: a Lagrange multiplier of the mean size. It undoes the shrinkage
    that any price of an outline brings.

    Args:
        weight: of the term.
        size: mean size of the reference masks in pixels.
        images: number of training images, the memory of the running mean.
    """

    seen: Tensor
    """Running mean of the predicted sizes; saved with the networks."""

    def __init__(self, weight: float, size: float, images: int):
        super().__init__()
        self.weight, self.size, self.images = weight, size, images
        # From the right size on: nothing is drawn before something was seen.
        self.register_buffer("seen", torch.tensor(size, dtype=torch.float64))

    def forward(
        self, predicted: Tensor, sizes: Tensor, present: Tensor, total: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The mean pull on the images of this process, by what was seen before them.

        Args:
            predicted: pixels above the threshold [b], as they would be without the move.
            sizes: soft sizes [b], likewise: the threshold has no gradient, and without it a faint
                haze over the background would count.
            present: bool [b]: which images hold the object; the others are left alone.
            total: adds a tensor up over the processes.
        """
        pull = (self.seen / self.size - 1).to(sizes.dtype)
        off = torch.where(present, predicted.double() - self.seen, 0.0)
        self.seen += total(off.sum()) / self.images
        return pull * torch.where(present, sizes / self.size, 0.0).mean()
