"""Fails where an instruction set is clearly slower than the one below it.

    python benchmarks/isa_order.py

One process for each instruction set of the processor; they work in turn, round by round, and count
the time of the processor, which other work on the machine disturbs less than the clock. The least
of the rounds is compared, and a case that looks slow is measured again, twice: it fails if it is
slow each time. The tensors are small enough (under 128 KiB) that the C library takes them from
memory the process holds already: at 2 MiB each call got new pages from the system, which cost up
to twice the kernel's own time and differed from process to process. It takes a few seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from multiprocessing.connection import Connection

import torch
from instruction_sets import available
from torch import Tensor

import accl_ext

MARGIN = 1.25
"""How many times as long as the set below it an instruction set may take."""

ROUNDS = 15

REPEATS = 3
"""How many measurements in a row must call a case slow."""


def head_call(classes: int, labels: torch.dtype, dtype: torch.dtype) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    side = 160 if classes == 1 else 80
    logits = torch.randn(1, classes, side, side, generator=generator).to(dtype).requires_grad_()
    labelled = torch.rand(1, side, side, generator=generator) < 0.01
    marks = torch.where(labelled, 1, 255).to(labels)
    bounds = torch.tensor([2000.0, 4000.0])

    def call() -> tuple[Tensor, ...]:
        outputs = accl_ext.segmentation_head(logits, marks, bounds)[:3]
        return torch.autograd.grad(outputs, logits, [torch.ones_like(x) for x in outputs])

    return call


def crf_call(classes: int) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(1, classes, 64, 64, generator=generator).requires_grad_()
    image = torch.rand(1, 1, 64, 64, generator=generator)
    return lambda: torch.autograd.grad(accl_ext.gated_crf_loss(p, image), p)


def scores_call() -> Callable[[], object]:
    scores = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return lambda: torch.autograd.grad(accl_ext.accl_loss(scores, criterion="vanilla"), scores)


CASES = {
    "head, float32": lambda: head_call(1, torch.uint8, torch.float32),
    "head, float16": lambda: head_call(1, torch.uint8, torch.float16),
    "head, bfloat16": lambda: head_call(1, torch.uint8, torch.bfloat16),
    "head, float64": lambda: head_call(1, torch.uint8, torch.float64),
    "head, int64 labels": lambda: head_call(1, torch.int64, torch.float32),
    "head, 4 classes": lambda: head_call(4, torch.uint8, torch.float32),
    "gated CRF": lambda: crf_call(1),
    "gated CRF, 7 classes": lambda: crf_call(7),
    "scores": scores_call,
}


def work(name: str, pipe: Connection) -> None:
    """Answers the name of a case by the seconds of one call, until None comes."""
    os.environ["ACCL_EXT_ISA"] = name  # read at the first call of a kernel
    torch.set_num_threads(1)
    pipe.send(accl_ext.build_info()["instruction_set"])
    calls = {}
    while (case := pipe.recv()) is not None:
        if case not in calls:
            calls[case] = CASES[case]()
            calls[case]()
        start = time.thread_time()
        calls[case]()
        pipe.send(time.thread_time() - start)


def start(names: tuple[str, ...]) -> dict[str, Connection]:
    """A process for each instruction set, by name."""
    context = multiprocessing.get_context("fork")  # torch is imported once
    pipes = {}
    for name in names:
        pipes[name], theirs = context.Pipe()
        context.Process(target=work, args=(name, theirs), daemon=True).start()
        if (chosen := pipes[name].recv()) != name:
            sys.exit(f"wanted the instruction set {name}, the library chose {chosen}")
    return pipes


def measure(case: str, pipes: dict[str, Connection]) -> list[str]:
    """What is slow in a case, in words; its least seconds are printed."""
    least = dict.fromkeys(pipes, float("inf"))
    for _ in range(ROUNDS):
        for name, pipe in pipes.items():
            pipe.send(case)
            least[name] = min(pipe.recv(), least[name])
    print(f"{case}: " + ", ".join(f"{n} {s * 1e6:.0f} us" for n, s in least.items()))
    return [
        f"{case}: {name} takes {least[name] / least[below]:.2f} times as long as {below}"
        for below, name in pairwise(pipes)
        if not least[name] <= MARGIN * least[below]
    ]


def main() -> None:
    # In a process of its own, because the choice is made once and the workers make theirs.
    with multiprocessing.get_context("fork").Pool(1) as pool:
        names = pool.apply(available)
    pipes = start(names)
    slow: dict[str, list[str]] = {case: [] for case in CASES}
    for _ in range(REPEATS):
        slow = {case: found for case in slow if (found := measure(case, pipes))}
    for pipe in pipes.values():
        pipe.send(None)
    if slow:
        sys.exit("\n".join(line for found in slow.values() for line in found))


if __name__ == "__main__":
    main()
