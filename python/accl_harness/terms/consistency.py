"""Consistency of two views of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..classes import foreground, probabilities
from ..data.image_moves import inside, move
from .sizes import mean_sizes
from .term import Material, Pass, Term, check_weight


@dataclass(frozen=True)
class ConsistencyOptions:
    """Consistency."""

    consistency: float | None = None
    """The prediction for a second view of each image, scaled and shifted, is held to the first
    one's, moved alike, with this weight, 0 for off; a step then takes half as long again. Default:
    1 for accl_crf, else 0."""

    def check(self) -> None:
        """Refuse values that the term cannot have.

        Raises:
            UserError: naming the option.
        """
        check_weight(self, "consistency")


@dataclass(frozen=True)
class Consistency(Term):
    """A view of the image from nearer or farther shows the same object, larger or smaller.

    One blob for all images meets a few labels, the mean size and much of the discriminator's
    taste; it does not grow with the image. (Equivariance as a constraint: Wang et al. 2020, SEAM.)

    Attributes:
        weight: of the term.
        sizes: mean size of the reference masks in pixels, of each object class, the unit of the
            penalty; None for a class that no mask shows, which costs nothing.
    """

    name = "consistency"
    options = ConsistencyOptions
    weight_option = "consistency"
    by_method: ClassVar = {"accl_crf": 1.0}
    curves = (("consistency", "consistency of two views", "log"),)
    needs = frozenset({"view"})
    asks = True

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

    @classmethod
    def measure(cls, config, material: Material) -> Consistency:
        """The mean size over the masks that show the class."""
        return cls(cls.weight_of(config), mean_sizes(material.masks, config.foregrounds))

    def value(self, passed: Pass) -> Tensor:
        """A mean over the images."""
        step, batch = passed.step, passed.batch
        with step.autocast():
            logits = step.generator(move(batch.images, batch.view, smooth=True))
        second = foreground(probabilities(logits.to(passed.objects.dtype)))
        return self.penalty(passed.objects, second, batch.view)
