"""Bad calls of gated_crf_loss: (arguments, options, exception, message)."""

from __future__ import annotations

import math

from torch import bool as boolean
from torch import complex64, float16, float32, int64, uint8

from .bad_tensor import T

P, IMAGE = T((2, 1, 4, 5)), T((2, 3, 4, 5))

FLOATING = "must be float16, bfloat16, float32 or float64, got"
RANK = "probabilities must have shape [B, C, *S] with 1 to 3 spatial dimensions, got"
MATCH = "to match probabilities [2, 1, 4, 5], got"
ELSEWHERE = "must be on the device of probabilities ({device}), got {other}"
TRIPLES = "kernels must be a sequence of (weight, sigma_space, sigma_image)"
NUMBERS = "spacing must be a sequence of numbers, one per spatial axis, got"

BAD_PROBABILITIES = [
    (T((2, 1, 4, 5), int64), TypeError, f"probabilities {FLOATING} int64"),
    (T((2, 1, 4, 5), boolean), TypeError, f"probabilities {FLOATING} bool"),
    (T((2, 1, 4, 5), complex64), TypeError, f"probabilities {FLOATING} complex64"),
    (T(()), ValueError, f"{RANK} []"),
    (T((4, 5)), ValueError, f"{RANK} [4, 5]"),
    (T((2, 1, 2, 2, 2, 2)), ValueError, f"{RANK} [2, 1, 2, 2, 2, 2]"),
    (
        T((2, 0, 4, 5)),
        ValueError,
        "probabilities must have at least one class, got [2, 0, 4, 5]",
    ),
]

BAD_IMAGES = [
    (T((2, 3, 4, 5), uint8), TypeError, f"image {FLOATING} uint8"),
    (T((2, 3, 4, 5), complex64), TypeError, f"image {FLOATING} complex64"),
    (T((2, 3, 4, 5), elsewhere=True), ValueError, f"image {ELSEWHERE}"),
    *[
        (T(shape), ValueError, f"image must have shape [2, K, 4, 5] {MATCH} {list(shape)}")
        for shape in ((2, 4, 5), (4, 5), (), (1, 3, 4, 5), (2, 3, 5, 4), (2, 3, 4, 5, 1))
    ],
    (T((2, 0, 4, 5)), ValueError, "image must have at least one channel, got [2, 0, 4, 5]"),
    (
        T((2, 3, 4, 5), grad=True),
        ValueError,
        "image must not require grad: the loss has no derivative by the image",
    ),
]


def bad_masks(name: str):
    yield T((2, 4, 5), uint8), TypeError, f"{name} must be bool, got uint8"
    yield T((2, 4, 5), float32), TypeError, f"{name} must be bool, got float32"
    yield T((2, 4, 5), boolean, elsewhere=True), ValueError, f"{name} {ELSEWHERE}"
    wanted = f"{name} must have shape [2, 4, 5] or [2, 1, 4, 5] {MATCH}"
    for shape in ((4, 5), (1, 4, 5), (2, 5, 4), (2, 2, 4, 5), (2, 20), ()):
        yield T(shape, boolean), ValueError, f"{wanted} {list(shape)}"


BAD_OPTIONS = [
    ({"radius": 0}, ValueError, "radius must be at least 1, got 0"),
    ({"radius": -3}, ValueError, "radius must be at least 1, got -3"),
    ({"radius": 2.5}, TypeError, "radius must be an integer, got 2.5"),
    ({"radius": True}, TypeError, "radius must be an integer, got True"),
    ({"radius": "5"}, TypeError, "radius must be an integer, got '5'"),
    ({"radius": None}, TypeError, "radius must be an integer, got None"),
    ({"kernels": None}, TypeError, f"{TRIPLES}, got None"),
    ({"kernels": 3}, TypeError, f"{TRIPLES}, got 3"),
    ({"kernels": (1, 6, 0.1)}, TypeError, f"{TRIPLES}, got (1, 6, 0.1)"),
    ({"kernels": [(1, 6)]}, TypeError, f"{TRIPLES}, got [(1, 6)]"),
    ({"kernels": [(1, None, 2)]}, TypeError, f"{TRIPLES}, got [(1, None, 2)]"),
    ({"kernels": [("a", 6, 2)]}, TypeError, f"{TRIPLES}, got [('a', 6, 2)]"),
    ({"kernels": ()}, ValueError, f"{TRIPLES}, at least one, got ()"),
    (
        {"kernels": [(1, 6, 0.1)] * 17},
        ValueError,
        "kernels must hold at most 16 kernels, got 17",
    ),
    (
        {"kernels": [(1, 6, 0.1), (math.inf, 6, 0.1)]},
        ValueError,
        "weight of kernels[1] must be finite, got inf",
    ),
    (
        {"kernels": [(1, 0, 0.1)]},
        ValueError,
        "sigma_space of kernels[0] must be above 0, got 0.0",
    ),
    (
        {"kernels": [(1, math.nan, 0.1)]},
        ValueError,
        "sigma_space of kernels[0] must be above 0, got nan",
    ),
    (
        {"kernels": [(1, 6, -0.1)]},
        ValueError,
        "sigma_image of kernels[0] must be above 0, got -0.1",
    ),
    ({"spacing": 1.0}, TypeError, f"{NUMBERS} 1.0"),
    ({"spacing": (1, "a")}, TypeError, f"{NUMBERS} (1, 'a')"),
    (
        {"spacing": (1, 0)},
        ValueError,
        "spacing must be finite numbers above 0, got [1.0, 0.0]",
    ),
    (
        {"spacing": (1, math.inf)},
        ValueError,
        "spacing must be finite numbers above 0, got [1.0, inf]",
    ),
    (
        {"spacing": (1, 1, 1)},
        ValueError,
        "spacing must have one number per spatial axis (2), got 3",
    ),
    ({"spacing": ()}, ValueError, "spacing must have one number per spatial axis, got none"),
    (
        {"reduction": "image_mean"},
        ValueError,
        "reduction must be 'mean', 'sum' or 'none', got 'image_mean'",
    ),
]


def rows():
    for bad, *rest in BAD_PROBABILITIES:
        yield [bad, IMAGE], {}, *rest
    for bad, *rest in BAD_IMAGES:
        yield [P, bad], {}, *rest
        yield [T((2, 1, 4, 5), float16), bad], {}, *rest
    for name in ("source_mask", "destination_mask"):
        for bad, *rest in bad_masks(name):
            yield [P, IMAGE], {name: bad}, *rest
    for options, *rest in BAD_OPTIONS:
        yield [P, IMAGE], options, *rest
