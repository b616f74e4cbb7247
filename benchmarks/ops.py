"""Times the fused ops against plain PyTorch, eager and compiled, and against a copy of the bytes.

    python benchmarks/ops.py --write         # the table of docs/benchmarks.md, some minutes
    python benchmarks/ops.py --rounds 5 --only head-1x256
    ACCL_EXT_ISA=avx2 python benchmarks/ops.py   # one instruction set alone

Forward and backward of each case, float32, 0.65 % of the pixels labelled, the gradient of the
probabilities given to backward. One process for each instruction set of the processor; PyTorch
always uses the best. In it the contenders take turns, round by round; what is reported is the
median over rounds of each contender's time over the fused op's time, with the 10 % to 90 % range.
Values and gradients are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import plain
import torch
from instruction_sets import (
    ROOT,
    add_rows,
    machine,
    read_rows,
    run_each,
    table,
    warn_of_load,
    write_section,
)
from torch import Tensor

import accl_ext

LABELLED = 0.0065
ROWS = ROOT / "docs/measurements/ops_cpu.csv"
CONTENDERS = {
    "eager": "eager takes",
    "compile": "torch.compile takes",
    "copy": "a copy of the least bytes takes",
}


@dataclass
class Case:
    """Contenders of one row: each takes the same inputs and returns outputs and their gradients."""

    name: str
    inputs: tuple[Tensor, ...]
    fused: Callable
    plain: Callable
    output_gradients: tuple[Tensor | None, ...]
    bytes_moved: int
    """The least that forward and backward have to read and write."""


def head_case(name: str, batch: int, *spatial: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, 1, *spatial, generator=generator)
    labels = torch.full((batch, *spatial), 255, dtype=torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < LABELLED] = 1
    pixels = logits[0].numel()
    bounds = torch.tensor([0.1 * pixels, 0.2 * pixels])
    gradient = torch.randn(logits.shape, generator=generator) * 1e-4
    one = torch.ones(())
    return Case(
        name,
        (logits.requires_grad_(), labels, bounds),
        lambda *x: accl_ext.segmentation_head(*x)[:3],
        plain.segmentation_head,
        (gradient, one, one * 0.01),
        22 * logits.numel(),
    )


def score_case(name: str, fused: Callable, baseline: Callable, count: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    scores = tuple(
        torch.randn(1, 1, 30, 30, generator=generator).requires_grad_() for _ in range(count)
    )
    return Case(name, scores, fused, baseline, (torch.ones(()),), 900 * 12 * count)


def partial_case(name: str, batch: int, *spatial: int) -> Case:
    head = head_case(name, batch, *spatial)
    return Case(
        name,
        head.inputs[:2],
        accl_ext.partial_cross_entropy,
        plain.partial_cross_entropy,
        (torch.ones(()),),
        6 * head.inputs[0].numel(),
    )


README = ("head-1x256", "head-16x256", "head-4x96^3", "partial-16x256")
CASES: dict[str, Callable[[str], Case]] = {
    "head-1x256": lambda name: head_case(name, 1, 256, 256),
    "head-16x256": lambda name: head_case(name, 16, 256, 256),
    "head-4x96^3": lambda name: head_case(name, 4, 96, 96, 96),
    "head-4x128^3": lambda name: head_case(name, 4, 128, 128, 128),
    "accl-900": lambda name: score_case(name, accl_ext.accl_loss, plain.accl_loss, 1),
    "discriminator-900": lambda name: score_case(
        name, accl_ext.accl_discriminator_loss, plain.accl_discriminator_loss, 2
    ),
    "partial-16x256": lambda name: partial_case(name, 16, 256, 256),
}


def run(case: Case, function: Callable) -> tuple:
    outputs = function(*case.inputs)
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    leaves = [x for x in case.inputs if x.requires_grad]
    return (*outputs, *torch.autograd.grad(outputs, leaves, case.output_gradients))


def clone_floor(case: Case) -> Callable[[], Tensor]:
    """Copies bytes_moved bytes in all, in pieces of a clone that reads and writes the input."""
    source = case.inputs[0].detach()
    moved = 2 * source.numel() * source.element_size()
    whole, rest = divmod(case.bytes_moved, moved)
    part = source.flatten()[: source.numel() * rest // moved]

    def copy() -> Tensor:
        for _ in range(whole):
            source.clone()
        return part.clone()

    return copy


def check(case: Case, contenders: dict[str, Callable]) -> None:
    wanted = run(case, case.fused)
    for name, function in contenders.items():
        for ours, theirs in zip(wanted, run(case, function), strict=True):
            scale = theirs.detach().abs().max().clamp(min=1e-30)
            error = ((ours - theirs).abs().max() / scale).item()
            # The penalty's gradient carries the rounding of a sum over the image.
            if not error < 1e-3:
                raise SystemExit(f"{case.name}: fused and {name} differ by {error:.1e}")


def seconds(call: Callable, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def measure(case: Case, rounds: int, compiled: bool) -> list[dict]:
    contenders = {"fused": case.fused, "eager": case.plain}
    if compiled:
        contenders["compile"] = torch.compile(case.plain)
    check(case, contenders)
    calls = {name: lambda f=function: run(case, f) for name, function in contenders.items()}
    if case.name.startswith("head"):
        calls["copy"] = clone_floor(case)
    for call in calls.values():
        seconds(call, 3)
    repeats = max(1, int(0.02 / seconds(calls["fused"], 5)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call, repeats))
    return [summary(case, name, times) for name in calls]


def summary(case: Case, name: str, times: dict[str, list[float]]) -> dict:
    own = torch.tensor(times[name], dtype=torch.float64)
    ratio = own / torch.tensor(times["fused"], dtype=torch.float64)
    low, middle, high = torch.quantile(ratio, torch.tensor([0.1, 0.5, 0.9]).double()).tolist()
    return {
        "case": case.name,
        "instruction_set": accl_ext.build_info()["instruction_set"],
        "contender": name,
        "median_us": round(own.median().item() * 1e6, 1),
        "over_fused": round(middle, 2),
        "p10": round(low, 2),
        "p90": round(high, 2),
    }


def write_table() -> None:
    rows = read_rows(ROWS)
    write_section(ROOT / "docs/benchmarks.md", "ops", table(rows, CONTENDERS))
    few = [row for row in rows if row["case"] in README]
    headings = {"eager": "plain PyTorch takes", "compile": "under torch.compile"}
    write_section(ROOT / "README.md", "ops", table(few, headings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=CASES, help="cases, default all")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--write", action="store_true", help=f"keep the rows in {ROWS.name} and write the table"
    )
    arguments = parser.parse_args()
    if "ACCL_EXT_ISA" not in os.environ:
        warn_of_load()
        run_each()
        if arguments.write:
            write_table()
        return
    print(f"{accl_ext.build_info()['instruction_set']}: {machine()}")
    print("| case | contender | median us | times fused | p10 to p90 |\n|---|---|---|---|---|")
    for name in arguments.only or CASES:
        rows = measure(CASES[name](name), arguments.rounds, not arguments.no_compile)
        for row in rows:
            print(
                f"| {row['case']} | {row['contender']} | {row['median_us']} "
                f"| {row['over_fused']} | {row['p10']} to {row['p90']} |",
                flush=True,
            )
        if arguments.write:
            add_rows(ROWS, [{**row, "machine": machine()} for row in rows])


if __name__ == "__main__":
    main()
