"""The reference masks of a training, and what they say of its networks and moves.

What a term measures stands in the term's file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..classes import each_object
from ..config import TrainConfig
from ..data.dataset import Dataset
from ..data.grow import needs_sizes
from ..data.references import ReferenceBank, make_bank
from ..errors import UserError

PRIOR, PRIORS = 0.02, (0.005, 0.5)
"""The prior where no mask tells it, and its range: beyond it a network starts too far off."""
LARGEST_SHIFT = 0.25


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


def priors_and_shift(config: TrainConfig) -> dict[str, Any]:
    """What :func:`measured` found, for metrics.json."""
    start = list(config.prior) if isinstance(config.prior, tuple) else config.prior
    return {"prior": start, "shift": config.image_moves.shift}
