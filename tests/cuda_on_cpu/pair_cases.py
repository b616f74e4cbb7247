"""Cases of the gated CRF loss for cases.py: what the float64 reference makes of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from fields import DTYPES, SIZE_REDUCTIONS, Fields, doubles, integers, name_of, raw
from torch import Tensor

from accl_ext import _reference_gated_crf as pairs
from accl_ext import reference


def gathered(x: Tensor, image: Tensor, options: dict, source: Tensor, destination: Tensor):
    """t_i sum_j s_j k_ij x_j, [B, C, *S], over every offset of the window."""
    numbers = [math.inf if n is None else float(n) for kernel in options["kernels"] for n in kernel]
    spacing = options["spacing"]
    total = torch.zeros_like(x)
    for half in pairs._half_window(options["radius"], x.shape[2:]):
        for offset in (half, tuple(-o for o in half)):
            here, there = pairs._overlap(offset)
            exponents = pairs._exponents(numbers, offset, spacing, torch.finfo(x.dtype).max)
            counts = source.unsqueeze(1)[there]
            difference = torch.where(counts, image[here] - image[there], 0)
            k = pairs._kernel(exponents, difference).unsqueeze(1)
            total[here] += torch.where(counts, k * torch.where(counts, x[there], 0), 0)
    return torch.where(destination.unsqueeze(1), total, 0)


def window_fields(
    dimensions: int, radius: int, kernels: tuple, spacing: list[float] | None
) -> Fields:
    numbers = [math.inf if n is None else n for kernel in kernels for n in kernel]
    full = [1.0] * (3 - dimensions) + (spacing or [1.0] * dimensions)
    return {
        "spacing": doubles(torch.tensor(full, dtype=torch.float64)),
        "radius": integers(radius),
        "kernels": doubles(torch.tensor(numbers, dtype=torch.float64)),
    }


def pair_case(
    dtype: torch.dtype,
    shape: tuple[int, ...],
    seed: int,
    *,
    channels: int = 1,
    image_dtype: torch.dtype = torch.float32,
    radius: int = 2,
    kernels: tuple = ((1.0, 2.0, 0.3),),
    spacing: list[float] | None = None,
    masks: str = "",
    reduction: str = "mean",
    spoilt: bool = False,
) -> Fields:
    """masks: letters of s (source) and d (destination); spoilt: NaN where no pair counts."""
    torch.manual_seed(seed)
    batch, classes, *spatial = shape
    z = 2 * torch.randn(shape, dtype=torch.float64)
    p = (z.sigmoid() if classes == 1 else z.softmax(1)).to(dtype)
    image = torch.rand(batch, channels, *spatial).to(image_dtype)
    draw = {name: torch.rand(batch, *spatial) < 0.6 for name in "sd"}
    if spoilt:
        unused = ~(draw["s"] | draw["d"]).unsqueeze(1)
        p, image = p.masked_fill(unused, torch.nan), image.masked_fill(unused, torch.nan)
    every = torch.ones(batch, *spatial, dtype=torch.bool)
    source, destination = (draw[m] if m in masks else every for m in "sd")
    options = {"radius": radius, "kernels": kernels, "spacing": spacing}
    leaf, wide_image = p.double().requires_grad_(), image.double()
    loss = reference.gated_crf_loss(
        leaf,
        wide_image,
        source_mask=source,
        destination_mask=destination,
        reduction=reduction,
        **options,
    )
    words = (name_of(dtype), list(shape), name_of(image_dtype), channels, options)
    fields = {
        "name": f"pairs {words} masks '{masks}' {reduction} spoilt {spoilt}".encode(),
        "shape": integers(batch, classes, channels),
        "size": integers(*[1] * (3 - len(spatial)), *spatial),
        **window_fields(len(spatial), **options),
        "dtype": integers(DTYPES.index(dtype)),
        "image_dtype": integers(DTYPES.index(image_dtype)),
        "reduction": integers(SIZE_REDUCTIONS.index(reduction)),
        "values": raw(p),
        "image": raw(image),
        "loss": doubles(loss),
    }
    if "s" in masks:
        fields["source"] = raw(source)
    if "d" in masks:
        fields["destination"] = raw(destination)
    if reduction != "none":
        fields["gradient"] = doubles(torch.autograd.grad(loss, leaf)[0])
    sums = gathered(p.double(), wide_image, options, source, destination)
    return {**fields, "sums": doubles(sums)}


def pair_cases(few: bool) -> Iterator[Fields]:
    seeds = itertools.count()
    several = ((1.0, 2.0, 0.3), (0.5, 1.5, None), (-0.25, 3.0, 0.5))

    def case(dtype, *shape, **options):
        return pair_case(dtype, shape, next(seeds), **options)

    f32, f64 = torch.float32, torch.float64
    yield case(f32, 2, 1, 11, 37)
    yield case(f32, 1, 3, 5, 9, channels=2, kernels=several, masks="sd", reduction="sum")
    yield case(f64, 2, 1, 3, 5, 34, masks="d", radius=1)
    yield case(torch.float16, 1, 5, 70, reduction="none", masks="s", radius=3)
    yield case(f32, 1, 2, 3, 9, 34, masks="sd", radius=9)  # several parts of the window
    if few:
        return
    reductions = itertools.cycle(("mean", "sum", "none"))
    masks = itertools.cycle(("", "s", "d", "sd"))
    for dtype in DTYPES:  # around a tile of the small blocks, and rows of 64 in one dimension
        for shape in ((1,), (63,), (65,), (200,), (1, 1), (2, 32), (3, 33), (9, 31), (40, 3)):
            for classes in (1, 3):
                yield case(dtype, 2, classes, *shape, reduction=next(reductions), masks=next(masks))
        for image_dtype in DTYPES:
            yield case(dtype, 1, 1, 7, 40, image_dtype=image_dtype)
        yield case(dtype, 1, 2, 3, 4, 35, spacing=[2.5, 1.0, 0.5], masks=next(masks))
    for classes in (2, 4, 5, 9):  # groups of four
        for reduction in ("mean", "none"):
            yield case(f32, 1, classes, 6, 35, reduction=reduction, masks=next(masks))
    for classes in (1, 3, 7):  # runs of four pixels: whole ones, cut ones, channels, masks
        for shape in ((17, 64), (3, 70), (257,), (2, 5, 33)):
            for channels, mask in ((1, ""), (1, "sd"), (3, "sd"), (3, "s")):
                reduction = next(reductions)
                yield case(
                    *(f32, 1, classes, *shape),
                    channels=channels,
                    masks=mask,
                    reduction=reduction,
                )
    for channels in (2, 4, 5, 7):  # four are staged, the others read where they lie
        yield case(f32, 2, 1, 6, 20, channels=channels, masks=next(masks))
        yield case(f64, 1, 3, 6, 20, channels=channels, kernels=several, masks=next(masks))
    for radius in (7, 8, 9, 20, 2**40):  # one and several parts of the window
        yield case(f32, 1, 1, 24, 40, radius=radius, kernels=((1.0, 9.0, 0.5),), masks=next(masks))
        yield case(f64, 1, 2, 10, 12, radius=radius, masks=next(masks))
    yield case(f32, 1, 1, 150, radius=100, kernels=((1.0, 40.0, 0.5),))
    for reduction in ("mean", "sum", "none"):
        for classes in (1, 3):
            yield case(f32, 2, classes, 8, 21, masks="sd", spoilt=True, reduction=reduction)
    yield case(f32, 1, 1, 8, 21, kernels=((1.0, 2.0, None),))
    yield case(f32, 1, 1, 8, 21, kernels=((1.0, 1e-30, 1e-30), (2.0, 1e30, 1e30)))
    yield case(f32, 1, 1, 8, 21, kernels=((0.1, 6.0, 0.1),) * 16)
