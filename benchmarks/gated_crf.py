"""Times gated_crf_loss against the forms that PyTorch users write, and shows what its cost follows.

    python benchmarks/gated_crf.py --write            # the table of docs/benchmarks.md, minutes
    python benchmarks/gated_crf.py --rounds 3 --only 1x1x256
    python benchmarks/gated_crf.py --scaling plot.png # time against pixels and against the window
    python benchmarks/gated_crf.py --memory           # peak memory of 8 x 512^2

Forward and backward, float32, radius 5, one kernel. One process for each instruction set of the
processor; PyTorch always uses the best. In it the contenders take turns, round by round; what is
reported is the median over rounds of each contender's time over the fused op's time, with the 10 %
to 90 % range. Values and gradients are compared before anything is timed.
Contenders: `windows`, the public form, which unfolds (2r + 1)^2 copies of every channel; the same
under torch.compile; and `loop`, a loop over the offsets of the window.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
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
from accl_ext import reference

RADIUS, SIGMA_SPACE, SIGMA_IMAGE = 5, 6.0, 0.1
KERNELS = ((1.0, SIGMA_SPACE, SIGMA_IMAGE),)
ROWS = ROOT / "docs/measurements/gated_crf_cpu.csv"
CONTENDERS = {
    "windows": "windows take",
    "compile": "windows under torch.compile take",
    "loop": "the loop takes",
}
CASES = {"1x1x256": (1, 1, 256, 256), "4x1x256": (4, 1, 256, 256), "2x4x256": (2, 4, 256, 256)}


def windows(probabilities: Tensor, image: Tensor, radius: int = RADIUS) -> Tensor:
    """The public form: kernels and probabilities of all neighbours at once."""
    batch, classes, height, width = probabilities.shape
    side = 2 * radius + 1

    def unfold(x: Tensor) -> Tensor:
        columns = F.unfold(x, side, padding=radius)
        return columns.view(batch, x.shape[1], side * side, height, width)

    steps = torch.arange(-radius, radius + 1, device=image.device)
    distance = (steps[:, None] ** 2 + steps[None, :] ** 2).flatten().view(1, -1, 1, 1)
    difference = (unfold(image) - image.unsqueeze(2)).square().sum(1)
    kernel = torch.exp(-distance / (2 * SIGMA_SPACE**2) - difference / (2 * SIGMA_IMAGE**2))
    inside = unfold(torch.ones_like(image[:, :1]))[:, 0]
    others = torch.ones(side * side, device=image.device)
    others[side * side // 2] = 0
    kernel = kernel * inside * others.view(1, -1, 1, 1)
    if classes == 1:
        probabilities = torch.cat([1 - probabilities, probabilities], 1)
    agreement = torch.einsum("bcnhw,bchw->bnhw", unfold(probabilities), probabilities)
    return (kernel * (1 - agreement)).sum() / (batch * height * width)


def loop(probabilities: Tensor, image: Tensor) -> Tensor:
    return reference.gated_crf_loss(probabilities, image, radius=RADIUS, kernels=KERNELS)


def fused(probabilities: Tensor, image: Tensor, radius: int = RADIUS) -> Tensor:
    return accl_ext.gated_crf_loss(probabilities, image, radius=radius, kernels=KERNELS)


def inputs(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(shape, generator=generator)
    p = logits.sigmoid() if shape[1] == 1 else logits.softmax(1)
    smooth = torch.rand((shape[0], 1, *shape[2:]), generator=generator) * 0.3
    return p.requires_grad_(), smooth


def run(function: Callable, p: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    loss = function(p, image)
    return loss, torch.autograd.grad(loss, p)[0]


def check(name: str, contenders: dict[str, Callable], p: Tensor, image: Tensor) -> None:
    wide = p.detach().double().requires_grad_()
    wanted = run(loop, wide, image.double())
    for contender, function in contenders.items():
        for ours, oracle in zip(run(function, p, image), wanted, strict=True):
            error = ((ours - oracle).abs().max() / oracle.abs().max()).item()
            if not error < 1e-5:
                raise SystemExit(f"{name}: {contender} is off by {error:.1e}")


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def quantiles(values: list[float]) -> tuple[float, float, float]:
    x = torch.tensor(values, dtype=torch.float64)
    return tuple(x.quantile(q).item() for q in (0.1, 0.5, 0.9))


def measure(name: str, rounds: int, compiled: bool) -> list[dict]:
    p, image = inputs(*CASES[name])
    contenders = {"fused": fused, "windows": windows, "loop": loop}
    if compiled:
        contenders["compile"] = torch.compile(windows)
    check(name, contenders, p, image)
    times: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(rounds + 1):  # the first is a warm-up
        for contender, function in contenders.items():
            repeats = 10 if contender == "fused" else 1
            best = [seconds(lambda f=function: run(f, p, image)) for _ in range(repeats)]
            times[contender].append(sorted(best)[len(best) // 2])
    rows = []
    for contender, own in times.items():
        pairs = zip(own[1:], times["fused"][1:], strict=True)
        low, middle, high = quantiles([theirs / ours for theirs, ours in pairs])
        rows.append(
            {
                "case": name,
                "instruction_set": accl_ext.build_info()["instruction_set"],
                "contender": contender,
                "median_us": round(quantiles(own[1:])[1] * 1e6, 1),
                "over_fused": round(middle, 2),
                "p10": round(low, 2),
                "p90": round(high, 2),
                "machine": machine(),
            }
        )
    return rows


def compare(options: argparse.Namespace) -> None:
    """The table: this instruction set's rows if the environment names one, else those of all."""
    if "ACCL_EXT_ISA" not in os.environ:
        run_each()
        if options.write:
            text = table(read_rows(ROWS), CONTENDERS)
            write_section(ROOT / "docs/benchmarks.md", "gated_crf", text)
        return
    for name in [options.only] if options.only else CASES:
        rows = measure(name, options.rounds, not options.no_compile)
        print(table([{k: str(v) for k, v in row.items()} for row in rows], CONTENDERS))
        if options.write:
            add_rows(ROWS, rows)


def median_seconds(call: Callable, rounds: int) -> float:
    """Of the processor's time, which other work on the machine disturbs less."""
    call()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return quantiles(times)[1]


def scaling(path: Path, rounds: int) -> None:
    """One thread's time against the pixels, up to 4 x 1 x 96^3 with radius 2, and the window."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    torch.set_num_threads(1)
    flat = [(1, 1, n, n) for n in (64, 128, 256, 512, 1024)]
    deep = [(4, 1, n, n, n) for n in (16, 32, 64, 96)]
    curves = {}
    for name, shapes, radius in (("2-D, radius 5", flat, 5), ("3-D, radius 2", deep, 2)):
        points = []
        for shape in shapes:
            p, image = inputs(*shape)
            took = median_seconds(
                lambda p=p, i=image, r=radius: run(lambda a, b: fused(a, b, r), p, i), rounds
            )
            points.append((p.numel(), took))
            each = took / p.numel() * 1e9
            print(f"{name}: {list(shape)}: {took * 1e3:.2f} ms, {each:.1f} ns a pixel")
        curves[name] = points
    p, image = inputs(1, 1, 256, 256)
    window = []
    for radius in (1, 2, 3, 5, 7, 10, 15):
        took = median_seconds(lambda r=radius: run(lambda a, b: fused(a, b, r), p, image), rounds)
        pairs = (2 * radius + 1) ** 2 - 1
        window.append((pairs, took))
        print(
            f"radius {radius}: {took * 1e3:.2f} ms, {took / p.numel() / pairs * 1e12:.0f} ps a pair"
        )
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for name, points in curves.items():
        axes[0].loglog(*zip(*points, strict=True), "o-", label=name)
    axes[0].set(xlabel="pixels", ylabel="forward and backward, s")
    axes[0].legend()
    axes[1].plot(*zip(*window, strict=True), "o-")
    axes[1].set(
        xlabel="neighbours of a pixel (1 x 1 x 256 x 256)", ylabel="forward and backward, s"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=150)


PROBE = """
import sys
sys.path.insert(0, {folder!r})
from gated_crf import fused, inputs, run

def kilobytes(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))

run(fused, *inputs(1, 1, 64, 64))  # what the first call loads
p, image = inputs(8, 1, 512, 512)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak begins anew
before = kilobytes("VmRSS")
run(fused, p, image)
print(kilobytes("VmHWM") - before)
"""


def memory() -> None:
    """How far the peak of a process rises by forward and backward of 8 x 1 x 512 x 512."""
    code = PROBE.format(folder=str(Path(__file__).parent))
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    print(f"peak memory rises by {int(out.stdout) / 1024:.1f} MiB (a map is 8.0 MiB)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--scaling", type=Path)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument(
        "--write", action="store_true", help=f"keep the rows in {ROWS.name} and write the table"
    )
    options = parser.parse_args()
    if "ACCL_EXT_ISA" not in os.environ:
        warn_of_load()
    if options.memory:
        memory()
    elif options.scaling:
        scaling(options.scaling, options.rounds)
    else:
        compare(options)


if __name__ == "__main__":
    main()
