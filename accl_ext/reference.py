"""The losses in pure PyTorch: what the fused ops compute, written to be read.

Same names and signatures as the fused ops of :mod:`accl_ext`; works without the compiled
library, under ``torch.func`` transforms and forward-mode AD. In float64 it is the oracle of
the test suite. Equation numbers are those of Zhang et al., "Adversarial constrained-CNN loss
for weakly supervised medical image segmentation".
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from . import _arguments as arguments
from . import _reference_pixels as pixels

__all__ = [
    "SegmentationHeadOutput",
    "SegmentationHeadOverlapOutput",
    "accl_discriminator_loss",
    "accl_loss",
    "gated_crf_loss",
    "partial_cross_entropy",
    "partial_overlap_loss",
    "segmentation_head",
    "size_penalty",
    "validate_labels",
]

from ._arguments import (
    SegmentationHeadOutput,
    SegmentationHeadOverlapOutput,
    validate_labels,
)
from ._log_barrier import FIRST_T, check_form, log_barrier
from ._overlap_arguments import options_and_weight
from ._reference_gated_crf import gated_crf_loss
from ._reference_overlap import loss_of, overlap_sums, partial_overlap_loss


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
        loss = -pixels.accumulation(scores)
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
        fake = (1 + pixels.accumulation(fake_scores)).relu()
        real = (1 - pixels.accumulation(real_scores)).relu()
    else:
        fake = _score_term(fake_scores, fake_target, criterion)
        real = _score_term(real_scores, real_target, criterion)
    return scale * (_reduce(fake, reduction) + _reduce(real, reduction))


def partial_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    mask: Tensor | None = None,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy over the labelled pixels alone, the data term of eqs. (1), (2) and (4).

    ``logits`` [B, C, *S] and ``labels`` [B, *S] or [B, 1, *S], or soft ones [B, C, *S],
    to a scalar, or for ``"none"`` a map
    [B, *S]. Arguments, dtypes and errors are those of :func:`accl_ext.partial_cross_entropy`.
    """
    arguments.check_logits(logits)
    arguments.check_labels(logits, labels, mask)
    arguments.check_weight(logits, weight)
    arguments.check_pixel_weight(logits, pixel_weight)
    arguments.check_label_smoothing(label_smoothing)
    arguments.check_option("reduction", reduction, arguments.LABEL_REDUCTIONS)
    rows = pixels.flat(logits)
    labelled = pixels.read_labels(rows, labels, ignore_index, pixel_weight, mask)
    terms = pixels.pixel_terms(rows, labelled, weight, label_smoothing)
    if reduction == "none":
        return terms.loss.reshape(logits.shape[:1] + logits.shape[2:])
    return pixels.reduce_pixels(terms, reduction)


def size_penalty(
    logits: Tensor,
    bounds: Tensor | tuple[float, float],
    *,
    form: str = "quadratic",
    t: float | Tensor = FIRST_T,
    normalize: str = "area",
    reduction: str = "mean",
) -> Tensor:
    """Penalty on a soft size outside its bounds: C(.) of eq. (3), or the log barrier.

    ``logits`` [B, C, *S] and ``bounds`` that broadcast to [B, C, 2] to a scalar, or for ``"none"``
    [B, C]. Arguments, dtypes and errors are those of :func:`accl_ext.size_penalty`.
    """
    bounds = arguments.bounds_tensor(bounds, logits)
    arguments.check_logits(logits)
    arguments.check_option("normalize", normalize, arguments.NORMALIZATIONS)
    arguments.check_option("reduction", reduction, arguments.SIZE_REDUCTIONS)
    arguments.check_bounds(logits, bounds)
    check_form(form, t)
    size = pixels.probabilities(pixels.flat(logits)).sum(-1)
    area = math.prod(logits.shape[2:])
    if form == "log_barrier":
        return log_barrier(size, bounds, area, t, normalize, reduction)
    return _penalty(size, bounds, area, normalize, reduction)


def segmentation_head(
    logits: Tensor,
    labels: Tensor,
    bounds: Tensor | tuple[float, float] | None = None,
    *,
    mask: Tensor | None = None,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    normalize: str = "area",
    size_form: str = "quadratic",
    size_t: float | Tensor = FIRST_T,
    overlap: Mapping | None = None,
) -> SegmentationHeadOutput | SegmentationHeadOverlapOutput:
    """Probabilities, partial cross-entropy, size penalty and soft size in one call.

    ``logits`` [B, C, *S] and ``labels`` as there to (probabilities [B, C, *S], a
    scalar, a scalar, soft size [B, C]), and with ``overlap`` the overlap loss. Arguments, dtypes
    and errors are those of :func:`accl_ext.segmentation_head`.
    """
    check_form(size_form, size_t, ("size_form", "size_t"))
    if overlap is not None:
        options, overlap_weight = options_and_weight(overlap)
    if bounds is not None:
        bounds = arguments.bounds_tensor(bounds, logits)
    arguments.check_logits(logits)
    arguments.check_labels(logits, labels, mask)
    arguments.check_weight(logits, weight)
    arguments.check_pixel_weight(logits, pixel_weight)
    arguments.check_label_smoothing(label_smoothing)
    arguments.check_option("normalize", normalize, arguments.NORMALIZATIONS)
    if bounds is not None:
        arguments.check_bounds(logits, bounds)
    if overlap is not None:
        arguments.check_weight(logits, overlap_weight, "weight of overlap")
    rows = pixels.flat(logits)
    labelled = pixels.read_labels(rows, labels, ignore_index, pixel_weight, mask)
    terms = pixels.pixel_terms(rows, labelled, weight, label_smoothing)
    probabilities = pixels.probabilities(rows)
    size = probabilities.sum(-1)
    if bounds is None:
        penalty = size.new_zeros(())
    elif size_form == "log_barrier":
        penalty = log_barrier(size, bounds, math.prod(logits.shape[2:]), size_t, normalize)
    else:
        penalty = _penalty(size, bounds, math.prod(logits.shape[2:]), normalize, "mean")
    head = SegmentationHeadOutput(
        probabilities.to(logits.dtype).reshape(logits.shape),
        pixels.reduce_pixels(terms, "mean"),
        penalty,
        size,
    )
    if overlap is None:
        return head
    sums = overlap_sums(rows, labelled, options.squared)
    return SegmentationHeadOverlapOutput(
        *head, loss_of(sums, options, logits.shape[1], overlap_weight)
    )


def _score_term(scores: Tensor, target: float, criterion: str) -> Tensor:
    scores = pixels.accumulation(scores)
    if criterion == "lsgan":
        return (scores - target) ** 2
    # softplus(d) - t d in two parts that do not cancel; one without weight is left out, for it
    # would be 0 * inf at an infinite score.
    parts = ((1 - target, scores), (target, -scores))
    return sum(weight * pixels.softplus(x) for weight, x in parts if weight != 0)


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.sum() / max(loss.numel(), 1) if reduction == "mean" else loss.sum()


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
