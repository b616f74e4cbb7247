"""Fused op against reference in float64: one table of tolerances, one comparison, any input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import accl_ext
from accl_ext import reference

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LABEL_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)

# Largest error relative to the largest element. Half precision is computed in float32 and rounded
# once: a result of that dtype is within one unit in its last place of the rounded oracle.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

LAYOUTS = (
    "contiguous",
    "offset",
    "sliced",
    "channels_last",
    "transposed",
    "expanded_batch",
    "expanded_pixels",
)

# How many leading tensor arguments are differentiable.
DIFFERENTIABLE = {"accl_discriminator_loss": 2}


def dtype_id(value) -> str | None:
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else None


def accumulation(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def ulps(a: Tensor, b: Tensor) -> Tensor:
    """How many representable numbers lie between two half-precision tensors."""

    def order(x: Tensor) -> Tensor:
        bits = x.contiguous().view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return (order(a) - order(b)).abs()


def assert_near(got: Tensor, wanted: Tensor, what: str = "value", slack: float = 0.0) -> None:
    """got: any dtype; wanted: float64. NaN and infinities must stand at the same places.

    slack: absolute error besides the table's, for inputs where the formula itself cancels.
    """
    assert got.shape == wanted.shape, f"{what}: shape {list(got.shape)}, not {list(wanted.shape)}"
    got, wanted = got.detach(), wanted.detach()
    if got.numel() == 0:
        return
    rounded = wanted.to(got.dtype)
    wide = got.double()
    same = (wide == wanted) | (got == rounded) | (wide.isnan() & wanted.isnan())
    finite = wanted[wanted.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    near = (wide - wanted).abs() <= TOLERANCE[accumulation(got.dtype)] * scale + slack
    if got.dtype in (torch.float16, torch.bfloat16):
        near |= (ulps(got, rounded) <= 1) & wanted.isfinite()
    wrong = ~(same | near)
    if wrong.any():
        at = tuple(int(i) for i in wrong.nonzero()[0])
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {got.numel()} differ, first at {at}: "
            f"got {wide[at].item()!r}, wanted {wanted[at].item()!r} (largest {scale:.3g})"
        )


def as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def call(api, name: str, *arguments, **options) -> tuple[Tensor, ...]:
    return as_tuple(getattr(api, name)(*arguments, **options))


def leaf(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A leaf of the same values; of the same strides too if the dtype stays."""
    tensor = tensor.detach()
    return (tensor if dtype in (None, tensor.dtype) else tensor.to(dtype)).requires_grad_()


def check(name: str, *arguments, **options) -> None:
    """Values, dtypes, shapes and gradients of a fused op against the reference in float64."""
    split = DIFFERENTIABLE.get(name, 1)
    inputs, others = arguments[:split], arguments[split:]
    dtype = inputs[0].dtype
    fused, oracle = [leaf(x) for x in inputs], [leaf(x, torch.float64) for x in inputs]
    got = call(accl_ext, name, *fused, *others, **options)
    wanted = call(reference, name, *oracle, *others, **options)
    assert len(got) == len(wanted)
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        is_map = name == "segmentation_head" and i == 0
        assert a.dtype == (dtype if is_map else accumulation(dtype)), f"output {i} is {a.dtype}"
        assert_near(a, b, f"output {i}")
    cotangents = [torch.randn_like(x) for x in got]
    used = [i for i, x in enumerate(wanted) if x.requires_grad]
    assert all(x.requires_grad for x in got)
    torch.autograd.backward(got, cotangents)
    torch.autograd.backward([wanted[i] for i in used], [cotangents[i].double() for i in used])
    for a, b in zip(fused, oracle, strict=True):
        assert a.grad.dtype == dtype
        assert_near(a.grad, b.grad, "gradient")


def lay_out(x: Tensor, layout: str) -> Tensor:
    """The values of x in other strides; an expanded one repeats its first image or pixel column."""
    if layout == "contiguous":
        return x.contiguous()
    if layout == "offset":  # contiguous, but no pointer is aligned
        buffer = x.new_zeros(x.numel() + 1)
        return buffer[1:].view(x.shape).copy_(x)
    if layout == "sliced":
        buffer = x.new_zeros(*x.shape[:-1], x.shape[-1] + 3)
        return buffer[..., 1:-2].copy_(x)
    if layout == "channels_last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "expanded_batch":
        return x[:1].expand_as(x)
    if layout == "expanded_pixels":
        return x[..., :1].expand_as(x)
    raise ValueError(layout)


SPATIAL = {1: (37,), 2: (5, 7), 3: (3, 4, 5)}


def make_logits(batch: int, classes: int, spatial=(5, 7), dtype=torch.float64) -> Tensor:
    return (2 * torch.randn(batch, classes, *spatial, dtype=torch.float64)).to(dtype)


def make_probabilities(batch: int, classes: int, spatial=(5, 7), dtype=torch.float64) -> Tensor:
    logits = make_logits(batch, classes, spatial)
    return (logits.sigmoid() if classes == 1 else logits.softmax(1)).to(dtype)


def ignore_of(label_type: torch.dtype) -> int:
    return {torch.int8: -1, torch.int16: -100, torch.int64: -100}.get(label_type, 255)


def make_labels(
    batch: int, classes: int, spatial=(5, 7), dtype=torch.uint8, labelled: float = 0.4
) -> Tensor:
    """Random classes on a share of the pixels, else ``ignore_of(dtype)``; bool: all labelled."""
    code = torch.randint(max(classes, 2), (batch, *spatial))
    if dtype == torch.bool:
        return code.bool()
    keep = torch.rand(batch, *spatial) < labelled
    return torch.where(keep, code, ignore_of(dtype)).to(dtype)
