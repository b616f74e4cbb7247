"""The fused gated CRF loss, as :mod:`accl_ext.functional` gives it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _crf_arguments, _reference_gated_crf
from ._operators import operators as _ops
from ._transforms import reference_under_transforms


@reference_under_transforms(_reference_gated_crf.gated_crf_loss)
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
