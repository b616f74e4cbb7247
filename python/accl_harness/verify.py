"""``accl verify``: the fused ops against the reference, op by op and in two trainings side by side.

In float64 every op's value, gradient and second derivative, and the losses, gradients and weights
of two trainings in lockstep. Float32 is judged on the first step's loss and gradients alone: a
change of 1e-7 in the loss moves weights by 7e-4 within 20 steps of Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import get_args

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from .config import TrainConfig
from .data.dataset import Dataset
from .data.phantom import generate
from .data.weak import weaken
from .errors import CheckFailed, UserError
from .terms.accl import CriterionName
from .training.loop import Trainer
from .training.ops import load_ops
from .training.runtime import check_device, launch

OP_TOLERANCE = 1e-10
LOCKSTEP_TOLERANCE = 1e-8
FLOAT32_TOLERANCE = 1e-4


@dataclass
class Case:
    """One call of an op.

    Attributes:
        name: the op and its options.
        inputs: the differentiable inputs.
        call: (ops, *inputs) to the outputs that are compared.
    """

    name: str
    inputs: list[Tensor]
    call: Callable[..., list[Tensor]]


@dataclass
class Deviation:
    """Largest relative deviations of one row of the table; None where nothing is compared."""

    name: str
    tolerance: float
    values: dict[str, float]

    @property
    def passed(self) -> bool:
        # A NaN compares as False and so fails.
        """Whether nothing deviates by more than the tolerance."""
        return all(value <= self.tolerance for value in self.values.values())


def verify(steps: int = 20, device: str = "cpu") -> list[Deviation]:
    """Compare, print the table, and raise if anything deviates.

    Args:
        steps: of the two trainings.
        device: ``cpu`` or ``cuda``.

    Raises:
        CheckFailed: a deviation over its tolerance; the table is printed before.
        UserError: the fused ops are not built, no step, or CUDA is asked for and absent.
    """
    if steps < 1:
        raise UserError(f"steps must be at least 1, got {steps}")
    check_device("device", device)
    reference, fused = load_ops("reference"), load_ops("fused")
    ops = [compare_op(case, fused, reference) for case in op_cases(torch.device(device))]
    trainings = [
        lockstep(count, precision, device, fused, reference, classes)
        for classes in (None, 3)
        for count, precision in ((steps, "64"), (1, "32"))
    ]
    _show(ops, trainings, device)
    rows = ops + trainings
    failed = [row.name for row in rows if not row.passed]
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(rows)} over tolerance: {', '.join(failed)}")
    return rows


def op_cases(device: torch.device) -> Iterator[Case]:
    """Every op with its options, on random float64 inputs."""
    drawn = _Drawn(device)
    yield from _score_cases(drawn)
    for classes in (1, 3):
        yield from _pixel_cases(drawn, classes)
        yield from _pair_cases(drawn, classes)


class _Drawn:
    """Random inputs on a device, the same in every call of the command."""

    def __init__(self, device: torch.device):
        self.device = device
        self._generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        values = 3 * torch.randn(*shape, generator=self._generator, dtype=torch.float64)
        return values.to(self.device).requires_grad_()

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self._generator).to(self.device)

    def labels(self, classes: int, *shape: int) -> Tensor:
        drawn = torch.randint(classes + 1, shape, generator=self._generator)
        return torch.where(drawn == classes, 255, drawn).to(self.device, torch.uint8)


def _score_cases(drawn: _Drawn) -> Iterator[Case]:
    for criterion in get_args(CriterionName):
        yield Case(
            f"accl_loss {criterion}",
            [drawn.normal(2, 1, 30, 30)],
            lambda ops, d, c=criterion: [ops.accl_loss(d, criterion=c)],
        )
        yield Case(
            f"accl_discriminator_loss {criterion}",
            [drawn.normal(2, 1, 30, 30), drawn.normal(3, 1, 14, 14)],
            lambda ops, f, r, c=criterion: [
                ops.accl_discriminator_loss(f, r, criterion=c, scale=0.5)
            ],
        )


def _pixel_cases(drawn: _Drawn, classes: int) -> Iterator[Case]:
    shape, codes = (2, classes, 19, 23), max(classes, 2)
    weak = drawn.labels(codes, 2, 19, 23)
    numbers = {"dtype": torch.float64, "device": drawn.device}
    weight = torch.linspace(0.5, 2, codes, **numbers)
    inside = 19 * 23 / classes
    bounds = torch.tensor([[0.1 * inside, 0.2 * inside]], **numbers)
    for reduction in ("mean", "image_mean", "sum", "none"):
        yield Case(
            f"partial_cross_entropy {reduction} C={classes}",
            [drawn.normal(*shape)],
            lambda ops, z, r=reduction: [
                ops.partial_cross_entropy(z, weak, weight=weight, reduction=r)
            ],
        )
    for normalize in ("area", "none", "area2"):
        yield Case(
            f"size_penalty {normalize} C={classes}",
            [drawn.normal(*shape)],
            lambda ops, z, n=normalize: [ops.size_penalty(z, bounds, normalize=n)],
        )
    for reduction in ("mean", "sum", "none"):
        yield Case(
            f"partial_overlap_loss {reduction} C={classes}",
            [drawn.normal(*shape)],
            lambda ops, z, r=reduction: [
                ops.partial_overlap_loss(z, weak, weight=weight, alpha=0.3, reduction=r)
            ],
        )
    yield Case(
        f"segmentation_head C={classes}",
        [drawn.normal(*shape)],
        lambda ops, z: list(ops.segmentation_head(z, weak, bounds, weight=weight, overlap={})),
    )


def _pair_cases(drawn: _Drawn, classes: int) -> Iterator[Case]:
    image, source, destination = (drawn.uniform(2, n, 19, 23) for n in (2, 1, 1))
    options = {
        "radius": 3,
        "kernels": ((1.0, 3.0, 0.2), (0.5, 2.0, None)),
        "source_mask": source < 0.7,
        "destination_mask": destination < 0.7,
    }
    for reduction in ("mean", "sum", "none"):
        yield Case(
            f"gated_crf_loss {reduction} C={classes}",
            [drawn.normal(2, classes, 19, 23).sigmoid().detach().requires_grad_()],
            lambda ops, p, r=reduction: [ops.gated_crf_loss(p, image, reduction=r, **options)],
        )


def compare_op(case: Case, fused: ModuleType, reference: ModuleType) -> Deviation:
    """Value, gradient and second derivative (along one direction) of an op on both backends."""
    results = [_derivatives(case, ops) for ops in (fused, reference)]
    names = ("value", "gradient", "second")
    deviations = {
        name: _deviation(ours, theirs) for name, ours, theirs in zip(names, *results, strict=True)
    }
    return Deviation(case.name, OP_TOLERANCE, deviations)


def _derivatives(case: Case, ops: ModuleType) -> tuple[list[Tensor], ...]:
    """Outputs; gradient of a random combination of them; its product with a random direction."""
    outputs = case.call(ops, *case.inputs)
    weights, directions = _random_like(outputs, 1), _random_like(case.inputs, 2)
    total = sum((w * y).sum() for w, y in zip(weights, outputs, strict=True))
    gradients = torch.autograd.grad(total, case.inputs, create_graph=True)
    along = sum((g * v).sum() for g, v in zip(gradients, directions, strict=True))
    if not along.requires_grad:
        return outputs, gradients, [torch.zeros_like(x) for x in case.inputs]
    second = torch.autograd.grad(along, case.inputs, allow_unused=True)
    second = [
        torch.zeros_like(x) if h is None else h for x, h in zip(case.inputs, second, strict=True)
    ]
    return outputs, gradients, second


def lockstep(
    steps: int,
    precision: str,
    device: str,
    fused: ModuleType,
    reference: ModuleType,
    classes: int | None = None,
) -> Deviation:
    """Two trainings with all terms on, one on each backend, from the same weights.

    In float64 the largest deviations of loss, gradients and weights over all steps; in float32
    those of loss and gradients.
    """
    first, second = (_trainer(ops, precision, device, classes) for ops in (fused, reference))
    largest = {"loss": 0.0, "gradient": 0.0, "weights": 0.0}
    done, epoch = 0, 0
    while done < steps:
        epoch += 1
        for pair in zip(first.data.epoch(epoch), second.data.epoch(epoch), strict=True):
            if done == steps:
                break
            for trainer, batch in zip((first, second), pair, strict=True):
                torch.manual_seed(done)
                trainer.step.forget()
                trainer.step(batch)
            for name, value in _step_deviations(first, second).items():
                # max() would pass over a NaN.
                largest[name] = value if not value <= largest[name] else largest[name]
            done += 1
    several = "" if classes is None else f" C={classes}"
    if precision == "32":
        del largest["weights"]
        return Deviation(f"first training step, float32{several}", FLOAT32_TOLERANCE, largest)
    return Deviation(f"{steps} training steps, float64{several}", LOCKSTEP_TOLERANCE, largest)


def _step_deviations(first, second) -> dict[str, float]:
    networks = [(t.state.generator, t.state.discriminator) for t in (first, second)]
    gradients, weights = (
        [[torch.cat([get(p).flatten() for p in n.parameters()]) for n in pair] for pair in networks]
        for get in (lambda p: p.grad, lambda p: p.detach())
    )
    losses = [[trainer.step.sums[:5]] for trainer in (first, second)]
    return {
        "loss": _deviation(*losses),
        "gradient": _deviation(*gradients),
        "weights": _deviation(*weights),
    }


def _trainer(ops: ModuleType, precision: str, device: str, classes: int | None):
    images, masks = generate(4, size=64)
    if classes is not None:  # what lies right of the middle is a class of its own
        masks = masks + masks * (np.arange(64) >= 32)
    weak = weaken(list(masks), classes=classes)
    dataset = Dataset(
        images=torch.from_numpy(images).unsqueeze(1).float() / 127.5 - 1,
        names=[f"phantom_{i}" for i in range(len(images))],
        masks=torch.from_numpy(masks),
        weak_labels=torch.stack([torch.from_numpy(label) for label in weak]),
        classes=classes,
    )
    config = TrainConfig(
        method="accl_crf",
        size_weight=0.01,
        size=64,
        width=4,
        batch_size=2,
        prior=0.1,
        classes=classes,
        accelerator=device,
        precision=precision,
    )
    return Trainer(config, dataset, None, ops, launch(config))


def _random_like(tensors, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(t.shape, generator=generator, dtype=t.dtype).to(t.device) for t in tensors]


def _deviation(ours, theirs) -> float:
    """Largest difference, relative to the largest magnitude of the same tensor."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        scale = max(b.detach().abs().max().item(), 1e-30)
        value = (a.detach() - b.detach()).abs().max().item() / scale
        worst = value if not value <= worst else worst
    return worst


def _show(ops: list[Deviation], trainings: list[Deviation], device: str) -> None:
    for rows, title in ((ops, "ops in float64"), (trainings, "trainings")):
        table = Table(
            title=f"fused against reference on {device}: {title}, largest relative deviations",
            box=box.SIMPLE,
            padding=(0, 1, 0, 0),
        )
        table.add_column("", no_wrap=True)
        for column in (*rows[0].values, "limit", "result"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            values = [row.values.get(name) for name in rows[0].values]
            cells = ["" if value is None else f"{value:.1e}" for value in values]
            verdict = "ok" if row.passed else "[bold red]FAILED[/]"
            table.add_row(row.name, *cells, f"{row.tolerance:.0e}", verdict)
        Console().print(table)
