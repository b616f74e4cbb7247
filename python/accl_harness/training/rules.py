"""What the training images and the reference masks say of a data set: the terms' own numbers.

No weight of these terms is tuned to a data set. An object's outline costs the gated CRF more the
longer it is, and a grey-value difference means more in an image without noise; both are measured
here, so that one setting serves all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..classes import by_class, each_object, foreground_maps, labelled_objects
from ..config import TrainConfig, size_bounds
from ..data.dataset import Dataset
from ..data.grow import needs_sizes
from ..data.options import UNLABELLED
from ..data.references import ReferenceBank, make_bank
from ..errors import UserError
from .step import Objective
from .terms import GatedCRF, SizeBalance, SizePrior

SMALLEST_DEVIATION = 0.1
"""Of the logarithm of the size: one painted mask alone would give 0."""
PRIOR, PRIORS = 0.02, (0.005, 0.5)
"""The prior where no mask tells it, and its range: beyond it a network starts too far off."""
LARGEST_SHIFT = 0.25
MASKS_MEASURED = 256
"""So many masks give the mean cost of an outline well enough."""


def reference_bank(config: TrainConfig, train: Dataset) -> ReferenceBank | None:
    """The reference masks, or None where no term asks them."""
    grown = config.table_row.data_term == "grown"
    if not config.uses_references or (grown and not needs_sizes(train) and not config.asks_masks):
        return None
    kind, options = config.reference_kind, config.references
    return make_bank(
        kind,
        train,
        folder=options.folder,
        mask_threshold=config.mask_threshold,
        mask_value=config.mask_value,
        slices=config.slices,
        mask_bank=options.mask_bank,
        painted=options.painted,
        n=None if grown else options.count,
        seed=config.seed,
    )


def whole_objects(config: TrainConfig, train: Dataset, bank: ReferenceBank | None) -> Tensor | None:
    """Masks that show an object, uint8 [m, size, size]: the reference masks, else the training's.

    An image's own weak mask shows a part of its object; there the training masks count, as they
    do for the size bounds. None where there are none.
    """
    own_weak = config.reference_kind == "own_weak"
    masks = train.masks if bank is None or own_weak else bank.masks
    if masks is None:
        return None
    masks = masks[masks.flatten(1).bool().any(1)]
    return masks if len(masks) else None


def needed(config: TrainConfig, masks: Tensor | None) -> Tensor | None:
    """``masks``, unless a term asks them and there are none.

    Raises:
        UserError: saying which options need them.
    """
    if masks is None and config.asks_masks:
        raise UserError(
            "size_prior, size_balance, consistency and the default of crf.weight need reference "
            "masks that show whole objects: name some with --references.folder, or give 0, 0, 0 "
            "and --crf.weight"
        )
    return masks


def measured(config: TrainConfig, masks: Tensor | None) -> TrainConfig:
    """``config`` with the options in numbers that were left to the data.

    ``prior``: the share of the image that the objects take, on average. ``image_moves.shift``: a
    third of what the longer side of their frames leaves free, so that most of an object stays in
    sight.
    """
    prior, shift = config.prior, config.image_moves.shift
    if prior is None:
        shares = [PRIOR] * config.foregrounds if masks is None else mean_shares(config, masks)
        priors = tuple(min(max(s, PRIORS[0]), PRIORS[1] / len(shares)) for s in shares)
        prior = priors[0] if len(priors) == 1 else priors
    if shift is None:
        shift = LARGEST_SHIFT
        if masks is not None:
            shift = min(shift, (1 - extent(masks)) / 3)
    return config.replace(prior=prior, image_moves=replace(config.image_moves, shift=shift))


def mean_shares(config: TrainConfig, masks: Tensor) -> list[float]:
    """The share of the image that each object class takes in masks [m, H, W], on average."""
    return [found.float().mean().item() for found in each_object(masks, config.foregrounds)]


def extent(masks: Tensor) -> float:
    """Mean of the longer side of the objects' frames, as a share of the image's side."""
    longest = torch.zeros(len(masks), device=masks.device)
    for axis in (1, 2):
        line = masks.amax(axis).bool()  # columns or rows that the object touches
        first, last = line.int().argmax(1), line.flip(1).int().argmax(1)
        longest = torch.maximum(longest, (line.shape[1] - first - last) / line.shape[1])
    return longest.mean().item()


def terms_in_numbers(config: TrainConfig, objective: Objective) -> dict[str, Any]:
    """What was measured on images and masks, for metrics.json; after :func:`measured`."""
    prior, balance, crf = objective.size_prior, objective.size_balance, objective.crf
    log_size = None
    if prior is not None:
        pairs = zip(prior.means, prior.deviations, strict=True)
        known = [None if mean is None else [mean, deviation] for mean, deviation in pairs]
        log_size = by_class(known, config.classes)
    start = list(config.prior) if isinstance(config.prior, tuple) else config.prior
    return {
        "prior": start,
        "shift": config.image_moves.shift,
        "log_size": log_size,
        "mean_size": None if balance is None else by_class(balance.sizes, config.classes),
        "crf": None if crf is None else {"weight": crf.weight, "sigma_image": crf.sigma_image},
    }


def class_sizes(masks: Tensor, foregrounds: int) -> list[Tensor]:
    """For each object class its pixels in those of the masks [m, H, W] that show it, float64."""
    objects = each_object(masks, foregrounds)
    pixels = [found.sum((1, 2), dtype=torch.float64) for found in objects]
    return [counts[counts > 0] for counts in pixels]


def size_prior(weight: float, masks: Tensor, foregrounds: int = 1) -> SizePrior:
    """Mean and standard deviation of log(1 + size) over masks [m, H, W] that show the class."""
    means, deviations = [], []
    for sizes in class_sizes(masks, foregrounds):
        logs = torch.log1p(sizes)
        seen = len(logs) > 0
        means.append(logs.mean().item() if seen else None)
        deviation = max(logs.std(unbiased=False).item(), SMALLEST_DEVIATION) if seen else None
        deviations.append(deviation)
    return SizePrior(weight, tuple(means), tuple(deviations))


def size_balance(weight: float, masks: Tensor, images: int, foregrounds: int = 1) -> SizeBalance:
    """The mean size over masks [m, H, W] that show the class, for so many training images."""
    return SizeBalance(weight, mean_sizes(masks, foregrounds), images)


def mean_sizes(masks: Tensor, foregrounds: int) -> list[float | None]:
    """For each object class the mean of its pixels in masks [m, H, W] that show it."""
    sizes = class_sizes(masks, foregrounds)
    return [pixels.mean().item() if len(pixels) else None for pixels in sizes]


def class_bounds(config: TrainConfig, masks: Tensor | None) -> list[tuple[float, float] | None]:
    """Size bounds a, b of each object class in pixels; None where nothing tells them.

    Args:
        config: its ``bounds`` say which.
        masks: those of the training images [n, H, W], or None.
    """
    if masks is None and config.bounds == "training":
        return [None] * config.foregrounds
    if masks is None:
        return [size_bounds(config, [])] * config.foregrounds
    sizes = class_sizes(masks, config.foregrounds)
    return [size_bounds(config, pixels.int().tolist()) for pixels in sizes]


def image_bounds(
    config: TrainConfig, bounds: Sequence[tuple[float, float] | None], labels: Tensor
) -> Tensor:
    """Size bounds of each image and channel [n, C, 2]; not finite where a side is free.

    The background's are free. With several classes an image may lack one: it is held to size 0
    where every pixel is labelled and none so, and where the labels are few and none is of the class
    its lower bound is free. Without classes every image has the object.

    Args:
        config: its ``classes``.
        bounds: of each object class; None: free.
        labels: [n, H, W], 255 unlabelled.
    """
    free = (-math.inf, math.inf)
    per_class = torch.tensor([free if pair is None else pair for pair in bounds])
    found = per_class.expand(len(labels), -1, -1).clone()
    if config.classes is None:
        return found
    absent = ~labelled_objects(labels, config.foregrounds)
    whole = (labels != UNLABELLED).flatten(1).all(1)
    found[..., 0][absent] = -math.inf
    found[absent & whole[:, None]] = 0.0
    return torch.cat((torch.tensor(free).expand(len(labels), 1, 2), found), 1)


def gated_crf(config: TrainConfig, images: Tensor, masks: Tensor | None, ops: Any) -> GatedCRF:
    """The CRF term with the numbers that the options leave to the data.

    Args:
        config: its ``crf``.
        images: training images [n, 1, H, W].
        masks: reference masks [m, H, W]; needed without ``crf.weight``.
        ops: module with ``gated_crf_loss``.
    """
    options, weight = config.crf, config.crf_weight
    sigma = options.sigma_image or 2 * typical_difference(images)
    term = GatedCRF(1.0, options.radius, options.sigma_space, sigma)
    if weight is None:
        weight = options.cost / flat_cost(term, masks, ops, config.foregrounds)
    return GatedCRF(weight, options.radius, options.sigma_space, sigma)


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
