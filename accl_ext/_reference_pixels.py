"""What logits and labels say of each pixel, in pure PyTorch, on flattened spatial axes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _arguments as arguments


class Labelled(NamedTuple):
    """What the labels say, each [B, N]."""

    code: Tensor
    """Number of the class, 0 where there is none."""
    weight: Tensor
    """The pixel's weight, 0 where it is not labelled."""
    invalid: Tensor
    """True for a label that is neither a class nor ``ignore_index``."""
    soft: Tensor | None = None
    """Soft labels [B, max(C, 2), N], 0 where a pixel is not labelled; None: hard labels."""

    def shares(self, n_labels: int, dtype: torch.dtype) -> Tensor:
        """How much of each pixel is of each class, [B, n_labels, N]."""
        return is_class(self.code, n_labels).to(dtype) if self.soft is None else self.soft


class PixelTerms(NamedTuple):
    """Cross-entropy of every pixel and the weight it carries, both [B, N]."""

    loss: Tensor
    weight: Tensor


def accumulation(x: Tensor) -> Tensor:
    return x.to(arguments.accumulation_dtype(x.dtype))


def flat(logits: Tensor) -> Tensor:
    """[B, C, *S] -> [B, C, N] in the accumulation dtype."""
    return accumulation(logits).flatten(2)


def softplus(x: Tensor) -> Tensor:
    # F.softplus turns linear at 20, which costs float64 its last digits.
    return -F.logsigmoid(-x)


def probabilities(rows: Tensor) -> Tensor:
    return rows.sigmoid() if rows.shape[1] == 1 else rows.softmax(1)


def divide_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    empty = denominator == 0
    return torch.where(empty, 0, numerator) / torch.where(empty, 1, denominator)


def read_labels(
    rows: Tensor,
    labels: Tensor,
    ignore_index: int,
    pixel_weight: Tensor | None,
    mask: Tensor | None = None,
) -> Labelled:
    if labels.is_floating_point():
        return _read_soft_labels(rows, labels, pixel_weight, mask)
    n_labels = max(rows.shape[1], 2)
    code = labels.flatten(1).long()
    labelled = code != ignore_index if labels.dtype != torch.bool else torch.ones_like(code) > 0
    invalid = labelled & ((code < 0) | (code >= n_labels))
    if arguments.values_are_at_hand(labels):
        arguments.check_label_values(code[invalid], rows.shape[1], ignore_index)
    if pixel_weight is None:
        weight = labelled.to(rows.dtype)
    else:
        weight = torch.where(labelled, pixel_weight.flatten(1).to(rows.dtype), 0)
    return Labelled(torch.where(labelled & ~invalid, code, 0), weight, invalid)


def _read_soft_labels(
    rows: Tensor, labels: Tensor, pixel_weight: Tensor | None, mask: Tensor | None
) -> Labelled:
    soft = labels.flatten(2).to(rows.dtype)
    if soft.shape[1] == 1:
        soft = torch.cat([1 - soft, soft], 1)
    code = torch.zeros_like(soft[:, 0], dtype=torch.long)
    labelled = code == 0 if mask is None else mask.flatten(1)
    weight = torch.ones_like(soft[:, 0])
    if pixel_weight is not None:
        weight = pixel_weight.flatten(1).to(rows.dtype)
    weight = torch.where(labelled, weight, 0)
    counts = (weight != 0).unsqueeze(1)
    return Labelled(code, weight, torch.zeros_like(labelled), torch.where(counts, soft, 0))


def is_class(code: Tensor, n_labels: int) -> Tensor:
    """[B, N] -> [B, n_labels, N], True for the label's class."""
    return code.unsqueeze(1) == torch.arange(n_labels, device=code.device).view(1, -1, 1)


def pixel_terms(
    rows: Tensor, labelled: Labelled, weight: Tensor | None, label_smoothing: float
) -> PixelTerms:
    of_class = None if weight is None else weight.to(rows.dtype)
    of_pixel = labelled.weight
    w = of_pixel
    if of_class is not None and labelled.soft is None:
        w = of_pixel * of_class[labelled.code]
    # Selecting before the formula as well as after keeps a NaN or infinite logit of a pixel that
    # does not count out of the gradient (0 * NaN is NaN).
    counts = w != 0
    mixed = label_smoothing > 0 or labelled.soft is not None
    if mixed:
        counts = (of_pixel != 0) if of_class is None else (of_pixel != 0) & (of_class != 0).any()
    x = torch.where(counts.unsqueeze(1), rows, 0)
    if mixed:
        loss = of_pixel * _mixed_cross_entropy(x, labelled, of_class, label_smoothing)
    else:
        loss = w * _cross_entropy(x, labelled.code)
    loss = torch.where(counts, loss, 0)
    return PixelTerms(loss * nan_where(labelled.invalid), w)


def nan_where(invalid: Tensor) -> Tensor:
    # Where values cannot be looked at (CUDA), a label that is no class turns to NaN. A factor and
    # not a choice between two losses: the unchosen one's gradient would be 0 * NaN everywhere.
    return torch.where(invalid, math.nan, 1.0)


def _cross_entropy(rows: Tensor, code: Tensor) -> Tensor:
    """-log p of the label, [B, N]."""
    if rows.shape[1] == 1:
        x = rows.squeeze(1)
        return softplus(torch.where(code == 1, -x, x))
    return -rows.log_softmax(1).gather(1, code.unsqueeze(1)).squeeze(1)


def _mixed_cross_entropy(
    rows: Tensor, labelled: Labelled, weight: Tensor | None, smoothing: float
) -> Tensor:
    """The sum over c of w_c ((1 - e) t_c + e / K) (-log p_c) with the shares t, [B, N].

    One class counts as two (K = 2) of logits 0 and z.
    """
    if rows.shape[1] == 1:
        losses = torch.cat([softplus(rows), softplus(-rows)], 1)
    else:
        losses = -rows.log_softmax(1)
    n_labels = losses.shape[1]
    factor = (1 - smoothing) * labelled.shares(n_labels, rows.dtype) + smoothing / n_labels
    if weight is not None:
        factor = factor * weight.view(1, -1, 1)
    return torch.where(factor == 0, 0, factor * losses).sum(1)


def reduce_pixels(terms: PixelTerms, reduction: str) -> Tensor:
    if reduction == "sum":
        return terms.loss.sum()
    if reduction == "mean":
        return divide_or_zero(terms.loss.sum(), terms.weight.sum())
    image_weight = terms.weight.sum(1)
    image_loss = divide_or_zero(terms.loss.sum(1), image_weight)
    return image_loss.sum() / (image_weight != 0).sum().clamp(min=1)
