"""The log-barrier form of the size penalty: plain torch on one number an image and class.

The soft sizes come from the fused read of the logits or from the reference; this is the same for
both, on every device, with derivatives of any order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import _arguments as arguments

FORMS = ("quadratic", "log_barrier")
FIRST_T = 5.0
"""The published start of the schedule of t."""


def check_form(form: str, t: float | Tensor, names: tuple[str, str] = ("form", "t")) -> None:
    arguments.check_option(names[0], form, FORMS)
    if isinstance(t, Tensor):
        if t.dim() != 0 or not t.is_floating_point():
            raise ValueError(
                f"{names[1]} must be a number or a floating tensor without dimensions, "
                f"got {arguments._name(t.dtype)} {list(t.shape)}"
            )
    elif isinstance(t, bool) or not isinstance(t, int | float):
        raise TypeError(f"{names[1]} must be a number or a tensor, got {t!r}")
    elif not 0 < t < math.inf:  # no math.isfinite, which torch.compile cannot trace of a symbol
        raise ValueError(f"{names[1]} must be finite and above 0, got {t:g}")


def log_barrier(
    size: Tensor,
    bounds: Tensor,
    pixels: int,
    t: float | Tensor,
    normalize: str = "area",
    reduction: str = "mean",
) -> Tensor:
    """The sum of psi(a - V) and psi(V - b) of each pair, reduced.

    ``size`` [B, C] and ``bounds`` that broadcast to [B, C, 2], already checked.
    """
    if size.numel() == 0 or pixels == 0:
        return size * 0 if reduction == "none" else size.sum() * 0
    lower, upper = bounds.to(size.dtype).expand(*size.shape, 2).unbind(-1)
    has_lower, has_upper = lower.isfinite(), upper.isfinite()
    unit = pixels if normalize == "area2" else 1
    below = _psi((torch.where(has_lower, lower, 0) - size) / unit, t)
    above = _psi((size - torch.where(has_upper, upper, 0)) / unit, t)
    penalty = torch.where(has_lower, below, 0) + torch.where(has_upper, above, 0)
    if normalize == "area":
        penalty = penalty / pixels
    if reduction == "none":
        return penalty
    if reduction == "sum":
        return penalty.sum()
    return penalty.sum() / (has_lower | has_upper).sum().clamp(min=1)


def _psi(z: Tensor, t: float | Tensor) -> Tensor:
    """-log(-z) / t up to z = -1 / t^2, from there on its tangent t z + log(t^2) / t + 1 / t."""
    inside = z <= -1 / t**2
    log_t = t.log() if isinstance(t, Tensor) else math.log(t)
    return torch.where(inside, -torch.where(inside, -z, 1).log() / t, t * z + 2 * log_t / t + 1 / t)
