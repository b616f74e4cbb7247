"""Checks and conversions of the options of ``partial_overlap_loss``.

They are looked at in Python alone, for the fused op and the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from . import _arguments as arguments

ABSENT = ("skip", "keep")
REDUCTIONS = ("mean", "sum", "none")


class OverlapOptions(NamedTuple):
    """How sums over pixels become a loss; the defaults are those of ``partial_overlap_loss``."""

    alpha: float = 0.5
    beta: float = 0.5
    smooth_numerator: float = 0.0
    smooth_denominator: float = 0.0
    absent: str = "skip"
    include_background: bool | None = None
    squared: bool = False
    batch: bool = False
    reduction: str = "mean"

    def check(self) -> OverlapOptions:
        for name in ("alpha", "beta", "smooth_numerator", "smooth_denominator"):
            _check_number(name, getattr(self, name))
        arguments.check_option("absent", self.absent, ABSENT)
        if self.include_background is not None:
            _check_flag("include_background", self.include_background, "True, False or None")
        _check_flag("squared", self.squared)
        _check_flag("batch", self.batch)
        arguments.check_option("reduction", self.reduction, REDUCTIONS)
        return self

    def first_class(self, classes: int) -> int:
        """The first class that counts: 0, or 1 without the background."""
        background = classes > 1 if self.include_background is None else self.include_background
        return 0 if background else 1

    def numbers(self) -> list[float]:
        """One list for the fused op, in the order of ``OverlapOptions`` in csrc/kernels.h."""
        background = -1 if self.include_background is None else self.include_background
        return [
            float(self.alpha),
            float(self.beta),
            float(self.smooth_numerator),
            float(self.smooth_denominator),
            float(ABSENT.index(self.absent)),
            float(background),
            float(self.squared),
            float(self.batch),
            float(REDUCTIONS.index(self.reduction)),
        ]


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be finite and at least 0, got {value:g}")


def _check_flag(name: str, value: bool, wanted: str = "True or False") -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be {wanted}, got {value!r}")


def options_and_weight(overlap: Mapping) -> tuple[OverlapOptions, Tensor | None]:
    """The argument ``overlap`` of ``segmentation_head``: the options, checked, and the weight."""
    if not isinstance(overlap, Mapping):
        raise TypeError(f"overlap must be a dict of options or None, got {overlap!r}")
    known = (*OverlapOptions._fields, "weight")
    for name in overlap:
        if name not in known:
            raise ValueError(f"overlap must hold only {', '.join(known)}, got {name!r}")
    options = {name: value for name, value in overlap.items() if name != "weight"}
    return OverlapOptions(**options).check(), overlap.get("weight")
