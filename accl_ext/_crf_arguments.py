"""Checks and conversions of the arguments of ``gated_crf_loss``.

The options are looked at in Python alone, for the fused op and the reference. The tensors are
checked here for the reference and in ``csrc/ops/gated_crf_loss.cpp`` for the fused op, with the
same words; a test feeds both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from . import _arguments as arguments

REDUCTIONS = ("mean", "sum", "none")
MAX_KERNELS = 16

Kernels = Sequence[tuple[float, float, float | None]]
"""(weight, sigma_space, sigma_image) of each kernel; sigma_image None: space alone."""

_TRIPLES = "kernels must be a sequence of (weight, sigma_space, sigma_image)"


def radius_number(radius: int) -> int:
    # Under torch.compile a radius that changes is a symbolic integer and not an int.
    if isinstance(radius, bool) or not hasattr(radius, "__index__"):
        raise TypeError(f"radius must be an integer, got {radius!r}")
    if radius < 1:
        raise ValueError(f"radius must be at least 1, got {radius}")
    return radius


def kernel_numbers(kernels: Kernels) -> list[float]:
    """All kernels in one list, three numbers each; a sigma_image of None becomes infinity."""
    try:
        triples = [tuple(kernel) for kernel in kernels]
        triples = [(float(w), float(s), _sigma_image(i)) for w, s, i in triples]
    except (TypeError, ValueError):
        raise TypeError(f"{_TRIPLES}, got {kernels!r}") from None
    if not triples:
        raise ValueError(f"{_TRIPLES}, at least one, got {kernels!r}")
    if len(triples) > MAX_KERNELS:
        raise ValueError(f"kernels must hold at most {MAX_KERNELS} kernels, got {len(triples)}")
    for n, (weight, sigma_space, sigma_image) in enumerate(triples):
        if not math.isfinite(weight):
            raise ValueError(f"weight of kernels[{n}] must be finite, got {weight}")
        for name, sigma in (("sigma_space", sigma_space), ("sigma_image", sigma_image)):
            if not sigma > 0:
                raise ValueError(f"{name} of kernels[{n}] must be above 0, got {sigma}")
    return [number for triple in triples for number in triple]


def _sigma_image(sigma: float | None) -> float:
    return math.inf if sigma is None else float(sigma)


def spacing_numbers(spacing: Sequence[float] | None) -> list[float] | None:
    if spacing is None:
        return None
    try:
        numbers = [float(number) for number in spacing]
    except (TypeError, ValueError):
        raise TypeError(
            f"spacing must be a sequence of numbers, one per spatial axis, got {spacing!r}"
        ) from None
    if not numbers:
        raise ValueError("spacing must have one number per spatial axis, got none")
    for number in numbers:
        if not (number > 0 and math.isfinite(number)):
            raise ValueError(f"spacing must be finite numbers above 0, got {numbers}")
    return numbers


def check_spacing(probabilities: Tensor, spacing: list[float] | None) -> None:
    axes = probabilities.dim() - 2
    if spacing is not None and len(spacing) != axes:
        raise ValueError(
            f"spacing must have one number per spatial axis ({axes}), got {len(spacing)}"
        )


def check_image(probabilities: Tensor, image: Tensor) -> None:
    arguments.check_scores(image, "image")
    arguments.check_same_device(image, "image", probabilities, "probabilities")
    batch, _, *spatial = probabilities.shape
    came = list(image.shape)
    if len(came) != 2 + len(spatial) or [came[0], *came[2:]] != [batch, *spatial]:
        wanted = ", ".join(str(n) for n in (batch, "K", *spatial))
        raise ValueError(
            f"image must have shape [{wanted}] to match probabilities "
            f"{list(probabilities.shape)}, got {came}"
        )
    if came[1] == 0:
        raise ValueError(f"image must have at least one channel, got {came}")
    if image.requires_grad:
        raise ValueError("image must not require grad: the loss has no derivative by the image")


def check_mask(probabilities: Tensor, mask: Tensor | None, argument: str) -> None:
    if mask is None:
        return
    arguments.check_bool(mask, argument)
    arguments.check_same_device(mask, argument, probabilities, "probabilities")
    arguments.check_map(probabilities, mask, argument, "probabilities")
