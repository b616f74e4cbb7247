"""Cases of the losses on pixels for cases.py, one function for each idea."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from fields import (
    DTYPES,
    LABEL_REDUCTIONS,
    LABELS,
    LONG,
    MAIN,
    NORMALIZATIONS,
    SIZE_REDUCTIONS,
    SIZES,
    Fields,
    raw,
)
from pixels import Pixels

Case = Callable[[torch.dtype, int, int, int], Pixels]  # dtype, batch, classes, pixels


def pixel_cases(few: bool) -> Iterator[Fields]:
    seeds = itertools.count()

    def case(dtype: torch.dtype, batch: int, classes: int, pixels: int) -> Pixels:
        return Pixels(dtype, batch, classes, pixels, next(seeds))

    yield from heads(case, [1025, 2048] if few else SIZES)
    yield from main_sizes(case, few)
    # More classes than registers hold or one sum in shared memory, in blocks that walk two chunks.
    yield case(torch.float32, 2, 40, 1100).with_labels().with_bounds().with_head().finish()
    yield case(torch.float32, 2, 40, 600).with_bounds().finish()
    if few:
        return
    for part in (larger_heads, label_types, label_shares, weights, ignored, bounds, extremes):
        yield from part(case)


def heads(case: Case, sizes: list[int]) -> Iterator[Fields]:
    """The whole head: sizes, classes, dtypes, and which outputs have a gradient."""
    gradients = itertools.cycle(
        ["all", "all", "ce", "probabilities", "penalty soft_size", "ce probabilities", "none"]
    )
    for dtype in DTYPES:
        for classes in (1, 3):
            for n in sizes:
                batch = 2 if n % 2 else 3
                head = case(dtype, batch, classes, n).with_labels().with_bounds().with_head()
                yield head.finish(next(gradients))


def main_sizes(case: Case, few: bool) -> Iterator[Fields]:
    """Images as people train on them: whole tiles, and tiles with a rest of vectors and pixels."""
    shapes = [(1, 1, MAIN), (2, 1, 2560 + 8), (1, 1, 2560 + 9)]
    if not few:
        shapes += [(2, 4, MAIN // 4), (2, 1, MAIN + 8), (1, 1, 4 * MAIN)]
    for dtype, shape in zip(itertools.cycle(DTYPES), shapes * (1 if few else 2), strict=False):
        head = case(dtype, *shape).with_labels(share=0.003).with_bounds().with_head()
        yield head.finish()


def larger_heads(case: Case) -> Iterator[Fields]:
    """More classes, and longer rows."""
    for classes in (2, 4, 5, 8, 9, 40):
        for n in (64, 1300):  # rows that begin at multiples of 16 bytes
            head = case(torch.float32, 2, classes, n).with_labels().with_bounds().with_head()
            yield head.finish()
    yield (
        case(torch.float32, 1, 300, 65).with_labels(torch.int16).with_bounds().with_head().finish()
    )
    for dtype in (torch.bfloat16, torch.float32):  # more than 32 chunks
        yield case(dtype, 2, 1, LONG).with_labels(share=0.01).with_bounds().with_head().finish()
    yield case(torch.float32, 1, 2, 36_000).with_labels(share=0.01).with_head().finish()


def label_types(case: Case) -> Iterator[Fields]:
    """Every type of labels with every reduction."""
    for dtype, classes in itertools.product(LABELS, (1, 3)):
        if dtype == torch.bool and classes > 1:
            continue
        for n, reduction in zip((130, 4100, 555, 1028), LABEL_REDUCTIONS, strict=True):
            labelled = case(torch.float32, 3, classes, n).with_labels(
                dtype, weighted=n % 4 == 2, reduction=reduction
            )
            yield labelled.finish("ce")


def label_shares(case: Case) -> Iterator[Fields]:
    """No label at all, labels everywhere, and an invalid one."""
    for classes, reduction in itertools.product((1, 3), LABEL_REDUCTIONS):
        yield (
            case(torch.float32, 2, classes, 200)
            .with_labels(share=0.0, reduction=reduction)
            .finish("ce")
        )
        yield (
            case(torch.float64, 2, classes, 200)
            .with_labels(share=1.0, reduction=reduction, weighted=True)
            .with_head()
            .finish()
        )
        yield (
            case(torch.float16, 2, classes, 131)
            .with_labels(torch.int64, reduction=reduction, invalid=True)
            .with_head()
            .finish()
        )


def weights(case: Case) -> Iterator[Fields]:
    """Weights of classes and of pixels, and label smoothing."""
    for classes, (reduction, smoothing) in itertools.product(
        (1, 2, 4, 7, 11), zip(LABEL_REDUCTIONS, (0.0, 0.1, 0.3, 1.0), strict=True)
    ):
        for dtype, weighted in ((torch.float32, False), (torch.float16, True)):
            weighed = case(dtype, 2, classes, 300).with_labels(
                pixel_weighted=smoothing != 0.3,
                smoothing=smoothing,
                weighted=weighted,
                reduction=reduction,
                invalid=smoothing == 1.0,
            )
            yield weighed.with_head().finish()


def ignored(case: Case) -> Iterator[Fields]:
    """ignore_index equal to a class, where it wins, and beyond the range of the type."""
    yield (
        case(torch.float32, 2, 1, 100).with_labels(torch.uint8, share=1.0, ignore_index=0).finish()
    )
    beyond = case(torch.float32, 1, 3, 100).with_labels(torch.uint8, share=1.0, ignore_index=-1)
    yield beyond.finish()
    yield case(torch.float32, 1, 1, 100).with_labels(torch.bool).with_head().finish()


def bounds(case: Case) -> Iterator[Fields]:
    """Every normalisation and reduction, free sides, broadcasting."""
    for classes, normalize, reduction in itertools.product((1, 3), NORMALIZATIONS, SIZE_REDUCTIONS):
        sized = case(torch.float64, 2, classes, 150).with_bounds(
            normalize=normalize, reduction=reduction
        )
        yield sized.finish()
    free = torch.tensor([-torch.inf, torch.nan])
    yield case(torch.float32, 2, 3, 70).with_bounds(free).finish()
    yield case(torch.float32, 2, 3, 70).with_bounds(torch.tensor([[10.0, 12.0]])).finish()
    yield (
        case(torch.float32, 2, 2, 70)
        .with_bounds(torch.tensor([[[1.0, 2.0]], [[60.0, 65.0]]]))
        .finish()
    )


def extremes(case: Case) -> Iterator[Fields]:
    """Infinite and huge logits; a large incoming gradient, as a gradient scaler sends."""
    for dtype in DTYPES:
        extreme = case(dtype, 1, 1, 40).with_labels(torch.int32, share=1.0)
        sign = extreme.labels.float() * 2 - 1
        extreme.logits[:, 0, ::2] = (sign[:, ::2] * torch.inf).to(dtype)
        extreme.logits[:, 0, 1::4] = (sign[:, 1::4] * 88).to(dtype)
        yield extreme.with_head().finish("ce probabilities")
        huge = case(dtype, 1, 3, 40).with_labels(torch.int32, share=1.0)
        huge.logits[:, :2, ::3] = 1e4
        huge.logits[:, 2, ::5] = -torch.inf
        huge.labels[huge.labels == 2] = 1
        huge.fields["labels"] = raw(huge.labels)
        yield huge.with_head().finish()
        scaled = case(dtype, 1, 1, 65).with_labels(share=0.5).with_bounds()
        yield scaled.finish("ce", scale=256.0)
