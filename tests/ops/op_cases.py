"""One small call of every op with every option that changes its formula, for the tests that hold
for all: derivatives, memory, determinism, tracing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType

import torch
from torch import Tensor

import accl_ext

from .oracle import as_tuple, make_labels, make_logits, make_probabilities


@dataclass(frozen=True)
class Case:
    """``run(api, *inputs())`` calls one op; inputs are its differentiable tensors."""

    id: str
    op: str
    inputs: Callable[[torch.dtype, tuple[int, ...]], tuple[Tensor, ...]]
    arguments: Callable[..., tuple]  # spatial -> the other positional arguments
    options: dict  # a function among them makes its value from the first input

    def make(
        self, dtype: torch.dtype = torch.float64, spatial: tuple[int, ...] = (3, 3)
    ) -> tuple[list[Tensor], Callable]:
        """Leaves, and function(api, *leaves) -> tuple of outputs."""
        leaves = [x.requires_grad_() for x in self.inputs(dtype, spatial)]
        others = self.arguments(spatial)
        return leaves, lambda api, *inputs: self.call(api, inputs, others)

    def call(self, api, inputs, others, **changes) -> tuple[Tensor, ...]:
        options = {
            name: value(inputs[0]) if isinstance(value, FunctionType) else value
            for name, value in {**self.options, **changes}.items()
        }
        return as_tuple(getattr(api, self.op)(*inputs, *others, **options))


def _score_cases():
    for criterion in ("lsgan", "vanilla", "hinge"):
        for reduction in ("mean", "sum", "none"):
            options = {"criterion": criterion, "reduction": reduction}
            yield Case(
                f"accl_loss-{criterion}-{reduction}",
                "accl_loss",
                lambda dtype, spatial: (make_logits(2, 1, spatial, dtype),),
                lambda spatial: (),
                {"target": 0.9, **options},
            )
            yield Case(
                f"discriminator-{criterion}-{reduction}",
                "accl_discriminator_loss",
                lambda dtype, spatial: (
                    make_logits(2, 1, spatial, dtype),
                    make_logits(2, 1, spatial, dtype),
                ),
                lambda spatial: (),
                {"fake_target": 0.1, "real_target": 0.9, "scale": 0.5, **options},
            )


BATCH = 3


def _pixel_inputs(classes: int):
    return lambda dtype, spatial: (make_logits(BATCH, classes, spatial, dtype),)


def size_bounds(classes: int, pixels: int) -> Tensor:
    """Image 0 lies below its bounds, image 1 above, image 2 inside or has no bound."""
    bounds = torch.tensor([[0.96, 0.99], [0.001, 0.01], [0.001, 0.999]]) * pixels
    bounds = bounds.unsqueeze(1).repeat(1, classes, 1)
    bounds[2, 0] = torch.tensor([float("-inf"), float("nan")])
    return bounds


def pixel_weight(logits: Tensor) -> Tensor:
    """[B, *S] from 0 to 2, and the first pixels of each image 0."""
    shape = [logits.shape[0], *logits.shape[2:]]
    weight = torch.linspace(0, 2, math.prod(shape), device=logits.device).reshape(shape)
    return weight * (weight != weight.flatten(1)[:, :1].reshape(-1, *[1] * (len(shape) - 1)))


def _pixels(spatial: tuple[int, ...]) -> int:
    return int(torch.Size(spatial).numel())


def _pixel_cases():
    for classes in (1, 3):
        weight = torch.tensor([0.5, 2.0, 1.25])[: max(classes, 2)]
        for reduction in ("mean", "image_mean", "sum", "none"):
            for name, options in (
                ("plain", {}),
                ("weighted", {"weight": weight}),
                ("pixel_weighted", {"pixel_weight": pixel_weight}),
                ("smoothed", {"label_smoothing": 0.3}),
                (
                    "all",
                    {"weight": weight, "pixel_weight": pixel_weight, "label_smoothing": 0.3},
                ),
            ):
                yield Case(
                    f"partial_ce-C{classes}-{reduction}-{name}",
                    "partial_cross_entropy",
                    _pixel_inputs(classes),
                    lambda spatial, c=classes: (make_labels(BATCH, c, spatial),),
                    {"reduction": reduction, **options},
                )
        for normalize in ("area", "none", "area2"):
            for reduction in ("mean", "sum", "none"):
                yield Case(
                    f"size_penalty-C{classes}-{normalize}-{reduction}",
                    "size_penalty",
                    _pixel_inputs(classes),
                    lambda spatial, c=classes: (size_bounds(c, _pixels(spatial)),),
                    {"normalize": normalize, "reduction": reduction},
                )
        more = {"pixel_weight": pixel_weight, "label_smoothing": 0.3}
        for name, bounded, options in (
            ("bounds", True, {"weight": weight}),
            ("no_bounds", False, {}),
            ("all", True, {"weight": weight, **more}),
            ("barrier", True, {"size_form": "log_barrier", "size_t": 2.0}),
        ):
            yield Case(
                f"head-C{classes}-{name}",
                "segmentation_head",
                _pixel_inputs(classes),
                lambda spatial, c=classes, bounded=bounded: (
                    make_labels(BATCH, c, spatial),
                    size_bounds(c, _pixels(spatial)) if bounded else None,
                ),
                options,
            )


def barrier_bounds(classes: int, pixels: int) -> Tensor:
    """Those above for class 0, wide ones for the others: where all classes of an image have one
    slope, softmax leaves nothing of it but rounding."""
    bounds = size_bounds(classes, pixels)
    bounds[:, 1:] = torch.tensor([0.001, 0.999]) * pixels
    return bounds


def _barrier_cases():
    for classes in (1, 3):
        for normalize, t in (("area", 5.0), ("none", 0.3), ("area2", 4.0)):
            for reduction in ("mean", "none"):
                yield Case(
                    f"log_barrier-C{classes}-{normalize}-{reduction}",
                    "size_penalty",
                    _pixel_inputs(classes),
                    lambda spatial, c=classes: (barrier_bounds(c, _pixels(spatial)),),
                    {
                        "form": "log_barrier",
                        "t": t,
                        "normalize": normalize,
                        "reduction": reduction,
                    },
                )


# Every option of the overlap that changes its formula.
OVERLAPS = {
    "plain": {},
    "tversky": {"alpha": 0.3, "beta": 0.8, "smooth_numerator": 0.4, "smooth_denominator": 0.7},
    "keep": {"absent": "keep", "smooth_numerator": 0.1, "smooth_denominator": 0.1},
    "jaccard": {"alpha": 1.0, "beta": 1.0, "batch": True},
    "squared": {"squared": True, "include_background": True},
    "squared_batch": {"squared": True, "include_background": False, "batch": True},
}


def _overlap_cases():
    for classes in (1, 3):
        weight = torch.tensor([0.5, 2.0, 1.25])[: max(classes, 2)]
        arguments = lambda spatial, c=classes: (make_labels(BATCH, c, spatial),)  # noqa: E731
        for reduction in ("mean", "sum", "none"):
            for name, options in OVERLAPS.items():
                options = {"reduction": reduction, **options}
                if name.startswith("squared"):
                    options |= {"weight": weight, "pixel_weight": pixel_weight}
                yield Case(
                    f"overlap-C{classes}-{reduction}-{name}",
                    "partial_overlap_loss",
                    _pixel_inputs(classes),
                    arguments,
                    options,
                )
        for name, overlap, options in (
            ("overlap", {}, {}),
            ("overlap_smoothed", {"reduction": "none"}, {"label_smoothing": 0.3}),
            (
                "overlap_all",
                {**OVERLAPS["squared"], "weight": weight},
                {"weight": weight, "pixel_weight": pixel_weight},
            ),
        ):
            yield Case(
                f"head-C{classes}-{name}",
                "segmentation_head",
                _pixel_inputs(classes),
                lambda spatial, c=classes: (
                    make_labels(BATCH, c, spatial),
                    size_bounds(c, _pixels(spatial)),
                ),
                {"overlap": overlap, **options},
            )


class PairCase(Case):
    """gated_crf_loss: its other arguments are the image and the two masks, or None."""

    def call(self, api, inputs, others, **changes) -> tuple[Tensor, ...]:
        image, source, destination = others
        masks = {"source_mask": source, "destination_mask": destination}
        return super().call(api, inputs, (image,), **{**masks, **changes})


def make_pairs(spatial: tuple[int, ...], channels: int, masked: bool) -> tuple[Tensor | None, ...]:
    """An image and two masks that differ, or None."""
    image = torch.rand(BATCH, channels, *spatial)
    masks = [torch.rand(BATCH, *spatial) < 0.7 if masked else None for _ in range(2)]
    return image, *masks


def _pair_cases():
    for classes in (1, 3):
        for reduction in ("mean", "sum", "none"):
            for name, masked in (("plain", False), ("masked", True)):
                options = {"radius": 2, "kernels": ((0.5, 2.0, 0.3),)}
                if masked:
                    options = {"radius": 1, "kernels": ((0.5, 2.0, 0.3), (0.1, 1.0, None))}
                yield PairCase(
                    f"gated_crf-C{classes}-{reduction}-{name}",
                    "gated_crf_loss",
                    lambda dtype, spatial, c=classes: (
                        make_probabilities(BATCH, c, spatial, dtype),
                    ),
                    lambda spatial, m=masked: make_pairs(spatial, 2 if m else 1, m),
                    {"reduction": reduction, **options},
                )


CASES = [*_score_cases(), *_pixel_cases(), *_barrier_cases(), *_overlap_cases(), *_pair_cases()]
# One of each op, for what does not depend on its options.
FEW = [
    case
    for case in CASES
    if case.id
    in (
        "accl_loss-lsgan-mean",
        "accl_loss-vanilla-none",
        "discriminator-vanilla-mean",
        "discriminator-lsgan-none",
        "partial_ce-C1-mean-plain",
        "partial_ce-C3-image_mean-weighted",
        "partial_ce-C1-none-weighted",
        "partial_ce-C1-mean-all",
        "partial_ce-C3-none-all",
        "size_penalty-C1-area-mean",
        "size_penalty-C3-none-none",
        "log_barrier-C1-area-mean",
        "log_barrier-C3-none-none",
        "head-C1-bounds",
        "head-C3-bounds",
        "head-C1-no_bounds",
        "gated_crf-C1-mean-plain",
        "gated_crf-C3-mean-masked",
        "gated_crf-C1-none-masked",
        "head-C3-all",
        "overlap-C1-mean-plain",
        "overlap-C3-none-tversky",
        "overlap-C1-mean-squared",
        "overlap-C3-mean-squared_batch",
        "head-C1-overlap",
        "head-C3-overlap_all",
    )
]


def cases(which: list[Case]) -> dict:
    """Arguments of pytest.mark.parametrize."""
    return {"argnames": "case", "argvalues": which, "ids": [case.id for case in which]}


def outputs_and_gradients(
    case: Case, dtype: torch.dtype = torch.float32, spatial: tuple[int, ...] = (33, 31)
) -> list[Tensor]:
    """What a fused op returns and the gradients of its inputs, for random incoming gradients."""
    leaves, run = case.make(dtype, spatial)
    outputs = run(accl_ext, *leaves)
    gradients = torch.autograd.grad(outputs, leaves, [torch.randn_like(x) for x in outputs])
    return [x.detach() for x in (*outputs, *gradients)]
