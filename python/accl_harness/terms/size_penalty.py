"""The size penalty of eq. (3): sizes are held between bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..classes import labelled_objects
from ..data.options import UNLABELLED
from ..errors import UserError
from ..methods import PAPER_BOUNDS
from .sizes import class_sizes
from .term import Batch, Material, Pass, Term, check_weight

BoundsName = Literal["training", "none", "paper_disc", "paper_cup", "paper_lv", "paper_pupil"]


@dataclass(frozen=True)
class SizePenaltyOptions:
    """Size penalty."""

    size_weight: float | None = None
    """The size penalty has this weight, 0 for off; default: 0.01 for sccl and sccl_crf, else 0."""
    bounds: BoundsName | tuple[float, float] = "training"
    """The size penalty holds sizes between these bounds a, b in pixels at the working size;
    training: 0.9 min and 1.1 max of the sizes of the training masks; paper_*: the paper's, scaled
    from 256 x 256. [10, .inf] leaves the upper side free."""

    def check(self) -> None:
        """Refuse values that the term cannot have.

        Raises:
            UserError: naming the option.
        """
        check_weight(self, "size_weight")
        if not isinstance(self.bounds, str) and self.bounds[0] > self.bounds[1]:
            raise UserError(f"bounds must be a lower and an upper size, got {list(self.bounds)}")


@dataclass(frozen=True)
class SizePenalty(Term):
    """Squared pixels beyond the bounds, a mean over the pairs of image and class with bounds."""

    name = "size_penalty"
    options = SizePenaltyOptions
    weight_option = "size_weight"
    by_method: ClassVar = {"sccl": 0.01, "sccl_crf": 0.01}
    curves = (("size_penalty", "size penalty", "symlog"),)
    always = True
    needs = frozenset({"bounds"})

    weight: float

    @classmethod
    def check(cls, config) -> None:
        """Refuse bounds that the method or the classes cannot have.

        Raises:
            UserError: naming the option.
        """
        if config.foregrounds > 1 and str(config.bounds).startswith("paper"):
            raise UserError(
                "bounds must be training, none or two numbers with several classes, the paper's "
                f"are of one, got {config.bounds}"
            )
        if cls.weight_of(config) > 0 and config.bounds == "none":
            raise UserError(f"method {config.method} needs size bounds, got bounds: none")

    @classmethod
    def measure(cls, config, material: Material) -> SizePenalty:
        """The bounds come with the batches, see :func:`class_bounds`."""
        return cls(cls.weight_of(config))

    def counts(self, batch: Batch) -> Tensor:
        """Pairs of image and class that are bounded."""
        return batch.bounds.isfinite().any(2).sum(dtype=torch.float64).view(1)

    def head_options(self, batch: Batch, total: Tensor | None) -> dict[str, Any]:
        """The bounds of each image and class."""
        return {"bounds": batch.bounds}

    def value(self, passed: Pass) -> Tensor:
        """Computed with the head."""
        return passed.head.size_penalty


def class_bounds(config, masks: Tensor | None) -> list[tuple[float, float] | None]:
    """Size bounds a, b of each object class in pixels; None where nothing tells them.

    Args:
        config: its ``bounds`` say which.
        masks: those of the training images [n, H, W], or None.
    """
    if masks is None and config.bounds == "training":
        return [None] * config.foregrounds
    if masks is None:
        return [size_bounds(config, [])] * config.foregrounds
    sizes = class_sizes(masks, config.foregrounds)
    return [size_bounds(config, pixels.int().tolist()) for pixels in sizes]


def image_bounds(config, bounds: Sequence[tuple[float, float] | None], labels: Tensor) -> Tensor:
    """Size bounds of each image and channel [n, C, 2]; not finite where a side is free.

    The background's are free. With several classes an image may lack one: it is held to size 0
    where every pixel is labelled and none so, and where the labels are few and none is of the class
    its lower bound is free. Without classes every image has the object.

    Args:
        config: its ``classes``.
        bounds: of each object class; None: free.
        labels: [n, H, W], 255 unlabelled.
    """
    free = (-math.inf, math.inf)
    per_class = torch.tensor([free if pair is None else pair for pair in bounds])
    found = per_class.expand(len(labels), -1, -1).clone()
    if config.classes is None:
        return found
    absent = ~labelled_objects(labels, config.foregrounds)
    whole = (labels != UNLABELLED).flatten(1).all(1)
    found[..., 0][absent] = -math.inf
    found[absent & whole[:, None]] = 0.0
    return torch.cat((torch.tensor(free).expand(len(labels), 1, 2), found), 1)


def size_bounds(config, sizes: list[int]) -> tuple[float, float] | None:
    """Bounds a, b in pixels at the working size.

    Args:
        config: its ``bounds`` say which.
        sizes: foreground pixels of each training mask at the working size; empty masks do not
            count (they would make every lower bound 0).
    """
    if not isinstance(config.bounds, str):
        return (float(config.bounds[0]), float(config.bounds[1]))
    if config.bounds == "none":
        return None
    if config.bounds == "training":
        present = [size for size in sizes if size > 0]
        return (0.9 * min(present), 1.1 * max(present)) if present else None
    scale = (config.size / 256) ** 2
    lower, upper = PAPER_BOUNDS[config.bounds]
    return (lower * scale, upper * scale)
