"""The fused ops. Arguments are checked in C++; these functions only forward and document."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from . import _arguments as arguments
from . import reference
from ._arguments import (
    SegmentationHeadOutput,
    SegmentationHeadOverlapOutput,
    bounds_tensor,
    validate_labels,
)
from ._gated_crf import gated_crf_loss
from ._log_barrier import FIRST_T, check_form, log_barrier
from ._operators import operators as _ops
from ._overlap_arguments import options_and_weight
from ._partial_overlap import partial_overlap_loss
from ._transforms import reference_under_transforms

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


@reference_under_transforms(reference.accl_loss)
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


@reference_under_transforms(reference.accl_discriminator_loss)
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


@reference_under_transforms(reference.partial_cross_entropy)
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
    r"""Cross-entropy over the labelled pixels alone, the data term of eqs. (1), (2) and (4).

    One class is binary (sigmoid), two and more are softmax. With foreground-only labels this is
    the paper's :math:`-\frac{1}{|P|} \sum_{i \in P} s_i \log \hat y_i`.

    Args:
        logits: [B, C, *S] with 1 to 3 spatial dimensions; float16, bfloat16, float32 or float64.
        labels: [B, *S] or [B, 1, *S]; uint8, int8, int16, int32 or int64 with values 0..C-1
            (C = 1: 0 background, 1 foreground) or ``ignore_index``; or bool (C = 1, every pixel
            labelled). Soft labels are probabilities t of the classes, [B, C, *S] in a floating
            dtype (C = 1: of the foreground), no gradient: a pixel then costs
            :math:`-\sum_c w_c t_c \log p_c` and weighs as one, as in
            :func:`torch.nn.functional.cross_entropy`. They are computed in plain PyTorch.
        mask: bool, [B, *S] or [B, 1, *S]: the labelled pixels of soft labels; None: all.
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
    if labels.is_floating_point():
        return reference.partial_cross_entropy(
            logits,
            labels,
            mask=mask,
            weight=weight,
            pixel_weight=pixel_weight,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
    arguments.check_no_mask(mask)
    return _ops.partial_cross_entropy(
        logits, labels, ignore_index, weight, pixel_weight, label_smoothing, reduction
    )[0]


@reference_under_transforms(reference.size_penalty)
def size_penalty(
    logits: Tensor,
    bounds: Tensor | tuple[float, float],
    *,
    form: str = "quadratic",
    t: float | Tensor = FIRST_T,
    normalize: str = "area",
    reduction: str = "mean",
) -> Tensor:
    r"""Penalty on a soft size V outside its bounds: C(.) of eq. (3), or a log barrier.

    ``"quadratic"``: :math:`(V - a)^2` below a, :math:`(V - b)^2` above b, else 0, where V is the
    sum of the probabilities of an image and class. ``"log_barrier"``: :math:`\psi(a - V) +
    \psi(V - b)` with :math:`\psi(z) = -\frac{1}{t} \log(-z)` for :math:`z \le -1 / t^2` and
    its tangent beyond, :math:`t z + \frac{1}{t} \log t^2 + \frac{1}{t}` (Kervadec et al.,
    "Constrained deep networks: Lagrangian optimization via log-barrier extensions"). It pushes
    inside the bounds too, the less the larger t.

    Args:
        logits: [B, C, *S] with 1 to 3 spatial dimensions; float16, bfloat16, float32 or float64.
        bounds: lower and upper bound in pixels: a pair of numbers, put on the device once and
            cached, or a tensor that broadcasts to [B, C, 2]; best in float32 (float64 for
            float64), another of these or an integer dtype is converted in a pass of its own. A
            bound that is not finite leaves its side free. No gradient. A known size is a pair
            around it, as far apart as its error.
        form: ``"quadratic"`` or ``"log_barrier"``.
        t: of the log barrier, above 0, a number or a tensor without dimensions. The paper starts
            at 5 and multiplies by 1.1 after every epoch.
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
    check_form(form, t)
    bounds = bounds_tensor(bounds, logits)
    penalty, size, _ = _ops.size_penalty(logits, bounds, normalize, reduction)
    if form == "quadratic":
        return penalty
    return log_barrier(size, bounds, math.prod(logits.shape[2:]), t, normalize, reduction)


@reference_under_transforms(reference.segmentation_head)
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
    """Probabilities, partial cross-entropy, size penalty and soft size in one read of the logits.

    What a training step needs of the segmentation network: the mask that the discriminator sees
    and both supervised terms, eqs. (1) to (4). The backward is one pass, which also takes the
    gradient that comes back through ``probabilities``; an output that is not used costs nothing.

    Args:
        logits: as in :func:`partial_cross_entropy`.
        labels: as in :func:`partial_cross_entropy`.
        bounds: as in :func:`size_penalty`; None gives a ``size_penalty`` of 0.
        mask: as in :func:`partial_cross_entropy`.
        ignore_index: as in :func:`partial_cross_entropy`.
        weight: as in :func:`partial_cross_entropy`.
        pixel_weight: as in :func:`partial_cross_entropy`; of the cross-entropy and the overlap.
        label_smoothing: as in :func:`partial_cross_entropy`.
        normalize: as in :func:`size_penalty`.
        size_form: ``form`` of :func:`size_penalty`.
        size_t: ``t`` of :func:`size_penalty`.
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
    check_form(size_form, size_t, ("size_form", "size_t"))
    soft = labels.is_floating_point()
    numbers, overlap_weight = [], None
    if overlap is not None:
        options, overlap_weight = options_and_weight(overlap)
        if not (logits.is_cuda or soft):
            numbers = options.numbers()
    of_labels = {"mask": mask, "ignore_index": ignore_index, "pixel_weight": pixel_weight}
    given = labels
    if soft:
        # The op computes what does not look at labels, and plain PyTorch the rest.
        arguments.check_logits(logits)
        arguments.check_labels(logits, labels, mask)
        given = torch.full_like(labels[:, 0], 255, dtype=torch.uint8)
    else:
        arguments.check_no_mask(mask)
    outputs = _ops.segmentation_head(
        logits,
        given,
        bounds,
        255 if soft else ignore_index,
        weight,
        pixel_weight,
        label_smoothing,
        normalize,
        numbers,
        overlap_weight if numbers else None,
    )
    head = SegmentationHeadOutput(*outputs[:4])
    if soft:
        options = {**of_labels, "weight": weight, "label_smoothing": label_smoothing}
        head = head._replace(partial_ce=partial_cross_entropy(logits, labels, **options))
    if size_form == "log_barrier" and bounds is not None:
        area = math.prod(logits.shape[2:])
        barrier = log_barrier(head.soft_size, bounds, area, size_t, normalize)
        head = head._replace(size_penalty=barrier)
    if overlap is None:
        return head
    if numbers:
        return SegmentationHeadOverlapOutput(*head, outputs[6])
    loss = partial_overlap_loss(logits, labels, **of_labels, **overlap)
    return SegmentationHeadOverlapOutput(*head, loss)
