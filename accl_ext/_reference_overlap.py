"""The overlap loss over the labelled pixels in pure PyTorch: sums over pixels, then a ratio."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _arguments as arguments
from . import _reference_pixels as pixels
from ._overlap_arguments import OverlapOptions


class OverlapSums(NamedTuple):
    """Sums over the labelled pixels, each [B, K] with K = max(C, 2): one class counts as two."""

    hit: Tensor
    """TP, the sum of w p y."""
    predicted: Tensor
    """S, the sum of w p, or of w p^2."""
    labelled: Tensor
    """Y, the sum of w y."""


def partial_overlap_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    mask: Tensor | None = None,
    ignore_index: int = 255,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth_numerator: float = 0.0,
    smooth_denominator: float = 0.0,
    absent: str = "skip",
    include_background: bool | None = None,
    weight: Tensor | None = None,
    pixel_weight: Tensor | None = None,
    squared: bool = False,
    batch: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Soft Dice, Tversky or Jaccard loss over the labelled pixels alone.

    For each pair of image and class, with the sums TP, S and Y of :class:`OverlapSums`::

        T = (TP + smooth_numerator)
            / (TP + alpha (S - TP) + beta (Y - TP) + smooth_denominator)

    and the loss is the weighted mean of 1 - T. ``logits`` [B, C, *S] and ``labels`` [B, *S] or
    [B, 1, *S], or soft ones [B, C, *S], to a scalar, or for ``"none"`` [B, C'] ([C'] with
    ``batch``), C' the number of classes that count. Arguments, dtypes and errors are those of
    :func:`accl_ext.partial_overlap_loss`.
    """
    options = OverlapOptions(
        alpha,
        beta,
        smooth_numerator,
        smooth_denominator,
        absent,
        include_background,
        squared,
        batch,
        reduction,
    ).check()
    arguments.check_logits(logits)
    arguments.check_labels(logits, labels, mask)
    arguments.check_weight(logits, weight)
    arguments.check_pixel_weight(logits, pixel_weight)
    rows = pixels.flat(logits)
    labelled = pixels.read_labels(rows, labels, ignore_index, pixel_weight, mask)
    return loss_of(overlap_sums(rows, labelled, squared), options, logits.shape[1], weight)


def overlap_sums(rows: Tensor, labelled: pixels.Labelled, squared: bool) -> OverlapSums:
    counts = (labelled.weight != 0).unsqueeze(1)
    x = torch.where(counts, rows, 0)
    p = torch.cat([(-x).sigmoid(), x.sigmoid()], 1) if x.shape[1] == 1 else x.softmax(1)
    w = (labelled.weight * pixels.nan_where(labelled.invalid)).unsqueeze(1)
    share = labelled.shares(p.shape[1], p.dtype)
    of_class = share != 0
    predicted = w * (p * p if squared else p)
    return OverlapSums(
        torch.where(of_class, w * p * share, 0).sum(-1),
        torch.where(counts, predicted, 0).sum(-1),
        torch.where(of_class, w * share, 0).sum(-1),
    )


def loss_of(
    sums: OverlapSums, options: OverlapOptions, classes: int, weight: Tensor | None
) -> Tensor:
    """The ratio of every pair that counts, and their mean, sum or table."""
    first = options.first_class(classes)
    nothing = ~(sums.labelled != 0).any()
    hit, predicted, labelled = (x[:, first:] for x in sums)
    if options.batch:
        hit, predicted, labelled = (x.sum(0) for x in (hit, predicted, labelled))
    denominator = (
        hit
        + options.alpha * (predicted - hit)
        + options.beta * (labelled - hit)
        + options.smooth_denominator
    )
    empty = denominator == 0
    ratio = (hit + options.smooth_numerator) / torch.where(empty, 1, denominator)
    loss = torch.where(empty, 0, 1 - ratio)
    w = torch.ones_like(hit)
    if weight is not None:
        w = weight[first:].to(hit.dtype).expand_as(hit)
    if options.absent == "skip":
        w = torch.where(labelled == 0, 0, w)
    w = torch.where(nothing, 0, w)
    weighted = torch.where(w == 0, 0, w * loss)
    if options.reduction == "none":
        return weighted
    if options.reduction == "sum":
        return weighted.sum()
    return pixels.divide_or_zero(weighted.sum(), w.sum())
