"""The fused overlap loss over the labelled pixels, as :mod:`accl_ext.functional` gives it."""

from __future__ import annotations

from torch import Tensor

from . import _reference_overlap
from ._arguments import check_no_mask
from ._operators import operators as _ops
from ._overlap_arguments import OverlapOptions
from ._transforms import reference_under_transforms


@reference_under_transforms(_reference_overlap.partial_overlap_loss)
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
    r"""Soft Dice, Tversky or Jaccard loss over the labelled pixels alone.

    For each image and class c, with y the labels as one-hot maps, w the pixel weights, and the sums
    taken over the labelled pixels of the image, or with ``batch`` of all images together:

    .. math::
        T_c = \frac{TP + n}{TP + \alpha (S - TP) + \beta (Y - TP) + d}, \quad
        TP = \sum w p_c y_c, \; S = \sum w p_c, \; Y = \sum w y_c

    The loss of the pair is :math:`1 - T_c`, and 0 where the denominator is 0. ``alpha`` weighs
    false positives, ``beta`` false negatives: 0.5 and 0.5 is Dice, 1 and 1 is Jaccard, all else is
    Tversky (Salehi et al., "Tversky loss function for image segmentation using 3D fully
    convolutional deep networks").

    Args:
        logits: [B, C, *S] with 1 to 3 spatial dimensions; float16, bfloat16, float32 or float64.
        labels: as in :func:`partial_cross_entropy`; soft labels t stand in the place of y.
        mask: as in :func:`partial_cross_entropy`.
        ignore_index: the label of unlabelled pixels.
        alpha: weight of what is predicted and not labelled, at least 0.
        beta: weight of what is labelled and not predicted, at least 0.
        smooth_numerator: n, at least 0.
        smooth_denominator: d, at least 0. MONAI's ``DiceLoss(smooth_nr=a, smooth_dr=b)`` is
            n = a / 2 and d = b / 2, nnU-Net's ``smooth=a`` is n = d = a / 2, and MONAI's
            ``TverskyLoss`` takes n and d as they are.
        absent: ``"skip"`` leaves out the classes of which nothing is labelled (Y = 0);
            ``"keep"`` takes the formula, as MONAI and nnU-Net do, so that what is predicted of an
            absent class costs up to 1. segmentation_models skips them too, but divides by the
            number of all classes: that is ``reduction="none"`` and its mean.
        include_background: whether class 0 counts; None: for C >= 2 yes, for C = 1, where p is
            the object's, no. With True, C = 1 counts two classes, 1 - p and p.
        weight: weight of each class, [C] (C = 1: [2], background and object), any floating dtype;
            no gradient.
        pixel_weight: as in :func:`partial_cross_entropy`.
        squared: S is the sum of :math:`w p_c^2`, as in V-Net.
        batch: the sums go over the whole batch, as in nnU-Net's ``batch_dice``; a small image
            then counts less than a large one, and a class has to be labelled in one of them.
        reduction: ``"mean"``, the mean over the pairs that count, each times its class's weight
            and divided by the sum of these weights; ``"sum"``; or ``"none"``.

    Returns:
        The loss in float32 (float64 for float64): a scalar, 0 if no pair counts, or for ``"none"``
        the weighted losses [B, C'], with ``batch`` [C'], of the C' classes that count, 0 for pairs
        left out; 0 where nothing is labelled at all, whatever ``absent`` is. A NaN or infinite
        logit counts only where it is labelled.

    Raises:
        TypeError: a dtype is not supported, or an option has another type.
        ValueError: a shape, device or option is wrong, a weight requires grad, or (on CPU) a label
            is neither a class nor ``ignore_index``; on CUDA that gives NaN, as in
            :func:`partial_cross_entropy`.

    Note:
        On CUDA, and of soft labels, the loss is computed in plain PyTorch.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 1, 2, 2)  # probabilities of 1/2
        >>> labels = torch.tensor([[[1, 0], [255, 255]]])  # two pixels of four are known
        >>> partial_overlap_loss(logits, labels).item()  # Dice: 1 - 2 * 0.5 / (1 + 1)
        0.5
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
    )
    if logits.is_cuda or labels.is_floating_point():
        return _reference_overlap.partial_overlap_loss(
            logits,
            labels,
            mask=mask,
            ignore_index=ignore_index,
            weight=weight,
            pixel_weight=pixel_weight,
            **options._asdict(),
        )
    check_no_mask(mask)
    numbers = options.check().numbers()
    return _ops.partial_overlap_loss(logits, labels, ignore_index, weight, pixel_weight, numbers)[0]
