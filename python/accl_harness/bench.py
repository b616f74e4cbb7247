"""``accl bench``: speed and memory of the ops and of a training step, fused against reference."""

from __future__ import annotations

import csv
import io
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from .classes import probabilities
from .config import make_config
from .data.dataset import Dataset
from .errors import CheckFailed, UserError
from .storage import write_text
from .training.loop import Trainer
from .training.ops import load_ops
from .training.runtime import check_device, launch

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Timing:
    """One contender in one row of a table.

    Attributes:
        milliseconds: median over the rounds.
        spread: half the range between the quartiles, in ms.
        ratio: median over the rounds of (first contender's time / this one's).
        kept: bytes that the forward pass keeps for the backward pass, None where not counted.
    """

    milliseconds: float
    spread: float
    ratio: float
    kept: int | None = None


def interleaved(
    contenders: Mapping[str, Callable[[], object]], rounds: int, synchronize: bool = False
) -> dict[str, Timing]:
    """Time the contenders in turn, so that what else the machine does meets all of them.

    Ratios are taken within a round, against the first contender, before their median.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds + 1):
        for name, run in contenders.items():
            if synchronize:
                torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            if synchronize:
                torch.cuda.synchronize()
            if index:  # the first round warms up
                times[name].append(1e3 * (time.perf_counter() - start))
    base = next(iter(times.values()))
    return {
        name: Timing(
            statistics.median(values),
            _spread(values),
            statistics.median(b / v for b, v in zip(base, values, strict=True)),
        )
        for name, values in times.items()
    }


def kept_for_backward(forward: Callable[[], object]) -> int:
    """Bytes of all distinct storages that ``forward`` saves for its backward pass."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storages.values())


def bench(
    *,
    size: int = 256,
    batch_size: int = 1,
    width: int = 16,
    rounds: int = 15,
    device: str = "cpu",
    classes: int | None = None,
    out: str | None = None,
) -> list[dict[str, object]]:
    """Print the tables of ops and step; write them to the CSV file ``out`` as well.

    Every fused result is compared with the reference's before it is timed. With ``classes`` the
    networks give a logit for each, without it one.

    Raises:
        CheckFailed: the results differ.
        UserError: the fused ops are not built, an option below 1, or CUDA is asked for and absent.
    """
    options = {"size": size, "batch_size": batch_size, "width": width, "rounds": rounds}
    for name, value in options.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if classes is not None and classes < 2:
        raise UserError(f"classes must be at least 2, the background counted, got {classes}")
    check_device("device", device)
    backends = {"reference": load_ops("reference"), "fused": load_ops("fused")}
    place = torch.device(device)
    rows = []
    for name, make in _op_runs(size, batch_size, classes, place).items():
        runs = {backend: make(ops) for backend, ops in backends.items()}
        _assert_equal(name, [run() for run in runs.values()])
        timings = interleaved(runs, rounds, synchronize=device == "cuda")
        rows += [_row(name, b, t, kept_for_backward(runs[b].forward)) for b, t in timings.items()]
    steps = {
        backend: _step_run(ops, size, batch_size, width, classes, device)
        for backend, ops in backends.items()
    }
    timings = interleaved(steps, rounds, synchronize=device == "cuda")
    rows += [_row(f"training step, width {width}", b, t, None) for b, t in timings.items()]
    several = "" if classes is None else f"{classes} classes, "
    _show(rows, f"{batch_size} x {size} x {size}, {several}float32, {device}")
    if out is not None:
        _write(Path(out), rows)
    return rows


class _OpRun:
    """Forward and backward of an op; called, it returns outputs and gradients."""

    def __init__(self, function: Callable[..., Tensor], inputs: list[Tensor]):
        self.function, self.inputs = function, inputs

    def forward(self) -> Tensor:
        return self.function(*self.inputs)

    def __call__(self) -> list[Tensor]:
        result = self.forward()
        return [result.detach(), *torch.autograd.grad(result, self.inputs)]


def _op_runs(
    size: int, batch: int, classes: int | None, device: torch.device
) -> dict[str, Callable[..., _OpRun]]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device).requires_grad_()

    logits, patches = normal(batch, classes or 1, size, size), max(size // 8 - 2, 1)
    fake, real = (normal(batch, 1, patches, patches) for _ in range(2))
    labels = torch.full((batch, size, size), 255, dtype=torch.uint8, device=device)
    for index in range(1, classes or 2):
        column = size // 2 + 9 * (index - 1)
        labels[:, size // 2 : size // 2 + 9, column : column + 9] = index
    bounds = torch.tensor([10.0, 100.0], device=device)

    image = torch.rand(batch, 1, size, size, generator=generator).to(device)

    def head(ops, z):
        result = ops.segmentation_head(z, labels, bounds)
        return result.partial_ce + 0.01 * result.size_penalty + result.probabilities.mean()

    return {
        "accl_loss": lambda ops: _OpRun(ops.accl_loss, [fake]),
        "accl_discriminator_loss": lambda ops: _OpRun(ops.accl_discriminator_loss, [fake, real]),
        "partial_cross_entropy": lambda ops: _OpRun(
            lambda z: ops.partial_cross_entropy(z, labels), [logits]
        ),
        "size_penalty": lambda ops: _OpRun(lambda z: ops.size_penalty(z, bounds), [logits]),
        "segmentation_head": lambda ops: _OpRun(lambda z: head(ops, z), [logits]),
        "gated_crf_loss": lambda ops: _OpRun(
            lambda p: ops.gated_crf_loss(p, image),
            [probabilities(logits.detach()).requires_grad_()],
        ),
    }


def _step_run(
    ops, size: int, batch: int, width: int, classes: int | None, device: str
) -> Callable[[], None]:
    """A step of unpaired ACCL on random images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 1, size, size, generator=generator) * 2 - 1
    edges = 0.8 + 0.2 * torch.arange((classes or 2) - 1) / ((classes or 2) - 1)
    masks = torch.bucketize(images.squeeze(1), edges).to(torch.uint8)
    weak = torch.where(masks > 0, masks, 255).to(torch.uint8)
    names = [str(i) for i in range(batch)]
    dataset = Dataset(images=images, names=names, masks=masks, weak_labels=weak, classes=classes)
    config = make_config(
        method="unpaired_accl",
        size=size,
        width=width,
        classes=classes,
        batch_size=batch,
        accelerator=device,
    )
    trainer = Trainer(config, dataset, None, ops, launch(config))
    (example,) = trainer.data.epoch(1)
    return lambda: trainer.step(example)


def _assert_equal(name: str, results: list[list[Tensor]]) -> None:
    for expected, found in zip(*results, strict=True):
        scale = max(expected.abs().max().item(), 1e-30)
        deviation = (expected - found).abs().max().item() / scale
        if not deviation <= TOLERANCE:
            raise CheckFailed(f"{name}: fused deviates from the reference by {deviation:.1e}")


def _row(name: str, backend: str, timing: Timing, kept: int | None) -> dict[str, object]:
    return {
        "what": name,
        "backend": backend,
        "milliseconds": round(timing.milliseconds, 4),
        "spread": round(timing.spread, 4),
        "times_faster": round(timing.ratio, 3),
        "kept_kib": None if kept is None else round(kept / 1024, 1),
    }


def _spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2


def _show(rows: list[dict[str, object]], title: str) -> None:
    table = Table(title=f"forward + backward: {title}", box=box.SIMPLE, padding=(0, 1, 0, 0))
    headings = ("", "backend", "ms", "+-", "times faster", "kept KiB")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console = Console()
    console.print(table)
    load = os.getloadavg()[0]
    console.print(
        f"{torch.get_num_threads()} threads on {os.cpu_count()} cores; load average {load:.1f}: "
        "times mean little beside other work"
    )


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
