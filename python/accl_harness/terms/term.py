"""What every term of the objective is, and what a step gives it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..classes import foreground
from ..errors import UserError


@dataclass
class Batch:
    """What a step needs; with several processes the part of one."""

    images: Tensor
    """[b, 1, H, W], floating, in [-1, 1]."""
    labels: Tensor
    """[b, H, W] uint8: class indices, 0 background, 255 unlabelled."""
    present: Tensor | None = None
    """bool [b, K]: which objects an image holds, by its labels; an image without any is taken to
    hold what every labelled image does."""
    masks: Tensor | None = None
    """[b, H, W] uint8 class indices; for the statistics alone."""
    references: Tensor | None = None
    """[b, K, H, W], floating in [0, 1]: what D sees as real; None where ACCL is off."""
    bounds: Tensor | None = None
    """[b, C, 2]: a, b of eq. (3) in pixels; None where the size penalty is off."""
    guide: Tensor | None = None
    """[b, 1, H, W], the moved images with their own grey values; for terms that ask ``guide``."""
    seen: Tensor | None = None
    """bool [b, H, W], the pixels that a move did not bring in from outside; None: all."""
    enlarged: Tensor | None = None
    """[b], how many times larger a move made an object's area; None: as it was."""
    view: Tensor | None = None
    """[b, 2, 3], where a second view of the images looks, see
    :func:`~accl_harness.data.image_moves.draw_moves`; for terms that ask ``view``."""


class Material(NamedTuple):
    """What a term may measure before the training."""

    images: Tensor
    """Of the training [n, 1, H, W]."""
    masks: Tensor | None
    """Masks that show whole objects, uint8 [m, H, W] class indices."""
    ops: Any
    """Module with the losses: ``accl_ext`` or ``accl_ext.reference``."""


@dataclass
class Pass:
    """One forward pass of G, as the terms see it."""

    batch: Batch
    logits: Tensor
    """[b, C, H, W]."""
    head: Any
    """What ``segmentation_head`` gave for them: probabilities, soft sizes, fused losses."""
    objects: Tensor
    """Probabilities of the object classes [b, K, H, W]."""
    step: Any
    """The training step: its networks, ops, autocast, update and sum over the processes."""
    shares: Mapping[str, Tensor]
    """By name what share of the global batch's counts a term has in this process; empty: all."""
    notes: dict[str, Tensor] = field(default_factory=dict)
    """A term's other columns, by name."""

    @cached_property
    def scale(self) -> Tensor | float:
        """How many times larger the moves made the objects, to divide sizes [b, K] by."""
        return 1.0 if self.batch.enlarged is None else self.batch.enlarged.unsqueeze(1)

    @cached_property
    def sizes(self) -> Tensor:
        """Soft sizes [b, K] of the objects, as they would be without the move."""
        return foreground(self.head.soft_size) / self.scale

    def share(self, term: Term, mean: Tensor) -> Tensor:
        """This process's part of a term's mean over the global batch."""
        return mean * self.shares[term.name].to(mean.dtype) if self.shares else mean


class Term:
    """A term of the objective; the base says what one has beside its :meth:`value`.

    A subclass with parts that a run must keep (a running mean) is an ``nn.Module`` too, and its
    state goes into the checkpoint under its name.
    """

    name: ClassVar[str]
    """Its column in metrics.csv."""
    options: ClassVar[type]
    """Frozen dataclass: its fields are options of the training, their docstrings the help; its
    ``check`` refuses bad values. Names differ from those of all other options."""
    weight_option: ClassVar[str]
    """The field of ``options`` that is the weight; None there means the method's default."""
    by_method: ClassVar[Mapping[str, float]] = {}
    """Default weights; 0 for methods that are not named."""
    curves: ClassVar[tuple[tuple[str, str, str], ...]]
    """For the report: column, title, scale (linear, log or symlog)."""
    others: ClassVar[tuple[str, ...]] = ()
    """Names of further columns, whose values :meth:`value` puts into ``Pass.notes``."""
    always: ClassVar[bool] = False
    """Whether metrics.csv has the columns, empty, where the term is off too."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """The fields of a :class:`Batch` that are made for it: ``guide``, ``view``, ``references``,
    ``bounds``."""
    asks: ClassVar[bool] = False
    """Whether its numbers are measured on masks that show whole objects."""
    fact: ClassVar[str | None] = None
    """The name in metrics.json of what :meth:`told` says was measured."""
    weight: float
    """Of this term in this training."""

    @classmethod
    def weight_of(cls, config: Any) -> float | None:
        """The weight with these options, 0 for off; None: on, and measured."""
        given = getattr(config, cls.weight_option)
        return cls.by_method.get(config.method, 0.0) if given is None else given

    @classmethod
    def off(cls) -> dict[str, Any]:
        """The options that turn it off."""
        return {cls.weight_option: 0.0}

    @classmethod
    def asks_masks(cls, config: Any) -> bool:
        """Whether it needs masks that show whole objects, with these options."""
        return cls.asks and cls.weight_of(config) > 0

    @classmethod
    def check(cls, config: Any) -> None:
        """Refuse options that do not go together; each alone is checked by ``options.check``."""

    @classmethod
    def measure(cls, config: Any, material: Material) -> Term:
        """The term of a training, with all numbers that its options leave to the data."""
        raise NotImplementedError

    def told(self, config: Any) -> Any:
        """What was measured, for metrics.json; asked where ``fact`` is named."""

    def counts(self, batch: Batch) -> Tensor:
        """What its mean is over, in numbers [m] that add up over the processes: the images."""
        return batch.labels.new_full((1,), len(batch.images), dtype=torch.float64)

    def share_of(self, own: Tensor, total: Tensor) -> Tensor:
        """From the ``counts`` here and of all processes this one's share, a scalar."""
        return (own / total.clamp(min=1)).squeeze()

    def head_options(self, batch: Batch, total: Tensor | None) -> dict[str, Any]:
        """What it wants of ``segmentation_head``.

        Args:
            batch: this process's part.
            total: ``counts`` of the global batch; None where this process has all of it.
        """
        return {}

    def value(self, passed: Pass) -> Tensor:
        """The mean over what it counts in this process, a scalar; without the weight."""
        raise NotImplementedError


def check_weight(options: Any, *names: str) -> None:
    """Refuse a weight below 0; None stands for a default.

    Raises:
        UserError: naming the option.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 <= value < math.inf:
            raise UserError(f"{name} must be 0 or more, got {value}")
