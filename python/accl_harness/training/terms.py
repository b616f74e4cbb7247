"""The terms beyond the paper: gated CRF, sizes, consistency of two views, and entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .image_moves import inside


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
    """What masks of other images say of an object's size, for each object class."""

    weight: float
    means: tuple[float | None, ...]
    """Of log(1 + size); None for a class that no mask shows, which costs nothing."""
    deviations: tuple[float | None, ...]

    def penalty(self, sizes: Tensor, present: Tensor) -> Tensor:
        """Mean over images and classes of half the squared deviation, in units of the prior's.

        Args:
            sizes: soft sizes [b, K], as they would be without the move.
            present: bool [b, K]: which images hold the object; the others cost nothing.
        """
        costs = []
        for index, (mean, deviation) in enumerate(zip(self.means, self.deviations, strict=True)):
            if mean is None:
                costs.append(torch.zeros_like(sizes[:, index]))
                continue
            deviations = (torch.log1p(sizes[:, index]) - mean) / deviation
            costs.append(torch.where(present[:, index], 0.5 * deviations.square(), 0.0))
        return torch.stack(costs).mean()


class SizeBalance(nn.Module):
    """Holds the mean size over the training images at that of the reference masks.

    The prior draws every image to one size. This term draws the pixels of all images alike, up
    where their masks came out too small over about an epoch, down where too large, and leaves each
    image its place among them: a Lagrange multiplier of the mean size. It undoes the shrinkage
    that any price of an outline brings.

    Args:
        weight: of the term.
        sizes: mean size of the reference masks in pixels, of each object class; None for a class
            that no mask shows, which is left alone.
        images: number of training images, the memory of the running mean.
    """

    seen: Tensor
    """Running mean of the predicted sizes [K]; saved with the networks."""

    def __init__(self, weight: float, sizes: Sequence[float | None], images: int):
        super().__init__()
        self.weight, self.sizes, self.images = weight, tuple(sizes), images
        known = torch.tensor([size is not None for size in sizes])
        target = torch.tensor([size or 1.0 for size in sizes], dtype=torch.float64)
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("target", target, persistent=False)
        # From the right size on: nothing is drawn before something was seen.
        self.register_buffer("seen", target.clone())

    def load_state_dict(self, state: Any, *args: Any, **options: Any) -> Any:
        """Take the single number of runs before several classes as well."""
        state = {name: value.view_as(getattr(self, name)) for name, value in state.items()}
        return super().load_state_dict(state, *args, **options)

    def forward(
        self, predicted: Tensor, sizes: Tensor, present: Tensor, total: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The mean pull on the images of this process, by what was seen before them.

        Args:
            predicted: pixels that are called the object [b, K], as they would be without the move.
            sizes: soft sizes [b, K], likewise: the threshold has no gradient, and without it a
                faint haze over the background would count.
            present: bool [b, K]: which images hold the object; the others are left alone.
            total: adds a tensor up over the processes.
        """
        present = present & self.known
        pull = (self.seen / self.target - 1).to(sizes.dtype)
        off = torch.where(present, predicted.double() - self.seen, 0.0)
        self.seen += total(off.sum(0)) / self.images
        shares = torch.where(present, sizes / self.target.to(sizes.dtype), 0.0)
        return (pull * shares.mean(0)).mean()


@dataclass(frozen=True)
class Consistency:
    """A view of the image from nearer or farther shows the same object, larger or smaller.

    One blob for all images meets a few labels, the mean size and much of the discriminator's
    taste; it does not grow with the image. (Equivariance as a constraint: Wang et al. 2020, SEAM.)

    Attributes:
        weight: of the term.
        sizes: mean size of the reference masks in pixels, of each object class, the unit of the
            penalty; None for a class that no mask shows, which costs nothing.
    """

    weight: float
    sizes: tuple[float | None, ...]

    def penalty(self, first: Tensor, second: Tensor, view: Tensor) -> Tensor:
        """Mean over images and classes of the squared differences' sum, in units of the object.

        Pixels of the second view that the first does not show are left out, and all count as
        large as they are in the first.

        Args:
            first: probabilities [b, K, H, W] for the images.
            second: those for the second view.
            view: where it looks, affine maps [b, 2, 3] as ``affine_grid`` takes them.
        """
        height, width = first.shape[-2:]
        grid = F.affine_grid(view, [len(view), 1, height, width], align_corners=False)
        moved = F.grid_sample(first, grid.to(first.dtype), align_corners=False)
        seen = inside(view, height, width).unsqueeze(1)
        squares = torch.where(seen, (moved - second).square(), 0.0).sum((2, 3))
        # How much of the first view a pixel of the second takes; nothing here waits for a device,
        # so that a CUDA graph can record it.
        area = (view[:, 0, 0] * view[:, 1, 1] - view[:, 0, 1] * view[:, 1, 0]).abs()
        units = [1 / size if size else 0.0 for size in self.sizes]
        costs = [each * unit for each, unit in zip(squares.unbind(1), units, strict=True)]
        return (torch.stack(costs, 1) * area.unsqueeze(1)).mean()


def mean_entropy(logits: Tensor, chosen: Tensor) -> Tensor:
    """Mean entropy of the prediction, in nats, over the pixels ``chosen``; 0 where there are none.

    From the logits, since the derivative of p log p is infinite at a probability of 0.

    Args:
        logits: [b, C, H, W]; C = 1 stands for two classes.
        chosen: bool [b, H, W].
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if logits.shape[1] == 1:
        entropy = (F.softplus(logits) - logits * logits.sigmoid()).squeeze(1)
    else:
        entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    return torch.where(chosen, entropy, 0.0).sum() / chosen.sum().clamp(min=1)
