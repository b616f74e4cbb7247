"""Cases of the losses on patch scores for cases.py: what the float64 reference makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from fields import (
    DTYPES,
    LONG,
    MAIN,
    SIZE_REDUCTIONS,
    SIZES,
    Fields,
    doubles,
    integers,
    name_of,
    raw,
    wide,
)

from accl_ext import reference

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
        for n in [900, 4097, 10_000] if few else [*SIZES, 2100, 10_000, MAIN]:
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
