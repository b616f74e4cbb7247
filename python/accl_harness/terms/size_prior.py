"""The soft size prior: each image's size is drawn to the reference masks'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..classes import by_class
from .sizes import class_sizes
from .term import Material, Pass, Term, check_weight

SMALLEST_DEVIATION = 0.1
"""Of the logarithm of the size: one painted mask alone would give 0."""


@dataclass(frozen=True)
class SizePriorOptions:
    """Size prior."""

    size_prior: float | None = None
    """The soft size prior, which draws each image's size to the reference masks' (mean and
    deviation of their logarithm), has this weight, 0 for off; default: 0.1 for accl_crf, else 0."""

    def check(self) -> None:
        """Refuse values that the term cannot have.

        Raises:
            UserError: naming the option.
        """
        check_weight(self, "size_prior")


@dataclass(frozen=True)
class SizePrior(Term):
    """What masks of other images say of an object's size, for each object class."""

    name = "size_prior"
    options = SizePriorOptions
    weight_option = "size_prior"
    by_method: ClassVar = {"accl_crf": 0.1}
    curves = (("size_prior", "size prior", "linear"),)
    always = True
    asks = True
    fact = "log_size"

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

    @classmethod
    def measure(cls, config, material: Material) -> SizePrior:
        """Mean and standard deviation of log(1 + size) over the masks that show the class."""
        means, deviations = [], []
        for sizes in class_sizes(material.masks, config.foregrounds):
            logs = torch.log1p(sizes)
            seen = len(logs) > 0
            means.append(logs.mean().item() if seen else None)
            deviation = max(logs.std(unbiased=False).item(), SMALLEST_DEVIATION) if seen else None
            deviations.append(deviation)
        return cls(cls.weight_of(config), tuple(means), tuple(deviations))

    def told(self, config) -> Any:
        """Mean and deviation of each class."""
        pairs = zip(self.means, self.deviations, strict=True)
        known = [None if mean is None else [mean, deviation] for mean, deviation in pairs]
        return by_class(known, config.classes)

    def value(self, passed: Pass) -> Tensor:
        """A mean over the images."""
        return self.penalty(passed.sizes, passed.batch.present)
