"""Checks and conversions of arguments for the parts that are written in Python.

The fused ops check in C++ (``csrc/ops/checks.cpp``) with the same words; a test feeds both.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import _transforms

CRITERIA = ("lsgan", "vanilla", "hinge")
SCORE_REDUCTIONS = ("mean", "sum", "none")
LABEL_REDUCTIONS = ("mean", "image_mean", "sum", "none")
SIZE_REDUCTIONS = ("mean", "sum", "none")
NORMALIZATIONS = ("area", "none", "area2")

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LABELS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)


class SegmentationHeadOutput(NamedTuple):
    """What :func:`accl_ext.segmentation_head` returns; every field is differentiable."""

    probabilities: Tensor
    """[B, C, *S], dtype of the logits."""
    partial_ce: Tensor
    """Scalar, accumulation dtype: cross-entropy over the labelled pixels."""
    size_penalty: Tensor
    """Scalar, accumulation dtype: mean penalty of eq. (3)."""
    soft_size: Tensor
    """[B, C] in pixels, accumulation dtype: sum of the probabilities."""


class SegmentationHeadOverlapOutput(NamedTuple):
    """What :func:`accl_ext.segmentation_head` returns with ``overlap``: one field more."""

    probabilities: Tensor
    """[B, C, *S], dtype of the logits."""
    partial_ce: Tensor
    """Scalar, accumulation dtype: cross-entropy over the labelled pixels."""
    size_penalty: Tensor
    """Scalar, accumulation dtype: mean penalty of eq. (3)."""
    soft_size: Tensor
    """[B, C] in pixels, accumulation dtype: sum of the probabilities."""
    overlap: Tensor
    """Accumulation dtype: what :func:`accl_ext.partial_overlap_loss` gives, by default a scalar."""


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def check_option(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        words = ", ".join(f"'{option}'" for option in allowed[:-1]) + f" or '{allowed[-1]}'"
        raise ValueError(f"{argument} must be {words}, got '{value}'")


def check_scores(scores: Tensor, argument: str) -> None:
    if scores.dtype not in _FLOATING:
        raise TypeError(
            f"{argument} must be float16, bfloat16, float32 or float64, got {_name(scores.dtype)}"
        )


def check_score_pair(fake: Tensor, real: Tensor, reduction: str) -> None:
    if fake.dtype != real.dtype:
        raise TypeError(
            "real_scores must have the dtype of fake_scores "
            f"({_name(fake.dtype)}), got {_name(real.dtype)}"
        )
    check_same_device(real, "real_scores", fake, "fake_scores")
    if reduction == "none" and fake.shape != real.shape:
        raise ValueError(
            "real_scores must have the shape of fake_scores for reduction 'none' "
            f"({_shape(fake)}), got {_shape(real)}"
        )


def check_same_device(tensor: Tensor, argument: str, other: Tensor, other_argument: str) -> None:
    if tensor.device != other.device:
        raise ValueError(
            f"{argument} must be on the device of {other_argument} ({other.device}), "
            f"got {tensor.device}"
        )


def check_bool(tensor: Tensor, argument: str) -> None:
    if tensor.dtype != torch.bool:
        raise TypeError(f"{argument} must be bool, got {_name(tensor.dtype)}")


def check_logits(logits: Tensor, argument: str = "logits") -> None:
    check_scores(logits, argument)
    if not 3 <= logits.dim() <= 5:
        raise ValueError(
            f"{argument} must have shape [B, C, *S] with 1 to 3 spatial dimensions, "
            f"got {_shape(logits)}"
        )
    if logits.shape[1] == 0:
        raise ValueError(f"{argument} must have at least one class, got {_shape(logits)}")


def check_labels(logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> None:
    """Hard labels [B, *S] without a mask, or soft ones [B, C, *S] perhaps with one."""
    if labels.is_floating_point():
        _check_soft_labels(logits, labels, mask)
        return
    check_no_mask(mask)
    if labels.dtype not in _LABELS:
        raise TypeError(
            f"labels must be uint8, int8, int16, int32, int64 or bool, got {_name(labels.dtype)}"
        )
    if labels.dtype == torch.bool and logits.shape[1] != 1:
        raise TypeError(f"bool labels need logits with one class, got {logits.shape[1]} classes")
    check_same_device(labels, "labels", logits, "logits")
    check_map(logits, labels, "labels")


def check_no_mask(mask: Tensor | None) -> None:
    if mask is not None:
        raise ValueError(
            "mask goes with soft labels; unlabelled pixels of hard labels have ignore_index"
        )


def _check_soft_labels(logits: Tensor, labels: Tensor, mask: Tensor | None) -> None:
    check_scores(labels, "soft labels")
    check_same_device(labels, "labels", logits, "logits")
    if labels.shape != logits.shape:
        raise ValueError(
            f"soft labels must have the shape of logits {_shape(logits)}, got {_shape(labels)}"
        )
    if labels.requires_grad:
        raise ValueError("soft labels must not require grad")
    if mask is not None:
        check_bool(mask, "mask")
        check_same_device(mask, "mask", logits, "logits")
        check_map(logits, mask, "mask")


def check_map(
    logits: Tensor, tensor: Tensor, argument: str, logits_argument: str = "logits"
) -> None:
    """Raise unless the tensor has one value for each pixel: [B, *S] or [B, 1, *S]."""
    plain = [logits.shape[0], *logits.shape[2:]]
    with_channel = [logits.shape[0], 1, *logits.shape[2:]]
    if _shape(tensor) not in (plain, with_channel):
        raise ValueError(
            f"{argument} must have shape {plain} or {with_channel} "
            f"to match {logits_argument} {_shape(logits)}, got {_shape(tensor)}"
        )


def check_weight(logits: Tensor, weight: Tensor | None, argument: str = "weight") -> None:
    if weight is None:
        return
    if not weight.is_floating_point():
        raise TypeError(f"{argument} must be a floating dtype, got {_name(weight.dtype)}")
    n = max(logits.shape[1], 2)
    if _shape(weight) != [n]:
        raise ValueError(
            f"{argument} must have shape [{n}], one value a class, got {_shape(weight)}"
        )
    check_same_device(weight, argument, logits, "logits")
    if weight.requires_grad:
        raise ValueError(f"{argument} must not require grad")


def check_pixel_weight(logits: Tensor, pixel_weight: Tensor | None) -> None:
    if pixel_weight is None:
        return
    if not pixel_weight.is_floating_point():
        raise TypeError(f"pixel_weight must be a floating dtype, got {_name(pixel_weight.dtype)}")
    check_same_device(pixel_weight, "pixel_weight", logits, "logits")
    check_map(logits, pixel_weight, "pixel_weight")
    if pixel_weight.requires_grad:
        raise ValueError("pixel_weight must not require grad")


def check_label_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be between 0 and 1, got {label_smoothing:g}")


def check_bounds_dtype(bounds: Tensor) -> None:
    if bounds.dtype == torch.bool or bounds.is_complex():
        raise TypeError(
            f"bounds must be float32, float64 or an integer dtype, got {_name(bounds.dtype)}"
        )
    if bounds.is_floating_point() and bounds.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            "bounds must be float32, float64 or an integer dtype, because lower precision rounds "
            "sizes in pixels and makes large ones infinite, which frees their side; "
            f"got {_name(bounds.dtype)}"
        )


def check_bounds(logits: Tensor, bounds: Tensor) -> None:
    check_bounds_dtype(bounds)
    check_same_device(bounds, "bounds", logits, "logits")
    wanted = [logits.shape[0], logits.shape[1], 2]
    came = _shape(bounds)
    leading = came[:-1]
    fits = (
        1 <= len(came) <= 3
        and came[-1] == 2
        and all(
            size in (1, want)
            for size, want in zip(leading, wanted[2 - len(leading) :], strict=False)
        )
    )
    if not fits:
        raise ValueError(f"bounds must broadcast to [B, C, 2] = {wanted}, got {came}")
    if bounds.requires_grad:
        raise ValueError("bounds must not require grad")


def bounds_tensor(bounds: Tensor | tuple[float, float], logits: Tensor) -> Tensor:
    """The bounds as a tensor, not yet checked: the one given, or [2] made of a pair of numbers."""
    return bounds if isinstance(bounds, Tensor) else constant_bounds(bounds, logits)


def constant_bounds(bounds: tuple[float, float], logits: Tensor) -> Tensor:
    """A pair of numbers as a tensor [2] beside the logits, put on their device once and cached."""
    try:
        lower, upper = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise TypeError(f"bounds must be a pair of numbers or a tensor, got {bounds!r}") from None
    if lower > upper and math.isfinite(lower) and math.isfinite(upper):
        raise ValueError(f"bounds must satisfy a <= b, got ({lower}, {upper})")
    # Bounds that are not finite become infinite: NaN would never be found in the cache.
    lower = lower if math.isfinite(lower) else -math.inf
    upper = upper if math.isfinite(upper) else math.inf
    device, dtype = logits.device, accumulation_dtype(logits.dtype)
    if (
        torch.compiler.is_compiling()
        or _transforms.are_active()
        or type(logits) not in (Tensor, torch.nn.Parameter)
    ):
        # Made by fills inside the graph, because a copy from the host cannot be captured. They are
        # not cached: while tracing they are fake tensors and inside a transform wrapped ones,
        # which must not turn up in a real call.
        return torch.stack(
            [torch.full((), bound, device=device, dtype=dtype) for bound in (lower, upper)]
        )
    return _cached_bounds(lower, upper, device, dtype)


@lru_cache(maxsize=1024)
def _cached_bounds(lower: float, upper: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "bounds given as a pair of numbers must be copied to the device, which a CUDA graph "
            "cannot capture: pass bounds as a tensor on the device, or call once before capture"
        )
    with torch.inference_mode(False):
        return torch.tensor([lower, upper], dtype=dtype, device=device)


def values_are_at_hand(labels: Tensor) -> bool:
    """True if the values can be read without a synchronisation and without breaking a trace."""
    return (
        labels.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(labels)
        and type(labels) in (Tensor, torch.nn.Parameter)
    )


def label_error(value: int, classes: int, ignore_index: int) -> ValueError:
    wanted = "0, 1" if classes <= 2 else f"0 to {classes - 1}"
    return ValueError(f"labels must be {wanted} or ignore_index ({ignore_index}), got {value}")


def check_label_values(invalid: Tensor, classes: int, ignore_index: int) -> None:
    if invalid.numel():
        raise label_error(int(invalid.reshape(-1)[0]), classes, ignore_index)


def validate_labels(labels: Tensor, num_classes: int, *, ignore_index: int = 255) -> None:
    """Look whether a label is neither a class nor ``ignore_index``.

    The ops raise by themselves on CPU; on CUDA, where looking at values synchronises, they turn
    the loss into NaN instead, and this function is the check on demand.

    Args:
        labels: integer or bool labels of any shape, on any device.
        num_classes: C of the logits; 1 means the labels {0, 1}.
        ignore_index: the value of unlabelled pixels.

    Raises:
        TypeError: ``labels`` is not an integer or bool tensor.
        ValueError: ``num_classes`` is below 1, or a label is neither a class nor
            ``ignore_index``; the message names the first such value.
    """
    if labels.dtype not in _LABELS:
        raise TypeError(
            f"labels must be uint8, int8, int16, int32, int64 or bool, got {_name(labels.dtype)}"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    code = labels.long()
    invalid = (code != ignore_index) & ((code < 0) | (code >= max(num_classes, 2)))
    check_label_values(code[invalid], num_classes, ignore_index)
