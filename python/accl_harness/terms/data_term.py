"""The data term: partial cross-entropy over the labelled pixels, eq. (2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.options import UNLABELLED
from ..errors import UserError
from ..methods import Labels
from .term import Batch, Material, Pass, Term

BALANCING = ("sccl_crf", "accl_crf")
"""Methods that let classes count alike by default, of one object alone."""


@dataclass(frozen=True)
class DataTermOptions:
    """Data term."""

    class_balance: bool | None = None
    """Each class that a batch labels counts alike in the cross-entropy, however many of its pixels
    are labelled: a few marks of the object are not drowned by many of the background. Default: true
    for sccl_crf and accl_crf of one object, else false."""

    def check(self) -> None:
        """Every value is one."""


@dataclass(frozen=True)
class DataTerm(Term):
    """Cross-entropy over the labelled pixels; every method has it, with weight 1."""

    name = "partial_ce"
    options = DataTermOptions
    curves = (("partial_ce", "data term", "log"),)
    always = True

    classes: int
    """Of the labels, the background counted."""
    balances: bool
    """Whether each class counts alike."""
    weight: float = 1.0

    @classmethod
    def weight_of(cls, config) -> float:
        """Always 1: the other weights are relative to it."""
        return 1.0

    @classmethod
    def off(cls) -> dict[str, Any]:
        """It never is."""
        return {}

    @classmethod
    def measure(cls, config, material: Material) -> DataTerm:
        """Nothing of it is measured."""
        return cls(config.foregrounds + 1, cls.balances_classes(config))

    @staticmethod
    def balances_classes(config) -> bool:
        """Whether each class counts alike, with these options."""
        if config.class_balance is not None:
            return config.class_balance
        return config.method in BALANCING and (config.classes or 1) <= 2

    def counts(self, batch: Batch) -> Tensor:
        """Labelled pixels; of each class where classes count alike."""
        if self.balances:
            return class_counts(batch.labels, self.classes).sum(0, dtype=torch.float64)
        return (batch.labels != UNLABELLED).sum(dtype=torch.float64).view(1)

    def share_of(self, own: Tensor, total: Tensor) -> Tensor:
        """In labelled pixels, as their classes weigh."""
        if not self.balances:
            return super().share_of(own, total)
        weights = balancing_weights(total)
        return (own * weights).sum() / (total * weights).sum().clamp(min=1)

    def head_options(self, batch: Batch, total: Tensor | None) -> dict[str, Any]:
        """The classes' weights, where they count alike in the global batch."""
        if not self.balances:
            return {}
        counts = self.counts(batch) if total is None else total
        return {"weight": balancing_weights(counts.float())}

    def value(self, passed: Pass) -> Tensor:
        """Computed with the head."""
        return passed.head.partial_ce


def data_term_labels(kind: Labels, weak: Tensor, masks: Tensor | None) -> Tensor:
    """Labels of the cross-entropy, uint8 [n, H, W], see :class:`~accl_harness.methods.Method`.

    Raises:
        UserError: full supervision, and the data set has no masks.
    """
    if kind == "full":
        if masks is None:
            raise UserError("full supervision needs masks, the data set has weak labels alone")
        return masks
    if kind == "weak_or_background":
        return torch.where(weak == UNLABELLED, 0, weak).to(torch.uint8)
    return weak


def class_counts(labels: Tensor, classes: int) -> Tensor:
    """Labelled pixels of each class in labels [b, H, W]: float32 [b, classes], without a sync."""
    counts = [(labels == index).sum((1, 2)) for index in range(classes)]
    return torch.stack(counts, 1).float()


def balancing_weights(counts: Tensor) -> Tensor:
    """Weights [C] that make a mean over all labelled pixels the mean of each class's mean.

    Alone in a batch a class has weight 1; a class without a labelled pixel has 0.

    Args:
        counts: labelled pixels [C] of the batch.
    """
    present = counts > 0
    shares = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, shares, 0.0)
