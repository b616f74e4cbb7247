"""Cases for the CUDA sources on CPU threads: inputs, and what the float64 reference makes of them.

``python cases.py scores|pixels|pairs OUT [--few]`` writes a file that cases.h reads: for each case
its number of fields, then name length, byte length, name and bytes of each field.
"""

from __future__ import annotations

import argparse
import itertools
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from accl_ext import reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LABELS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool]
LABEL_REDUCTIONS = ["mean", "sum", "none", "image_mean"]
SIZE_REDUCTIONS = ["mean", "sum", "none"]
NORMALIZATIONS = ["area", "none", "area2"]
# Around a warp, a block and a chunk of the small blocks that the shim sets, several chunks, and
# more than 32 of them, which are added in another way.
SIZES = [1, 3, 31, 33, 63, 65, 257, 900, 1023, 1025, 4097]
LONG = 65_537

Fields = dict[str, bytes]


def raw(tensor: Tensor) -> bytes:
    return (
        tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
        if tensor.dim()
        else (tensor.detach().reshape(1).view(torch.uint8).numpy().tobytes())
    )


def integers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def doubles(tensor: Tensor) -> bytes:
    return raw(tensor.double().flatten())


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ------------------------------------------------------------------------------------------------
# Scores

TERMS = ["lsgan", "vanilla", "hinge", "hinge_fake", "hinge_real"]


def score_case(
    dtype: torch.dtype, counts: list[int], terms: list[str], reduction: str, seed: int
) -> Fields:
    torch.manual_seed(seed)
    groups = [(torch.randn(n) * 3).to(dtype) for n in counts]
    if counts[0] > 8:
        groups[0][3], groups[0][5] = 88.0, -30.0  # exp overflows, 1 + exp rounds to 1
    targets = [0.9, 0.25][: len(groups)]
    scale = 0.5 if len(groups) == 2 else 1.0
    inputs = [g.double().requires_grad_() for g in groups]
    if len(groups) == 1:
        criterion = terms[0]
        loss = reference.accl_loss(
            inputs[0], target=targets[0], criterion=criterion, reduction=reduction
        )
    else:
        criterion = "hinge" if "hinge" in terms[0] else terms[0]
        loss = reference.accl_discriminator_loss(
            *inputs,
            fake_target=targets[0],
            real_target=targets[1],
            criterion=criterion,
            scale=scale,
            reduction=reduction,
        )
    grad_loss = (torch.rand_like(loss) + 0.5).to(wide(dtype))
    grads = torch.autograd.grad(loss, inputs, grad_loss.double())
    fields = {
        "name": f"scores {name_of(dtype)} {counts} {terms} {reduction}".encode(),
        "dtype": integers(DTYPES.index(dtype)),
        "groups": integers(len(groups)),
        "elementwise": integers(reduction == "none"),
        "loss": doubles(loss),
        "grad_loss": raw(grad_loss),
    }
    for i, (group, grad, target) in enumerate(zip(groups, grads, targets, strict=True)):
        factor = scale / max(group.numel(), 1) if reduction == "mean" else scale
        fields |= {
            f"group{i}.scores": raw(group),
            f"group{i}.count": integers(group.numel()),
            f"group{i}.term": integers(TERMS.index(terms[i])),
            f"group{i}.values": doubles(torch.tensor([target, factor], dtype=torch.float64)),
            f"group{i}.grad": doubles(grad),
        }
    return fields


def score_cases(few: bool) -> Iterator[Fields]:
    seeds = itertools.count()
    reductions = itertools.cycle(SIZE_REDUCTIONS)
    single = itertools.cycle(TERMS[:3])
    pairs = itertools.cycle([["lsgan"] * 2, ["vanilla"] * 2, ["hinge_fake", "hinge_real"]])
    for dtype in DTYPES:
        for n in [900, 4097, 10_000] if few else [*SIZES, 2100, 10_000]:
            yield score_case(dtype, [n], [next(single)], next(reductions), next(seeds))
    for dtype in DTYPES[2:3] if few else DTYPES:
        for reduction in SIZE_REDUCTIONS:
            for _ in range(1 if few else 3):
                counts = [4100, 4100] if reduction == "none" else [4100, 333]
                yield score_case(dtype, counts, next(pairs), reduction, next(seeds))
    if not few:
        yield score_case(torch.float32, [0, 70], ["lsgan"] * 2, "mean", next(seeds))
        yield score_case(torch.float32, [70, 0], ["lsgan"] * 2, "sum", next(seeds))
        yield score_case(torch.float32, [LONG], ["lsgan"], "mean", next(seeds))


# ------------------------------------------------------------------------------------------------
# Pixels


class Pixels:
    """A case that grows by what is asked of it."""

    def __init__(self, dtype: torch.dtype, batch: int, classes: int, pixels: int, seed: int):
        torch.manual_seed(seed)
        self.dtype, self.wide = dtype, wide(dtype)
        self.classes = classes
        self.words = [f"{name_of(dtype)} {batch}x{classes}x{pixels}"]
        self.logits = (torch.randn(batch, classes, pixels) * 3).to(dtype)
        self.fields: Fields = {
            "shape": integers(batch, classes, pixels),
            "dtype": integers(DTYPES.index(dtype)),
        }
        self.labels = self.weight = self.pixel_weight = self.bounds = self.invalid = None
        self.outputs: list[str] = []

    def with_labels(
        self,
        dtype: torch.dtype = torch.uint8,
        *,
        share: float = 0.3,
        ignore_index: int | None = None,
        weighted: bool = False,
        reduction: str = "mean",
        invalid: bool = False,
        pixel_weighted: bool = False,
        smoothing: float = 0.0,
    ) -> Pixels:
        batch, _, pixels = self.logits.shape
        if ignore_index is None:
            ignore_index = 255 if dtype == torch.uint8 else -100 if dtype != torch.bool else 1
        labels = torch.randint(0, max(self.classes, 2), (batch, pixels))
        if dtype != torch.bool:
            labels[torch.rand(batch, pixels) >= share] = ignore_index
            if batch > 1:
                labels[0] = ignore_index  # an image without a label
        if invalid:
            self.invalid = (batch - 1, pixels // 2)
            labels[self.invalid] = self.classes + 3
            self.words.append("invalid label")
        self.labels, self.ignore_index, self.reduction = labels.to(dtype), ignore_index, reduction
        if weighted:
            self.weight = (torch.rand(max(self.classes, 2)) + 0.25).to(self.wide)
            self.weight[0] = 0
            self.fields["weight"] = raw(self.weight)
        self.smoothing = smoothing
        if pixel_weighted:
            self.pixel_weight = torch.rand(batch, pixels).to(self.wide)
            self.pixel_weight[:, ::3] = 0
            self.fields["pixel_weight"] = raw(self.pixel_weight)
        self.words.append(
            f"{name_of(dtype)} labels {share} {reduction} weights {weighted} {pixel_weighted} "
            f"smoothing {smoothing}"
        )
        self.fields |= {
            "labels": raw(self.labels),
            "label_type": integers(LABELS.index(dtype)),
            "ignore_index": integers(ignore_index),
            "ce_reduction": integers(LABEL_REDUCTIONS.index(reduction)),
            "label_smoothing": doubles(torch.tensor(smoothing, dtype=torch.float64)),
        }
        self.outputs.append("ce")
        return self

    def with_bounds(
        self, bounds: Tensor | None = None, *, normalize: str = "area", reduction: str = "mean"
    ) -> Pixels:
        batch, classes, pixels = self.logits.shape
        if bounds is None:  # one side free, the size outside the other bound, or within both
            bounds = torch.tensor([[0.9, 0.95], [-torch.inf, 0.1], [0.0, 1.0], [0.85, torch.inf]])
            bounds = bounds[torch.arange(batch * classes) % 4].reshape(batch, classes, 2) * pixels
        self.bounds = bounds.to(self.wide)
        self.normalize, self.size_reduction = normalize, reduction
        expanded = self.bounds.expand(batch, classes, 2)
        self.words.append(f"bounds {list(bounds.shape)} {normalize} {reduction}")
        self.fields |= {
            "bounds": raw(self.bounds),
            "bounds_stride": integers(*expanded.stride()),
            "normalization": integers(NORMALIZATIONS.index(normalize)),
            "size_reduction": integers(SIZE_REDUCTIONS.index(reduction)),
        }
        self.outputs += ["penalty", "soft_size"]
        return self

    def with_head(self) -> Pixels:
        self.words.append("head")
        self.outputs += [
            name for name in ("probabilities", "penalty", "soft_size") if name not in self.outputs
        ]
        return self

    def finish(self, gradients: str = "all", scale: float = 1.0) -> Fields:
        """Computes what is expected; `gradients` names the outputs that have one."""
        expected, inputs = self.expect()
        wanted = [n for n in self.outputs if gradients == "all" or n in gradients.split()]
        if self.bounds is None and "penalty" in wanted:
            wanted.remove("penalty")  # a constant 0
        incoming = {}
        for name in wanted:
            narrow = self.dtype if name == "probabilities" else self.wide
            incoming[name] = (torch.randn_like(expected[name]) * scale).to(narrow)
            self.fields[f"grad_{name}"] = raw(incoming[name])
        if wanted:
            (grad,) = torch.autograd.grad(
                [expected[n] for n in wanted], inputs, [incoming[n].double() for n in wanted]
            )
        else:
            grad = torch.zeros_like(inputs)
        if self.invalid is not None:
            image, pixel = self.invalid
            if self.reduction == "none":
                expected["ce"] = expected["ce"].clone().detach()
                expected["ce"][self.invalid] = torch.nan
            else:
                expected["ce"] = torch.tensor(torch.nan)
            grad[image, :, pixel] = torch.nan
        for name in self.outputs:
            self.fields[name] = doubles(expected[name])
        self.fields["grad_logits"] = doubles(grad)
        self.fields["name"] = " ".join([*self.words, "gradients", *wanted]).encode()
        self.fields["logits"] = raw(self.logits)
        return self.fields

    def expect(self) -> tuple[dict[str, Tensor], Tensor]:
        # Infinite logits only where they agree with the label or there is none; 1e4 is as good.
        inputs = self.logits.double().nan_to_num(posinf=1e4, neginf=-1e4).requires_grad_()
        expected = {}
        if self.labels is not None:
            labels = self.labels.clone()
            if self.invalid is not None:
                labels[self.invalid] = 0  # its weight is the background's
            expected["ce"] = reference.partial_cross_entropy(
                inputs,
                labels,
                ignore_index=self.ignore_index,
                weight=self.weight,
                pixel_weight=self.pixel_weight,
                label_smoothing=self.smoothing,
                reduction=self.reduction,
            )
        probabilities = inputs.sigmoid() if self.classes == 1 else inputs.softmax(1)
        expected["probabilities"] = probabilities
        expected["soft_size"] = probabilities.sum(-1)
        expected["penalty"] = torch.zeros(())
        if self.bounds is not None:
            expected["penalty"] = reference.size_penalty(
                inputs, self.bounds, normalize=self.normalize, reduction=self.size_reduction
            )
        return expected, inputs


def pixel_cases(few: bool) -> Iterator[Fields]:
    seeds = itertools.count()
    gradients = itertools.cycle(
        ["all", "all", "ce", "probabilities", "penalty soft_size", "ce probabilities", "none"]
    )

    def case(dtype: torch.dtype, batch: int, classes: int, pixels: int) -> Pixels:
        return Pixels(dtype, batch, classes, pixels, next(seeds))

    # The whole head: sizes, classes and dtypes.
    for dtype in DTYPES:
        for classes in (1, 3):
            for n in [1025, 2048] if few else SIZES:
                batch = 2 if n % 2 else 3
                head = case(dtype, batch, classes, n).with_labels().with_bounds().with_head()
                yield head.finish(next(gradients))
    # More classes than registers hold, in several blocks; than one sum in shared memory holds.
    yield case(torch.float32, 2, 40, 600).with_labels().with_bounds().with_head().finish()
    yield case(torch.float32, 2, 40, 600).with_bounds().finish()
    if few:
        return
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

    # Labels: every type, reduction, weights, none at all, all, and an invalid one.
    for dtype, classes in itertools.product(LABELS, (1, 3)):
        if dtype == torch.bool and classes > 1:
            continue
        for n, reduction in zip((130, 4100, 555, 1028), LABEL_REDUCTIONS, strict=True):
            labelled = case(torch.float32, 3, classes, n).with_labels(
                dtype, weighted=n % 4 == 2, reduction=reduction
            )
            yield labelled.finish("ce")
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
    # Weights of pixels and smoothing.
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
    # ignore_index beyond the type, and equal to a class, where it wins.
    yield (
        case(torch.float32, 2, 1, 100).with_labels(torch.uint8, share=1.0, ignore_index=0).finish()
    )
    beyond = case(torch.float32, 1, 3, 100).with_labels(torch.uint8, share=1.0, ignore_index=-1)
    yield beyond.finish()
    yield case(torch.float32, 1, 1, 100).with_labels(torch.bool).with_head().finish()

    # Bounds: every normalisation and reduction, free sides, broadcasting.
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

    # Infinite and huge logits; a large incoming gradient, as a gradient scaler sends.
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


# ------------------------------------------------------------------------------------------------
# Pairs of pixels


def pair_cases(few: bool) -> Iterator[Fields]:
    from pair_cases import pair_cases as cases

    return cases(sys.modules[__name__], few)


def write(path: Path, cases: Iterator[Fields]) -> None:
    with path.open("wb") as file:
        for fields in cases:
            file.write(struct.pack("<Q", len(fields)))
            for name, data in fields.items():
                file.write(struct.pack("<QQ", len(name), len(data)) + name.encode() + data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["scores", "pixels", "pairs"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--few", action="store_true", help="a selection, for slow sanitizers")
    options = parser.parse_args()
    make = {"scores": score_cases, "pixels": pixel_cases, "pairs": pair_cases}[options.kind]
    write(options.out, make(options.few))
