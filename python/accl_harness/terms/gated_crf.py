"""The gated CRF: pixels of like grey value near each other shall get the same label.

No weight is tuned to a data set. An outline costs the term more the longer it is, and a grey-value
difference means more in an image without noise; both are measured, so that one setting serves all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..classes import foreground_maps
from ..errors import UserError
from .term import Batch, Material, Pass, Term

MASKS_MEASURED = 256
"""So many masks give the mean cost of an outline well enough."""
MEASURED = ("sccl_crf", "accl_crf")
"""Methods in which the term is on by default, with a weight by ``crf.cost``."""


@dataclass(frozen=True)
class CRFOptions:
    """The gated CRF: pixels of like grey value near each other shall get the same label."""

    weight: float | None = None
    """The term has this weight, 0 for off. Default: 0, but with sccl_crf and accl_crf as much as
    gives the reference masks cost in an image without edges."""
    cost: float = 0.73
    """With those two and no weight given, the term costs a reference mask so much, on average,
    where the image has no edges."""
    radius: int = 5
    """A pixel's window reaches so many pixels to every side."""
    sigma_space: float = 6.0
    """The tie of two pixels has fallen to 0.6 at this distance in pixels."""
    sigma_image: float | None = None
    """The tie of two pixels has fallen to 0.6 at this difference of grey values, of images in [-1,
    1]; default: twice the median difference of neighbouring pixels of the training images."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Refuse what is no gated CRF.

        Raises:
            UserError: naming the option.
        """
        for name in ("weight", "cost"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"crf.{name}: wanted 0 or more, got {value}")
        if self.radius < 1:
            raise UserError(f"crf.radius: wanted at least 1, got {self.radius}")
        for name in ("sigma_space", "sigma_image"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"crf.{name}: wanted above 0, got {value}")


@dataclass(frozen=True)
class GatedCRFOptions:
    """Gated CRF, whose options are a dataclass of their own."""

    crf: CRFOptions = field(default_factory=CRFOptions)
    """Objective: gated CRF; --crf W is short for --crf.weight W."""

    def check(self) -> None:
        """Refuse values that the term cannot have.

        Raises:
            UserError: naming the option.
        """
        self.crf.check()


@dataclass(frozen=True)
class GatedCRF(Term):
    """Pixels of like grey value near each other shall get the same label."""

    name = "crf"
    options = GatedCRFOptions
    curves = (("crf", "gated CRF", "log"),)
    always = True
    needs = frozenset({"guide"})
    fact = "crf"

    weight: float
    radius: int
    sigma_space: float
    sigma_image: float

    @classmethod
    def weight_of(cls, config) -> float | None:
        """None: by ``crf.cost``."""
        if config.crf.weight is not None:
            return config.crf.weight
        return None if config.method in MEASURED and config.crf.cost > 0 else 0.0

    @classmethod
    def off(cls) -> dict[str, Any]:
        """The weight is one of several options in ``crf``."""
        return {"crf": CRFOptions(weight=0.0)}

    @classmethod
    def asks_masks(cls, config) -> bool:
        """The default weight is measured on them."""
        return cls.weight_of(config) is None

    @classmethod
    def measure(cls, config, material: Material) -> GatedCRF:
        """Grey-value differences from the images, the weight from the masks."""
        options, weight = config.crf, cls.weight_of(config)
        sigma = options.sigma_image or 2 * typical_difference(material.images)
        term = cls(1.0, options.radius, options.sigma_space, sigma)
        if weight is None:
            cost = flat_cost(term, material.masks, material.ops, config.foregrounds)
            weight = options.cost / cost
        return replace(term, weight=weight)

    def told(self, config) -> Any:
        """Weight and unit of grey-value differences."""
        return {"weight": self.weight, "sigma_image": self.sigma_image}

    def counts(self, batch: Batch) -> Tensor:
        """The pixels that were in the frame before the move."""
        if batch.seen is None:
            return batch.labels.new_full((1,), batch.labels.numel(), dtype=torch.float64)
        return batch.seen.sum(dtype=torch.float64).view(1)

    def value(self, passed: Pass) -> Tensor:
        """A mean over these pixels."""
        batch = passed.batch
        return self.energy(passed.step.ops, passed.head.probabilities, batch.guide, batch.seen)

    def energy(self, ops: Any, probabilities: Tensor, images: Tensor, seen: Tensor | None):
        """The mean over the pixels ``seen`` (bool [b, H, W]; None: all), without the weight."""
        return ops.gated_crf_loss(
            probabilities,
            images,
            radius=self.radius,
            kernels=((1.0, self.sigma_space, self.sigma_image),),
            source_mask=seen,
            destination_mask=seen,
        )


def typical_difference(images: Tensor) -> float:
    """Median difference of neighbouring pixels' grey values, where they differ at all.

    Equal neighbours are mostly a black frame, which says nothing of the noise in the picture.

    Raises:
        UserError: no image has two neighbours that differ.
    """
    rows, columns = images.diff(dim=-2).abs().flatten(), images.diff(dim=-1).abs().flatten()
    differences = torch.cat([rows, columns])
    differences = differences[differences > 0]
    if len(differences) == 0:
        raise UserError("crf.sigma_image: no training image has an edge; give a value")
    return differences.median().item()


def flat_cost(term: GatedCRF, masks: Tensor, ops: Any, foregrounds: int = 1) -> float:
    """Mean of the CRF over masks [m, H, W] in an image without edges: the outlines' cost.

    Of several classes the cost of all their outlines together, each counted once: that is what
    the term charges for a prediction, and of two classes it is the binary mask's.

    Raises:
        UserError: the masks have no outline.
    """
    chosen = masks[:: -(-len(masks) // MASKS_MEASURED)]
    maps = foreground_maps(chosen, foregrounds).double().cpu()
    flat = torch.zeros_like(maps[:, :1])
    if foregrounds > 1:
        maps = torch.cat((1 - maps.sum(1, keepdim=True), maps), 1)
    cost = term.energy(ops, maps, flat, None).item()
    if cost == 0:
        raise UserError("crf.weight: the reference masks have no outline; give a weight")
    return cost
