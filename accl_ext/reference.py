"""The losses in pure PyTorch: what the fused ops compute, written to be read.

Same names and signatures as the fused ops of :mod:`accl_ext`; works without the compiled
library, under ``torch.func`` transforms and forward-mode AD. In float64 it is the oracle of
the test suite. Equation numbers are those of Zhang et al., "Adversarial constrained-CNN loss
for weakly supervised medical image segmentation".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _arguments as arguments

__all__ = [
    "SegmentationHeadOutput",
    "accl_discriminator_loss",
    "accl_loss",
    "gated_crf_loss",
    "partial_cross_entropy",
    "segmentation_head",
    "size_penalty",
    "validate_labels",
]

from ._arguments import SegmentationHeadOutput, validate_labels
from ._reference_gated_crf import gated_crf_loss


class _PixelTerms(NamedTuple):
    """Cross-entropy of every pixel and the weight it carries, both [B, N]."""

    loss: Tensor
    weight: Tensor


def accl_loss(
    scores: Tensor, *, target: float = 1.0, criterion: str = "lsgan", reduction: str = "mean"
) -> Tensor:
    """Adversarial constrained-CNN loss of the segmentation network, eq. (5).

    ``scores`` of any shape to a scalar, or for ``"none"`` a tensor of that shape. Arguments, dtypes
    and errors are those of :func:`accl_ext.accl_loss`.
    """
    arguments.check_scores(scores, "scores")
    arguments.check_option("criterion", criterion, arguments.CRITERIA)
    arguments.check_option("reduction", reduction, arguments.SCORE_REDUCTIONS)
    if criterion == "hinge":
        loss = -_accumulation(scores)
    else:
        loss = _score_term(scores, target, criterion)
    return _reduce(loss, reduction)


def accl_discriminator_loss(
    fake_scores: Tensor,
    real_scores: Tensor,
    *,
    fake_target: float = 0.0,
    real_target: float = 1.0,
    criterion: str = "lsgan",
    scale: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Loss of the discriminator on segmentations and reference masks, eq. (6).

    Scores of any shapes to a scalar, or for ``"none"`` scores of one shape to a tensor of it.
    Arguments, dtypes and errors are those of :func:`accl_ext.accl_discriminator_loss`.
    """
    arguments.check_scores(fake_scores, "fake_scores")
    arguments.check_scores(real_scores, "real_scores")
    arguments.check_option("criterion", criterion, arguments.CRITERIA)
    arguments.check_option("reduction", reduction, arguments.SCORE_REDUCTIONS)
    arguments.check_score_pair(fake_scores, real_scores, reduction)
    if criterion == "hinge":
        fake = (1 + _accumulation(fake_scores)).relu()
        real = (1 - _accumulation(real_scores)).relu()
    else:
        fake = _score_term(fake_scores, fake_target, criterion)
        real = _score_term(real_scores, real_target, criterion)
    return scale * (_reduce(fake, reduction) + _reduce(real, reduction))


def partial_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy over the labelled pixels alone, the data term of eqs. (1), (2) and (4).

    ``logits`` [B, C, *S] and ``labels`` [B, *S] or [B, 1, *S] to a scalar, or for ``"none"`` a map
    [B, *S]. Arguments, dtypes and errors are those of :func:`accl_ext.partial_cross_entropy`.
    """
    arguments.check_logits(logits)
    arguments.check_labels(logits, labels)
    arguments.check_weight(logits, weight)
    arguments.check_pixel_weight(logits, pixel_weight)
    arguments.check_label_smoothing(label_smoothing)
    arguments.check_option("reduction", reduction, arguments.LABEL_REDUCTIONS)
    terms = _pixel_terms(_rows(logits), labels, ignore_index, weight, pixel_weight, label_smoothing)
    if reduction == "none":
        return terms.loss.reshape(logits.shape[:1] + logits.shape[2:])
    return _reduce_pixels(terms, reduction)


def size_penalty(
    logits: Tensor,
    bounds: Tensor | tuple[float, float],
    *,
    normalize: str = "area",
    reduction: str = "mean",
) -> Tensor:
    """Quadratic penalty C(.) on a soft size outside its bounds, eq. (3).

    ``logits`` [B, C, *S] and ``bounds`` that broadcast to [B, C, 2] to a scalar, or for ``"none"``
    [B, C]. Arguments, dtypes and errors are those of :func:`accl_ext.size_penalty`.
    """
    bounds = arguments.bounds_tensor(bounds, logits)
    arguments.check_logits(logits)
    arguments.check_option("normalize", normalize, arguments.NORMALIZATIONS)
    arguments.check_option("reduction", reduction, arguments.SIZE_REDUCTIONS)
    arguments.check_bounds(logits, bounds)
    size = _probabilities(_rows(logits)).sum(-1)
    return _penalty(size, bounds, math.prod(logits.shape[2:]), normalize, reduction)


def segmentation_head(
    logits: Tensor,
    labels: Tensor,
    bounds: Tensor | tuple[float, float] | None = None,
    *,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    normalize: str = "area",
) -> SegmentationHeadOutput:
    """Probabilities, partial cross-entropy, size penalty and soft size in one call.

    ``logits`` [B, C, *S] and ``labels`` [B, *S] or [B, 1, *S] to (probabilities [B, C, *S], a
    scalar, a scalar, soft size [B, C]). Arguments, dtypes and errors are those of
    :func:`accl_ext.segmentation_head`.
    """
    if bounds is not None:
        bounds = arguments.bounds_tensor(bounds, logits)
    arguments.check_logits(logits)
    arguments.check_labels(logits, labels)
    arguments.check_weight(logits, weight)
    arguments.check_pixel_weight(logits, pixel_weight)
    arguments.check_label_smoothing(label_smoothing)
    arguments.check_option("normalize", normalize, arguments.NORMALIZATIONS)
    if bounds is not None:
        arguments.check_bounds(logits, bounds)
    rows = _rows(logits)
    terms = _pixel_terms(rows, labels, ignore_index, weight, pixel_weight, label_smoothing)
    probabilities = _probabilities(rows)
    size = probabilities.sum(-1)
    if bounds is None:
        penalty = size.new_zeros(())
    else:
        penalty = _penalty(size, bounds, math.prod(logits.shape[2:]), normalize, "mean")
    return SegmentationHeadOutput(
        probabilities.to(logits.dtype).reshape(logits.shape),
        _reduce_pixels(terms, "mean"),
        penalty,
        size,
    )


def _accumulation(x: Tensor) -> Tensor:
    return x.to(arguments.accumulation_dtype(x.dtype))


def _rows(logits: Tensor) -> Tensor:
    """[B, C, *S] -> [B, C, N] in the accumulation dtype."""
    return _accumulation(logits).flatten(2)


def _softplus(x: Tensor) -> Tensor:
    # F.softplus turns linear at 20, which costs float64 its last digits.
    return -F.logsigmoid(-x)


def _score_term(scores: Tensor, target: float, criterion: str) -> Tensor:
    scores = _accumulation(scores)
    if criterion == "lsgan":
        return (scores - target) ** 2
    # softplus(d) - t d in two parts that do not cancel; one without weight is left out, for it
    # would be 0 * inf at an infinite score.
    parts = ((1 - target, scores), (target, -scores))
    return sum(weight * _softplus(x) for weight, x in parts if weight != 0)


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.sum() / max(loss.numel(), 1) if reduction == "mean" else loss.sum()


def _probabilities(rows: Tensor) -> Tensor:
    return rows.sigmoid() if rows.shape[1] == 1 else rows.softmax(1)


def _pixel_terms(
    rows: Tensor,
    labels: Tensor,
    ignore_index: int,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    label_smoothing: float,
) -> _PixelTerms:
    n_labels = max(rows.shape[1], 2)
    code = labels.flatten(1).long()
    labelled = code != ignore_index if labels.dtype != torch.bool else torch.ones_like(code) > 0
    invalid = labelled & ((code < 0) | (code >= n_labels))
    if arguments.values_are_at_hand(labels):
        arguments.check_label_values(code[invalid], rows.shape[1], ignore_index)
    safe_code = torch.where(labelled & ~invalid, code, 0)
    of_class = None if weight is None else weight.to(rows.dtype)
    if pixel_weight is None:
        of_pixel = labelled.to(rows.dtype)
    else:
        of_pixel = torch.where(labelled, pixel_weight.flatten(1).to(rows.dtype), 0)
    w = of_pixel if of_class is None else of_pixel * of_class[safe_code]
    # Selecting before the formula as well as after keeps a NaN or infinite logit of a pixel that
    # does not count out of the gradient (0 * NaN is NaN).
    counts = w != 0
    if label_smoothing > 0:
        counts = (of_pixel != 0) if of_class is None else (of_pixel != 0) & (of_class != 0).any()
    x = torch.where(counts.unsqueeze(1), rows, 0)
    if label_smoothing > 0:
        loss = of_pixel * _smoothed_cross_entropy(x, safe_code, of_class, label_smoothing)
    else:
        loss = w * _cross_entropy(x, safe_code)
    loss = torch.where(counts, loss, 0)
    # Where values cannot be looked at (CUDA), a label that is no class turns to NaN. A factor and
    # not a choice between two losses: the unchosen one's gradient would be 0 * NaN everywhere.
    return _PixelTerms(loss * torch.where(invalid, math.nan, 1.0), w)


def _cross_entropy(rows: Tensor, code: Tensor) -> Tensor:
    """-log p of the label, [B, N]."""
    if rows.shape[1] == 1:
        x = rows.squeeze(1)
        return _softplus(torch.where(code == 1, -x, x))
    return -rows.log_softmax(1).gather(1, code.unsqueeze(1)).squeeze(1)


def _smoothed_cross_entropy(
    rows: Tensor, code: Tensor, weight: Tensor | None, smoothing: float
) -> Tensor:
    """(1 - e) w_y (-log p_y) + e / K sum_c w_c (-log p_c), [B, N].

    One class counts as two (K = 2) of logits 0 and z.
    """
    if rows.shape[1] == 1:
        losses = torch.cat([_softplus(rows), _softplus(-rows)], 1)
    else:
        losses = -rows.log_softmax(1)
    n_labels = losses.shape[1]
    classes = torch.arange(n_labels, device=rows.device).view(1, -1, 1)
    is_label = (classes == code.unsqueeze(1)).to(rows.dtype)
    factor = (1 - smoothing) * is_label + smoothing / n_labels
    if weight is not None:
        factor = factor * weight.view(1, -1, 1)
    return torch.where(factor == 0, 0, factor * losses).sum(1)


def _reduce_pixels(terms: _PixelTerms, reduction: str) -> Tensor:
    if reduction == "sum":
        return terms.loss.sum()
    if reduction == "mean":
        return _divide_or_zero(terms.loss.sum(), terms.weight.sum())
    image_weight = terms.weight.sum(1)
    image_loss = _divide_or_zero(terms.loss.sum(1), image_weight)
    return image_loss.sum() / (image_weight != 0).sum().clamp(min=1)


def _divide_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    empty = denominator == 0
    return torch.where(empty, 0, numerator) / torch.where(empty, 1, denominator)


def _penalty(size: Tensor, bounds: Tensor, pixels: int, normalize: str, reduction: str) -> Tensor:
    if size.numel() == 0 or pixels == 0:
        return size * 0 if reduction == "none" else size.sum() * 0
    bounds = bounds.to(size.dtype).expand(*size.shape, 2)
    lower, upper = bounds.unbind(-1)
    has_lower, has_upper = lower.isfinite(), upper.isfinite()
    below = torch.where(has_lower, (torch.where(has_lower, lower, 0) - size).relu(), 0)
    may_exceed = has_upper & ~(has_lower & (size < lower))  # where a > b, a comes first
    above = torch.where(may_exceed, (size - torch.where(has_upper, upper, 0)).relu(), 0)
    penalty = (below**2 + above**2) / {"area": pixels, "none": 1, "area2": pixels**2}[normalize]
    if reduction == "none":
        return penalty
    if reduction == "sum":
        return penalty.sum()
    return penalty.sum() / (has_lower | has_upper).sum().clamp(min=1)
