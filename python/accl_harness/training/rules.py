"""What the training images and the reference masks say of a data set: the terms' own numbers.

No weight of these terms is tuned to a data set. An object's outline costs the gated CRF more the
longer it is, and a grey-value difference means more in an image without noise; both are measured
here, so that one setting serves all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..config import TrainConfig
from ..data.dataset import Dataset
from ..data.references import ReferenceBank, make_bank
from ..errors import UserError
from .terms import GatedCRF, SizePrior

SMALLEST_DEVIATION = 0.1
"""Of the logarithm of the size: one painted mask alone would give 0."""
MASKS_MEASURED = 256
"""So many masks give the mean cost of an outline well enough."""


def reference_bank(config: TrainConfig, train: Dataset) -> ReferenceBank | None:
    """The reference masks, or None where no term asks them."""
    if not config.uses_references:
        return None
    kind, options = config.reference_kind, config.references
    return make_bank(
        kind,
        train,
        folder=options.folder,
        mask_threshold=config.mask_threshold,
        mask_value=config.mask_value,
        slices=config.slices,
        augmentation=options.augmentation,
        painted=options.painted,
        n=options.count,
        seed=config.seed,
    )


def whole_objects(config: TrainConfig, train: Dataset, bank: ReferenceBank) -> Tensor:
    """The reference masks that show an object, uint8 [m, size, size].

    An image's own weak mask shows a part of its object; there the training masks count, as they
    do for the size bounds.

    Raises:
        UserError: no mask shows an object.
    """
    masks = bank.masks
    if config.reference_kind == "own_weak":
        if train.masks is None:
            raise UserError(
                "size_prior and the default of crf.weight need masks of whole objects, and the "
                "data have weak labels alone: give --size-prior 0 and --crf.weight"
            )
        masks = train.masks
    masks = masks[masks.flatten(1).bool().any(1)]
    if len(masks) == 0:
        raise UserError("no reference mask shows an object")
    return masks


def size_prior(weight: float, masks: Tensor) -> SizePrior:
    """Mean and standard deviation of log(1 + size) over masks [m, H, W]."""
    sizes = torch.log1p(masks.sum((1, 2), dtype=torch.float64))
    deviation = max(sizes.std(unbiased=False).item(), SMALLEST_DEVIATION)
    return SizePrior(weight, sizes.mean().item(), deviation)


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
        weight = options.cost / flat_cost(term, masks, ops)
    return GatedCRF(weight, options.radius, options.sigma_space, sigma)


def typical_difference(images: Tensor) -> float:
    """Median difference of neighbouring pixels' grey values, where they differ at all.

    Equal neighbours are mostly a black frame, which says nothing of the noise in the picture.
    """
    rows, columns = images.diff(dim=-2).abs().flatten(), images.diff(dim=-1).abs().flatten()
    differences = torch.cat([rows, columns])
    differences = differences[differences > 0]
    if len(differences) == 0:
        raise UserError("crf.sigma_image: no training image has an edge; give a value")
    return differences.median().item()


def flat_cost(term: GatedCRF, masks: Tensor, ops: Any) -> float:
    """Mean of the CRF over masks [m, H, W] in an image without edges: the outline's cost."""
    chosen = masks[:: -(-len(masks) // MASKS_MEASURED)].unsqueeze(1).float().cpu()
    cost = term.energy(ops, chosen, torch.zeros_like(chosen), None).item()
    if cost == 0:
        raise UserError("crf.weight: the reference masks have no outline; give a weight")
    return cost
