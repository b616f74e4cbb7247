"""Times cross-entropy and overlap in one head against MONAI's Dice loss with a mask, and itself.

    python benchmarks/overlap.py                 # some minutes
    python benchmarks/overlap.py --rounds 5 --no-compile

Forward and backward, float32, 0.65 % of the pixels labelled. ``monai`` is ``MaskedLoss(DiceLoss)``
and torch's cross-entropy over the labelled pixels, which is ``DiceCELoss`` with a mask where its
sigmoid of masked logits is right; ``head`` is the fused head without the overlap. The contenders
take turns in one process and in its own processor time; reported is the median over rounds of each
contender's time over the fused op's, with the 10 % to 90 % range. Values and gradients are compared
first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, MaskedLoss
from ops import LABELLED, machine
from torch import Tensor

import accl_ext

CASES = {"16x1x256^2": (16, 1, 256, 256), "2x4x96^3": (2, 4, 96, 96, 96)}
SMOOTH = 1e-5  # MONAI's default


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    labels = torch.full((shape[0], *shape[2:]), 255, dtype=torch.uint8)
    marked = torch.rand(labels.shape, generator=generator) < LABELLED
    code = torch.randint(max(shape[1], 2), labels.shape, generator=generator, dtype=torch.uint8)
    return logits.requires_grad_(), torch.where(marked, code, labels)


def fused(logits: Tensor, labels: Tensor) -> Tensor:
    overlap = {"absent": "keep", "smooth_numerator": SMOOTH / 2, "smooth_denominator": SMOOTH / 2}
    out = accl_ext.segmentation_head(logits, labels, overlap=overlap)
    return out.partial_ce + out.overlap


def head(logits: Tensor, labels: Tensor) -> Tensor:
    return accl_ext.segmentation_head(logits, labels).partial_ce


def monai(logits: Tensor, labels: Tensor) -> Tensor:
    mask = (labels != 255).unsqueeze(1)
    known = torch.where(mask, labels.unsqueeze(1), 0)
    dice = MaskedLoss(DiceLoss, smooth_nr=SMOOTH, smooth_dr=SMOOTH)
    if logits.shape[1] == 1:
        target = known.to(logits.dtype)
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return dice(logits.sigmoid(), target, mask) + (each * mask).sum() / mask.sum()
    target = F.one_hot(known[:, 0].long(), logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    ce = F.cross_entropy(logits, labels.long(), ignore_index=255)
    return dice(logits.softmax(1), target, mask) + ce


def run(function: Callable, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    loss = function(logits, labels)
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


def check(case: str, contenders: dict[str, Callable], given: tuple[Tensor, Tensor]) -> None:
    wanted = run(fused, *given)
    for name, function in contenders.items():
        if name in ("fused", "head"):
            continue
        for ours, theirs in zip(wanted, run(function, *given), strict=True):
            error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
            if not error < 1e-4:
                raise SystemExit(f"{case}: fused and {name} differ by {error:.1e}")


def measure(case: str, rounds: int, compiled: bool) -> None:
    given = inputs(CASES[case])
    contenders = {"fused": fused, "head": head, "monai": monai}
    if compiled:
        contenders["monai compiled"] = torch.compile(monai)
    check(case, contenders, given)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, function in contenders.items():
            start = time.process_time()
            run(function, *given)
            times[name].append(time.process_time() - start)
    own = torch.tensor(times["fused"], dtype=torch.float64)
    for name, taken in times.items():
        ratio = torch.tensor(taken, dtype=torch.float64) / own
        low, middle, high = torch.quantile(ratio, torch.tensor([0.1, 0.5, 0.9]).double()).tolist()
        median = sorted(taken)[rounds // 2] * 1e3
        print(f"| {case} | {name} | {median:.2f} | {middle:.2f} | {low:.2f} to {high:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--only", nargs="+", choices=CASES, help="cases, default all")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    print(machine())
    print("| case | contender | CPU ms | times fused | p10 to p90 |\n|---|---|---|---|---|")
    for case in arguments.only or CASES:
        measure(case, arguments.rounds, not arguments.no_compile)


if __name__ == "__main__":
    main()
