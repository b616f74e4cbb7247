"""The table of bad calls: op, arguments, options, exception, exact message."""

from __future__ import annotations

import math

from torch import (
    bfloat16,
    complex64,
    float8_e5m2,
    float16,
    float32,
    float64,
    int32,
    int64,
    uint8,
    uint16,
)
from torch import bool as boolean

from . import bad_pair_calls
from .bad_tensor import T

SCORES, LOGITS, LABELS = T((2, 1, 3, 3)), T((2, 1, 4, 5)), T((2, 4, 5), uint8)

FLOATING = "must be float16, bfloat16, float32 or float64, got"
INTEGERS = "labels must be uint8, int8, int16, int32, int64 or bool, got"
RANK = "logits must have shape [B, C, *S] with 1 to 3 spatial dimensions, got"
CRITERION = "criterion must be 'lsgan', 'vanilla' or 'hinge', got"
REDUCTION = "reduction must be 'mean', 'sum' or 'none', got"
LABEL_REDUCTION = "reduction must be 'mean', 'image_mean', 'sum' or 'none', got"
NORMALIZE = "normalize must be 'area', 'none' or 'area2', got"
FIT = "labels must have shape [2, 4, 5] or [2, 1, 4, 5] to match logits [2, 1, 4, 5], got"
WEIGHT = "weight must have shape [2], one value a class, got"
BROADCAST = "bounds must broadcast to [B, C, 2] = [2, 1, 2], got"
BOUNDS = "bounds must be float32, float64 or an integer dtype"
PRECISION = (
    f"{BOUNDS}, because lower precision rounds sizes in pixels and makes large ones infinite, "
    "which frees their side; got"
)
SOFT = "soft labels must have the shape of logits [2, 1, 4, 5], got"
MASK_FIT = FIT.replace("labels", "mask")
PIXEL_FIT = FIT.replace("labels", "pixel_weight")
PAIR = "bounds must be a pair of numbers or a tensor, got"
# {device} and {other} stand for the two devices.
ELSEWHERE = "must be on the device of logits ({device}), got {other}"


# Scores: (arguments, options, exception, message)

GENERATOR = [
    ([T((2, 3), int64)], {}, TypeError, f"scores {FLOATING} int64"),
    ([T((2, 3), uint8)], {}, TypeError, f"scores {FLOATING} uint8"),
    ([T((2, 3), boolean)], {}, TypeError, f"scores {FLOATING} bool"),
    ([T((2, 3), complex64)], {}, TypeError, f"scores {FLOATING} complex64"),
    ([T((2, 3), float8_e5m2)], {}, TypeError, f"scores {FLOATING} float8_e5m2"),
    ([SCORES], {"criterion": "wgan"}, ValueError, f"{CRITERION} 'wgan'"),
    ([SCORES], {"criterion": "LSGAN"}, ValueError, f"{CRITERION} 'LSGAN'"),
    ([SCORES], {"reduction": "image_mean"}, ValueError, f"{REDUCTION} 'image_mean'"),
    ([SCORES], {"reduction": ""}, ValueError, f"{REDUCTION} ''"),
]

SAME_DTYPE = "real_scores must have the dtype of fake_scores (float32), got float16"
SAME_DEVICE = "real_scores must be on the device of fake_scores ({device}), got {other}"
SAME_SHAPE = (
    "real_scores must have the shape of fake_scores for reduction 'none' ([2, 1, 3, 3]), got"
)
DISCRIMINATOR = [
    ([T((2,), int32), T((2,), int32)], {}, TypeError, f"fake_scores {FLOATING} int32"),
    ([SCORES, T((2,), boolean)], {}, TypeError, f"real_scores {FLOATING} bool"),
    ([SCORES, T((2,), float16)], {}, TypeError, SAME_DTYPE),
    ([SCORES, T((2,), elsewhere=True)], {}, ValueError, SAME_DEVICE),
    ([SCORES, T((2, 9))], {"reduction": "none"}, ValueError, f"{SAME_SHAPE} [2, 9]"),
    ([SCORES, SCORES], {"criterion": "bce"}, ValueError, f"{CRITERION} 'bce'"),
    ([SCORES, SCORES], {"reduction": "avg"}, ValueError, f"{REDUCTION} 'avg'"),
]


# Pixels, for every op that takes the argument: (argument, exception, message)

BAD_LOGITS = [
    (T((2, 1, 4, 5), int64), TypeError, f"logits {FLOATING} int64"),
    (T((2, 1, 4, 5), complex64), TypeError, f"logits {FLOATING} complex64"),
    (T(()), ValueError, f"{RANK} []"),
    (T((4, 5)), ValueError, f"{RANK} [4, 5]"),
    (T((2, 1, 2, 2, 2, 2)), ValueError, f"{RANK} [2, 1, 2, 2, 2, 2]"),
    (T((2, 0, 4, 5)), ValueError, "logits must have at least one class, got [2, 0, 4, 5]"),
]

BAD_LABELS = [
    (T((2, 4, 5), float32), ValueError, f"{SOFT} [2, 4, 5]"),
    (T((2, 2, 4, 5), float64), ValueError, f"{SOFT} [2, 2, 4, 5]"),
    (T((2, 1, 4, 5), float8_e5m2), TypeError, f"soft labels {FLOATING} float8_e5m2"),
    (T((2, 1, 4, 5), elsewhere=True), ValueError, f"labels {ELSEWHERE}"),
    (T((2, 1, 4, 5), grad=True), ValueError, "soft labels must not require grad"),
    (T((2, 4, 5), uint16), TypeError, f"{INTEGERS} uint16"),
    (T((2, 4, 5), complex64), TypeError, f"{INTEGERS} complex64"),
    (T((2, 4, 5), uint8, elsewhere=True), ValueError, f"labels {ELSEWHERE}"),
    (T((2, 5, 4), uint8), ValueError, f"{FIT} [2, 5, 4]"),
    (T((1, 4, 5), uint8), ValueError, f"{FIT} [1, 4, 5]"),
    (T((2, 2, 4, 5), uint8), ValueError, f"{FIT} [2, 2, 4, 5]"),
    (T((2, 4, 5, 1), uint8), ValueError, f"{FIT} [2, 4, 5, 1]"),
    (T((2, 20), uint8), ValueError, f"{FIT} [2, 20]"),
    (T((4, 5), uint8), ValueError, f"{FIT} [4, 5]"),
    (T((), uint8), ValueError, f"{FIT} []"),
]

BAD_WEIGHTS = [
    (T((3,)), ValueError, f"{WEIGHT} [3]"),
    (T(()), ValueError, f"{WEIGHT} []"),
    (T((1, 2)), ValueError, f"{WEIGHT} [1, 2]"),
    (T((2,), int64), TypeError, "weight must be a floating dtype, got int64"),
    (T((2,), boolean), TypeError, "weight must be a floating dtype, got bool"),
    (T((2,), complex64), TypeError, "weight must be a floating dtype, got complex64"),
    (T((2,), elsewhere=True), ValueError, f"weight {ELSEWHERE}"),
    (T((2,), grad=True), ValueError, "weight must not require grad"),
]

BAD_PIXEL_WEIGHTS = [
    (T((2, 4, 5), int64), TypeError, "pixel_weight must be a floating dtype, got int64"),
    (T((2, 4, 5), boolean), TypeError, "pixel_weight must be a floating dtype, got bool"),
    (T((2, 4, 5), complex64), TypeError, "pixel_weight must be a floating dtype, got complex64"),
    (T((2, 4, 5), elsewhere=True), ValueError, f"pixel_weight {ELSEWHERE}"),
    (T((2, 5, 4)), ValueError, f"{PIXEL_FIT} [2, 5, 4]"),
    (T((1, 4, 5)), ValueError, f"{PIXEL_FIT} [1, 4, 5]"),
    (T((2, 2, 4, 5)), ValueError, f"{PIXEL_FIT} [2, 2, 4, 5]"),
    (T((4, 5)), ValueError, f"{PIXEL_FIT} [4, 5]"),
    (T(()), ValueError, f"{PIXEL_FIT} []"),
    (T((2, 4, 5), grad=True), ValueError, "pixel_weight must not require grad"),
]

BAD_BOUNDS = [
    ((5, 3), ValueError, "bounds must satisfy a <= b, got (5.0, 3.0)"),
    ([0.5, -2], ValueError, "bounds must satisfy a <= b, got (0.5, -2.0)"),
    ((1, 2, 3), TypeError, f"{PAIR} (1, 2, 3)"),
    ((1,), TypeError, f"{PAIR} (1,)"),
    (7, TypeError, f"{PAIR} 7"),
    (("a", "b"), TypeError, f"{PAIR} ('a', 'b')"),
    ((None, 3), TypeError, f"{PAIR} (None, 3)"),
    (T(()), ValueError, f"{BROADCAST} []"),
    (T((2, 1)), ValueError, f"{BROADCAST} [2, 1]"),
    (T((3, 2)), ValueError, f"{BROADCAST} [3, 2]"),
    (T((3, 1, 2)), ValueError, f"{BROADCAST} [3, 1, 2]"),
    (T((1, 2, 1, 2)), ValueError, f"{BROADCAST} [1, 2, 1, 2]"),
    (T((2,), boolean), TypeError, f"{BOUNDS}, got bool"),
    (T((2,), complex64), TypeError, f"{BOUNDS}, got complex64"),
    (T((2,), float16), TypeError, f"{PRECISION} float16"),
    (T((2, 1, 2), bfloat16), TypeError, f"{PRECISION} bfloat16"),
    (T((2,), float8_e5m2), TypeError, f"{PRECISION} float8_e5m2"),
    (T((2,), elsewhere=True), ValueError, f"bounds {ELSEWHERE}"),
    (T((2,), grad=True), ValueError, "bounds must not require grad"),
]


NUMBER = "must be finite and at least 0, got"
KNOWN = (
    "overlap must hold only alpha, beta, smooth_numerator, smooth_denominator, absent, "
    "include_background, squared, batch, reduction, weight, got"
)
OVERLAP = [
    ("alpha", -0.5, ValueError, f"alpha {NUMBER} -0.5"),
    ("beta", math.inf, ValueError, f"beta {NUMBER} inf"),
    ("alpha", math.nan, ValueError, f"alpha {NUMBER} nan"),
    ("beta", "half", TypeError, "beta must be a number, got 'half'"),
    ("alpha", True, TypeError, "alpha must be a number, got True"),
    ("smooth_numerator", -1, ValueError, f"smooth_numerator {NUMBER} -1"),
    ("smooth_denominator", None, TypeError, "smooth_denominator must be a number, got None"),
    ("absent", "drop", ValueError, "absent must be 'skip' or 'keep', got 'drop'"),
    (
        "include_background",
        1,
        TypeError,
        "include_background must be True, False or None, got 1",
    ),
    ("squared", None, TypeError, "squared must be True or False, got None"),
    ("batch", "yes", TypeError, "batch must be True or False, got 'yes'"),
    ("reduction", "image_mean", ValueError, f"{REDUCTION} 'image_mean'"),
]


SOFT_LABELS = T((2, 1, 4, 5))
BAD_MASKS = [
    (SOFT_LABELS, T((2, 4, 5), uint8), TypeError, "mask must be bool, got uint8"),
    (SOFT_LABELS, T((2, 5, 4), boolean), ValueError, f"{MASK_FIT} [2, 5, 4]"),
    (SOFT_LABELS, T((2, 4, 5), boolean, elsewhere=True), ValueError, f"mask {ELSEWHERE}"),
    (
        LABELS,
        T((2, 4, 5), boolean),
        ValueError,
        "mask goes with soft labels; unlabelled pixels of hard labels have ignore_index",
    ),
]


def mask_rows():
    for op in ("partial_cross_entropy", "partial_overlap_loss", "segmentation_head"):
        for labels, mask, *rest in BAD_MASKS:
            yield op, [LOGITS, labels], {"mask": mask}, *rest


def barrier_rows():
    for op, arguments, form, t in (
        ("size_penalty", [LOGITS, (1, 2)], "form", "t"),
        ("segmentation_head", [LOGITS, LABELS, (1, 2)], "size_form", "size_t"),
    ):
        message = f"{form} must be 'quadratic' or 'log_barrier', got 'cubic'"
        yield op, arguments, {form: "cubic"}, ValueError, message
        for value, shown in ((0, "0"), (-1.5, "-1.5"), (math.inf, "inf"), (math.nan, "nan")):
            message = f"{t} must be finite and above 0, got {shown}"
            yield op, arguments, {t: value}, ValueError, message
        message = f"{t} must be a number or a tensor, got 'five'"
        yield op, arguments, {t: "five"}, TypeError, message
        wanted = f"{t} must be a number or a floating tensor without dimensions"
        yield op, arguments, {t: T((2,))}, ValueError, f"{wanted}, got float32 [2]"
        yield op, arguments, {t: T((), int64)}, ValueError, f"{wanted}, got int64 []"


def rows():
    yield from barrier_rows()
    yield from mask_rows()
    for name, value, *rest in OVERLAP:
        yield "partial_overlap_loss", [LOGITS, LABELS], {name: value}, *rest
        yield "segmentation_head", [LOGITS, LABELS], {"overlap": {name: value}}, *rest
    for name in ("ignore_index", "aplha"):
        bad = {"overlap": {name: 1}}
        yield "segmentation_head", [LOGITS, LABELS], bad, ValueError, f"{KNOWN} '{name}'"
    message = "overlap must be a dict of options or None, got 'dice'"
    yield "segmentation_head", [LOGITS, LABELS], {"overlap": "dice"}, TypeError, message
    for bad, error, message in BAD_WEIGHTS:
        message = message.replace("weight must", "weight of overlap must")
        yield "segmentation_head", [LOGITS, LABELS], {"overlap": {"weight": bad}}, error, message
    for row in bad_pair_calls.rows():
        yield "gated_crf_loss", *row
    for arguments, *rest in GENERATOR:
        yield "accl_loss", arguments, *rest
    for arguments, *rest in DISCRIMINATOR:
        yield "accl_discriminator_loss", arguments, *rest
    for bad, *rest in BAD_LOGITS:
        yield "size_penalty", [bad, (1, 2)], {}, *rest
    for bad, *rest in BAD_BOUNDS:
        yield "size_penalty", [LOGITS, bad], {}, *rest
        yield "segmentation_head", [LOGITS, LABELS, bad], {}, *rest
    for op in ("partial_cross_entropy", "partial_overlap_loss", "segmentation_head"):
        for bad, *rest in BAD_LOGITS:
            yield op, [bad, LABELS], {}, *rest
        for bad, *rest in BAD_LABELS:
            yield op, [LOGITS, bad], {}, *rest
        for bad, *rest in BAD_WEIGHTS:
            yield op, [LOGITS, LABELS], {"weight": bad}, *rest
        for bad, *rest in BAD_PIXEL_WEIGHTS:
            yield op, [LOGITS, LABELS], {"pixel_weight": bad}, *rest
        three = T((2, 3, 4, 5))
        message = "bool labels need logits with one class, got 3 classes"
        yield op, [three, T((2, 4, 5), boolean)], {}, TypeError, message
        message = "weight must have shape [3], one value a class, got [2]"
        yield op, [three, LABELS], {"weight": T((2,))}, ValueError, message
        if op == "partial_overlap_loss":
            continue
        for value, shown in ((-0.1, "-0.1"), (1.5, "1.5"), (2, "2"), (math.nan, "nan")):
            message = f"label_smoothing must be between 0 and 1, got {shown}"
            yield op, [LOGITS, LABELS], {"label_smoothing": value}, ValueError, message
    for op, arguments, option, value, message in (
        ("partial_cross_entropy", [LOGITS, LABELS], "reduction", "average", LABEL_REDUCTION),
        ("size_penalty", [LOGITS, (1, 2)], "reduction", "image_mean", REDUCTION),
        ("size_penalty", [LOGITS, (1, 2)], "normalize", "mean", NORMALIZE),
        ("segmentation_head", [LOGITS, LABELS], "normalize", "pixels", NORMALIZE),
    ):
        yield op, arguments, {option: value}, ValueError, f"{message} '{value}'"


ROWS = list(rows())
