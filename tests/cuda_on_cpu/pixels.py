"""A case of the losses on pixels: inputs, and what the float64 reference makes of them."""

from __future__ import annotations

import torch
from fields import (
    DTYPES,
    LABEL_REDUCTIONS,
    LABELS,
    NORMALIZATIONS,
    SIZE_REDUCTIONS,
    Fields,
    doubles,
    integers,
    name_of,
    raw,
    wide,
)
from torch import Tensor

from accl_ext import reference


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
