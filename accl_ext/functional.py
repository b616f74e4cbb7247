"""The fused ops. Arguments are checked in C++; these functions only forward and document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from . import _crf_arguments
from ._arguments import (
    SegmentationHeadOutput,
    SegmentationHeadOverlapOutput,
    bounds_tensor,
    validate_labels,
)
from ._operators import operators as _ops
from ._overlap_arguments import options_and_weight
from ._partial_overlap import partial_overlap_loss

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


def accl_loss(
    scores: Tensor, *, target: float = 1.0, criterion: str = "lsgan", reduction: str = "mean"
) -> Tensor:
    r"""Adversarial constrained-CNN loss of the segmentation network, eq. (5).

    .. math:: L_{ACCL} = \frac{1}{M} \sum_{i=1}^{M} (D(X_i, G(X)_i) - 1)^2

    Args:
        scores: patch scores of the discriminator for (image, segmentation), any shape; float16,
            bfloat16, float32 or float64.
        target: what the discriminator would say of a reference mask.
        criterion: ``"lsgan"``, squared error to ``target`` (no activation, no factor);
            ``"vanilla"``, binary cross-entropy of scores as logits,
            :math:`softplus(d) - t d`; ``"hinge"``, :math:`-d`, which ignores ``target``.
        reduction: ``"mean"`` over batch and patches, ``"sum"`` or ``"none"``.

    Returns:
        The loss in float32 (float64 for float64): a scalar, 0 for empty scores, or for ``"none"``
        a tensor of the shape of ``scores``.

    Raises:
        TypeError: ``scores`` has another dtype.
        ValueError: ``criterion`` or ``reduction`` is unknown.

    Example:
        >>> scores = torch.tensor([0.0, 3.0], requires_grad=True)
        >>> loss = accl_loss(scores)  # ((0 - 1)^2 + (3 - 1)^2) / 2
        >>> loss.backward()
        >>> loss.item(), scores.grad.tolist()
        (2.5, [-1.0, 2.0])
    """
    return _ops.accl_loss(scores, target, criterion, reduction)


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
    r"""Loss of the discriminator on segmentations and on reference masks, eq. (6).

    .. math:: \frac{1}{M} \sum_i D(X_i, G(X)_i)^2 + \frac{1}{M} \sum_i (D(X_i, R_i) - 1)^2

    Args:
        fake_scores: patch scores for (image, segmentation), any shape; float16, bfloat16, float32
            or float64.
        real_scores: patch scores for (image, reference mask), same dtype; the shape may differ,
            except for ``reduction="none"``.
        fake_target: target of ``fake_scores``.
        real_target: target of ``real_scores``.
        criterion: as in :func:`accl_loss`; ``"hinge"`` is :math:`relu(1 + fake) + relu(1 - real)`
            and ignores the targets.
        scale: factor of the loss; pix2pix uses 0.5.
        reduction: ``"mean"`` (of each group of scores, then their sum), ``"sum"``, or ``"none"``
            (elementwise sum of the two).

    Returns:
        The loss in float32 (float64 for float64), a scalar or for ``"none"`` a map.

    Raises:
        TypeError: a dtype is not supported, or the two differ.
        ValueError: an option is unknown, devices differ, or shapes differ with ``"none"``.

    Example:
        >>> fake, real = torch.tensor([0.5, -0.5]), torch.tensor([1.0, 0.0])
        >>> accl_discriminator_loss(fake, real).item()  # 0.25 + 0.5
        0.75
    """
    return _ops.accl_discriminator_loss(
        fake_scores, real_scores, fake_target, real_target, criterion, scale, reduction
    )


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
    r"""Cross-entropy over the labelled pixels alone, the data term of eqs. (1), (2) and (4).

    One class is binary (sigmoid), two and more are softmax. With foreground-only labels this is
    the paper's :math:`-\frac{1}{|P|} \sum_{i \in P} s_i \log \hat y_i`.

    Args:
        logits: [B, C, *S] with 1 to 3 spatial dimensions; float16, bfloat16, float32 or float64.
        labels: [B, *S] or [B, 1, *S]; uint8, int8, int16, int32 or int64 with values 0..C-1
            (C = 1: 0 background, 1 foreground) or ``ignore_index``; or bool (C = 1, every pixel
            labelled).
        ignore_index: the label of unlabelled pixels. If it is also the number of a class, pixels of
            that class count as unlabelled.
        weight: weight of each class, [C] (C = 1: [2], background and foreground), any floating
            dtype; no gradient.
        pixel_weight: [B, *S] or [B, 1, *S], a factor of each labelled pixel's loss, best in float32
            (float64 for float64); any other floating dtype is converted in a pass of its own.
            Unlabelled pixels are not looked at. No gradient.
        label_smoothing: in [0, 1], as in :func:`torch.nn.functional.cross_entropy`: with e the
            smoothing, w the class weights and y the label, a pixel costs
            :math:`-(1 - e) w_y \log p_y - \frac{e}{C} \sum_c w_c \log p_c`; one class counts as two
            of logits 0 and z. An infinite logit then costs infinity.
        reduction: ``"mean"`` over the labelled pixels of the batch, divided by the sum of class
            weight times pixel weight; ``"image_mean"``, each image's own weighted mean, averaged
            over the images where that sum is not 0; ``"sum"``; ``"none"``, a weighted map.

    Returns:
        The loss in float32 (float64 for float64): a scalar, 0 if nothing is labelled, or for
        ``"none"`` a map [B, *S], exactly 0 where unlabelled. A NaN logit counts only where it is
        labelled.

    Raises:
        TypeError: a dtype is not supported.
        ValueError: a shape, device or option is wrong, a weight requires grad, or (on CPU) a
            label is neither a class nor ``ignore_index``. On CUDA, where looking costs a
            synchronisation, such a label turns loss and gradient into NaN instead;
            :func:`validate_labels` checks on demand.

    Example:
        >>> logits = torch.zeros(1, 1, 2, 2)
        >>> labels = torch.tensor([[[1, 255], [255, 255]]])  # one pixel of four is known
        >>> round(partial_cross_entropy(logits, labels).item(), 4)  # -log(1/2)
        0.6931
    """
    return _ops.partial_cross_entropy(
        logits, labels, ignore_index, weight, pixel_weight, label_smoothing, reduction
    )[0]


def size_penalty(
    logits: Tensor,
    bounds: Tensor | tuple[float, float],
    *,
    normalize: str = "area",
    reduction: str = "mean",
) -> Tensor:
    r"""Quadratic penalty C(.) on a soft size V outside its bounds, eq. (3).

    :math:`(V - a)^2` below a, :math:`(V - b)^2` above b, else 0, where V is the sum of the
    probabilities of an image and class.

    Args:
        logits: [B, C, *S] with 1 to 3 spatial dimensions; float16, bfloat16, float32 or float64.
        bounds: lower and upper bound in pixels: a pair of numbers, put on the device once and
            cached, or a tensor that broadcasts to [B, C, 2]; best in float32 (float64 for
            float64), another of these or an integer dtype is converted in a pass of its own. A
            bound that is not finite leaves its side free. No gradient.
        normalize: ``"area"`` divides by the number of pixels (the weight 0.01 of the literature
            belongs to this form), ``"none"``, or ``"area2"`` (penalty on the size fraction).
        reduction: ``"mean"`` over the (image, class) pairs that carry a finite bound, ``"sum"``,
            or ``"none"``.

    Returns:
        The penalty in float32 (float64 for float64): a scalar, 0 if every pair is free, or for
        ``"none"`` [B, C]. A NaN soft size gives NaN.

    Raises:
        TypeError: a dtype is not supported, or ``bounds`` is neither a pair nor a tensor. Bounds in
            float16 or bfloat16 are refused: they round sizes, and make large ones infinite.
        ValueError: a shape, device or option is wrong, a > b in a pair of numbers, or ``bounds``
            requires grad.
        RuntimeError: a new pair of numbers during CUDA graph capture; pass a tensor.

    Example:
        >>> logits = torch.zeros(1, 1, 2, 2)  # probabilities of 1/2: a soft size of 2 pixels
        >>> size_penalty(logits, (3.0, 4.0), normalize="none").item()  # (2 - 3)^2
        1.0
    """
    return _ops.size_penalty(logits, bounds_tensor(bounds, logits), normalize, reduction)[0]


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
    overlap: Mapping | None = None,
) -> SegmentationHeadOutput | SegmentationHeadOverlapOutput:
    """Probabilities, partial cross-entropy, size penalty and soft size in one read of the logits.

    What a training step needs of the segmentation network: the mask that the discriminator sees
    and both supervised terms, eqs. (1) to (4). The backward is one pass, which also takes the
    gradient that comes back through ``probabilities``; an output that is not used costs nothing.

    Args:
        logits: as in :func:`partial_cross_entropy`.
        labels: as in :func:`partial_cross_entropy`.
        bounds: as in :func:`size_penalty`; None gives a ``size_penalty`` of 0.
        ignore_index: as in :func:`partial_cross_entropy`.
        weight: as in :func:`partial_cross_entropy`.
        pixel_weight: as in :func:`partial_cross_entropy`; of the cross-entropy and the overlap.
        label_smoothing: as in :func:`partial_cross_entropy`.
        normalize: as in :func:`size_penalty`.
        overlap: options of :func:`partial_overlap_loss`, ``dict()`` for its defaults; that loss is
            then a further output. Labels and ``pixel_weight`` are those of the cross-entropy; a
            ``weight`` of the classes is given in the dict.

    Returns:
        Named tuple ``(probabilities, partial_ce, size_penalty, soft_size)``, all differentiable:
        probabilities [B, C, *S] in the dtype of the logits (sigmoid for C = 1, else softmax over
        C), two scalars (means) and the soft size [B, C] in pixels, those in float32 (float64 for
        float64); with ``overlap`` a fifth field of that name.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`partial_cross_entropy`,
            :func:`size_penalty` and :func:`partial_overlap_loss`.

    Example:
        >>> logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
        >>> labels = torch.tensor([[[1, 255], [255, 255]]])
        >>> head = segmentation_head(logits, labels, bounds=(3.0, 4.0))
        >>> head.probabilities.shape, head.soft_size.item(), head.size_penalty.item()
        (torch.Size([1, 1, 2, 2]), 2.0, 0.25)
        >>> (head.partial_ce + 0.01 * head.size_penalty).backward()
    """
    if bounds is not None:
        bounds = bounds_tensor(bounds, logits)
    numbers, overlap_weight = [], None
    if overlap is not None:
        options, overlap_weight = options_and_weight(overlap)
        if not logits.is_cuda:
            numbers = options.numbers()
    outputs = _ops.segmentation_head(
        logits,
        labels,
        bounds,
        ignore_index,
        weight,
        pixel_weight,
        label_smoothing,
        normalize,
        numbers,
        overlap_weight if numbers else None,
    )
    if overlap is None:
        return SegmentationHeadOutput(*outputs[:4])
    if numbers:
        return SegmentationHeadOverlapOutput(*outputs[:4], outputs[6])
    arguments = {"ignore_index": ignore_index, "pixel_weight": pixel_weight, **overlap}
    return SegmentationHeadOverlapOutput(
        *outputs[:4], partial_overlap_loss(logits, labels, **arguments)
    )


def gated_crf_loss(
    probabilities: Tensor,
    image: Tensor,
    *,
    radius: int = 5,
    kernels: _crf_arguments.Kernels = ((1.0, 6.0, 0.1),),
    spacing: Sequence[float] | None = None,
    source_mask: Tensor | None = None,
    destination_mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Gated CRF loss: neighbours of like image values should have like probabilities.

    .. math::
        L = \frac{1}{N} \sum_i \sum_j t_i s_j k_{ij} \Big(1 - \sum_c p_{ic} p_{jc}\Big), \quad
        k_{ij} = \sum_m w_m \exp\Big(-\frac{|x_i - x_j|^2}{2 \sigma_{space,m}^2}
        - \frac{|I_i - I_j|^2}{2 \sigma_{image,m}^2}\Big)

    over all j != i inside the image at a maximum-norm distance of at most ``radius``, with
    :math:`N = \sum_i t_i`. Obukhov et al., "Gated CRF Loss for Weakly Supervised Semantic Image
    Segmentation". Each pixel gathers over its window once, for the value and the gradient; no
    window is unfolded. The cost grows with the pixels times the window.

    Args:
        probabilities: p, [B, C, *S] with 1 to 3 spatial dimensions; float16, bfloat16, float32 or
            float64. One class stands for the two classes 1 - p and p.
        image: I, [B, K, *S], any of these dtypes; no gradient. A NaN makes the loss NaN for every
            pixel that has it in its window.
        radius: reach of the window in pixels, at least 1, whatever ``spacing`` is.
        kernels: (weight, sigma_space, sigma_image) of each kernel, at most 16. ``sigma_space`` is
            in pixels, or in the unit of ``spacing``. ``sigma_image`` is in the image's unit: the
            published 0.1 is for images in [0, 1], images in [-1, 1] want 0.2; None or infinity
            for space alone.
        spacing: size of a pixel along each spatial axis, for anisotropic volumes; None: 1.
        source_mask: s, bool, [B, *S] or [B, 1, *S]: the pixels that give; None: all.
        destination_mask: t, of the same form: the pixels that receive; None: all. What stands in
            pixels that neither give nor receive has no influence, NaN included. One tensor given
            for both masks costs half of two equal ones.
        reduction: ``"mean"`` over the destination pixels of the batch (divided by max(1, N)),
            ``"sum"``, or ``"none"``, a map of the inner sums times t_i.

    Returns:
        The loss in float32 (float64 for float64): a scalar, 0 for an empty batch, or for
        ``"none"`` a map [B, *S].

    Raises:
        TypeError: a dtype is not supported, a mask is not bool, or an option has another type.
        ValueError: a shape, device or option is wrong, or ``image`` requires grad.

    Example:
        >>> probabilities = torch.tensor([[[0.0, 1.0, 1.0]]])  # [B, C, W]
        >>> image = torch.tensor([[[0.0, 0.0, 9.0]]])  # an edge between the last two pixels
        >>> loss = gated_crf_loss(
        ...     probabilities, image, radius=1, kernels=((1.0, 1e6, 1.0),), reduction="none"
        ... )
        >>> [round(value, 4) for value in loss.flatten().tolist()]  # the first two should agree
        [1.0, 1.0, 0.0]
    """
    radius = _crf_arguments.radius_number(radius)
    numbers = _crf_arguments.kernel_numbers(kernels)
    spacing = _crf_arguments.spacing_numbers(spacing)
    # Where a gradient will be wanted, the same pass over the windows computes it.
    with_gradient = torch.is_grad_enabled() and probabilities.requires_grad
    return _ops.gated_crf_loss(
        probabilities,
        image,
        radius,
        numbers,
        spacing or [],
        source_mask,
        destination_mask,
        reduction,
        with_gradient,
    )[0]
