"""The gated CRF loss in pure PyTorch: a loop over the offsets of the window.

Each pair of neighbours is computed once, so half of the offsets are enough. No window is unfolded:
the memory is that of a few maps, and of what autograd keeps of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _arguments as arguments
from . import _crf_arguments as checks


def gated_crf_loss(
    probabilities: Tensor,
    image: Tensor,
    *,
    radius: int = 5,
    kernels: checks.Kernels = ((1.0, 6.0, 0.1),),
    spacing: Sequence[float] | None = None,
    source_mask: Tensor | None = None,
    destination_mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Pairwise loss that makes neighbours of like image values agree.

    With the window of all j != i inside the image at a maximum-norm distance of at most
    ``radius``::

        k_ij = sum_m w_m exp(-|x_i - x_j|^2 / (2 sigma_space_m^2)
                             - |I_i - I_j|^2 / (2 sigma_image_m^2))
        L    = (1 / N) sum_i sum_j t_i s_j k_ij (1 - sum_c p_ic p_jc),   N = sum_i t_i

    where one class stands for the two classes 1 - p and p. Obukhov et al., "Gated CRF Loss for
    Weakly Supervised Semantic Image Segmentation".

    Args:
        probabilities: p, [B, C, *S] with 1 to 3 spatial dimensions; float16, bfloat16, float32 or
            float64.
        image: I, [B, K, *S], any of these dtypes; no gradient.
        radius: reach of the window in pixels, whatever ``spacing`` is; at least 1.
        kernels: (weight, sigma_space, sigma_image) of each kernel. sigma_space in pixels or in the
            unit of ``spacing``; sigma_image in the image's unit, None or inf for space alone.
        spacing: size of a pixel along each spatial axis; None: 1.
        source_mask: s, bool, [B, *S] or [B, 1, *S]; None: all pixels.
        destination_mask: t, of the same form. A pair counts where t_i and s_j hold; what stands
            in pixels of no pair, NaN included, has no influence.
        reduction: ``"mean"`` over the destination pixels of the batch (divided by max(1, N)),
            ``"sum"``, or ``"none"``, a map [B, *S] of the inner sum.

    Returns:
        The loss in float32 (float64 for float64): a scalar, 0 for an empty batch, or the map.

    Raises:
        TypeError: a dtype is not supported, or an option has another type.
        ValueError: a shape, device or option is wrong, or ``image`` requires grad.
    """
    radius = checks.radius_number(radius)
    numbers = checks.kernel_numbers(kernels)
    spacing = checks.spacing_numbers(spacing)
    arguments.check_logits(probabilities, "probabilities")
    checks.check_image(probabilities, image)
    checks.check_mask(probabilities, source_mask, "source_mask")
    checks.check_mask(probabilities, destination_mask, "destination_mask")
    checks.check_spacing(probabilities, spacing)
    arguments.check_option("reduction", reduction, checks.REDUCTIONS)

    p = probabilities.to(arguments.accumulation_dtype(probabilities.dtype))
    image = image.to(p.dtype)
    plain = (p.shape[0], *p.shape[2:])
    source, destination = (
        None if mask is None else mask.reshape(plain) for mask in (source_mask, destination_mask)
    )
    masked = source is not None or destination is not None
    everywhere = torch.ones(plain, dtype=torch.bool, device=p.device) if masked else None
    source = everywhere if source is None else source
    destination = everywhere if destination is None else destination

    nothing = p[..., :0].sum()  # a loss without a pair still has a gradient
    total = p.new_zeros(plain) + nothing if reduction == "none" else nothing
    for offset in _half_window(radius, p.shape[2:]):
        here, there = _overlap(offset)
        exponents = _exponents(numbers, offset, spacing, torch.finfo(p.dtype).max)
        p_i, p_j, difference = p[here], p[there], image[here] - image[there]
        if not masked:
            cost = _kernel(exponents, difference) * _disagreement(p_i, p_j)
            ends = [(here, cost), (there, cost)]
        else:
            # Selected before the products as well as after, so that what stands in pixels of no
            # pair stays out of the gradient too (0 * NaN is NaN).
            m_here, m_there = (slices[:1] + slices[2:] for slices in (here, there))
            to_here = destination[m_here] & source[m_there]
            to_there = destination[m_there] & source[m_here]
            counts = (to_here | to_there).unsqueeze(1)
            p_i, p_j, difference = (torch.where(counts, x, 0) for x in (p_i, p_j, difference))
            cost = _kernel(exponents, difference) * _disagreement(p_i, p_j)
            ends = [
                (end, torch.where(mask, cost, 0))
                for end, mask in ((here, to_here), (there, to_there))
            ]
        for end, values in ends:
            total = total + (_placed(values, end, plain) if reduction == "none" else values.sum())
    if reduction == "mean":
        n = math.prod(plain) if destination is None else destination.sum().clamp(min=1)
        total = total / (max(n, 1) if destination is None else n)
    return total


def _half_window(radius: int, spatial: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """One of o and -o for every offset of the window that some pair of pixels has."""
    reach = [range(-min(radius, n - 1), min(radius, n - 1) + 1) for n in spatial]
    zero = (0,) * len(spatial)
    return (offset for offset in itertools.product(*reach) if offset > zero)


def _overlap(offset: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Index of the pixels i of a map [B, C, *S] whose neighbour j = i + offset exists, and of j."""
    every = (slice(None), slice(None))
    here = tuple(slice(max(-o, 0), -o if o > 0 else None) for o in offset)
    there = tuple(slice(max(o, 0), o if o < 0 else None) for o in offset)
    return every + here, every + there


def _exponents(
    numbers: list[float], offset: tuple[int, ...], spacing: list[float] | None, largest: float
) -> list[tuple[float, float, float]]:
    """(weight, exponent of the distance, factor of the squared image difference or 0)."""
    steps = [o * h for o, h in zip(offset, spacing or (1.0,) * len(offset), strict=True)]
    triples = (numbers[n : n + 3] for n in range(0, len(numbers), 3))
    return [
        (
            weight,
            -sum((step / space) * (step / space) for step in steps) / 2,
            # A finite factor, so that equal pixels stay equal however small the sigma is.
            -min((1 / contrast) * (1 / contrast) / 2, largest),
        )
        for weight, space, contrast in triples
    ]


def _kernel(exponents: list[tuple[float, float, float]], difference: Tensor) -> Tensor:
    """k_ij of every pair, [B, *S']."""
    squared = difference.square().sum(1)
    total = torch.zeros_like(squared)
    for weight, of_space, of_image in exponents:
        # A kernel of space alone does not look at the image, which may be NaN.
        exponent = of_space + of_image * squared if of_image else total.new_tensor(of_space)
        total = total + weight * exponent.exp()
    return total


def _disagreement(p_i: Tensor, p_j: Tensor) -> Tensor:
    """1 - sum_c p_ic p_jc, [B, *S']."""
    if p_i.shape[1] == 1:  # 1 - (1 - p_i) (1 - p_j) - p_i p_j
        return (p_i * (1 - p_j) + p_j * (1 - p_i)).squeeze(1)
    return 1 - (p_i * p_j).sum(1)


def _placed(values: Tensor, end: tuple[slice, ...], plain: tuple[int, ...]) -> Tensor:
    """Values of an overlap at their pixels of a map that is 0 elsewhere."""
    padding = []
    for part, size in zip(reversed(end[2:]), reversed(plain[1:]), strict=True):
        start, stop, _ = part.indices(size)
        padding += [start, size - stop]
    return F.pad(values, padding)
