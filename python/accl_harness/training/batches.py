"""The training set in the device's memory, and the order in which an epoch shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import TrainConfig
from ..data.options import UNLABELLED, ImageMoves
from ..data.references import ReferenceBank, soften
from ..errors import UserError
from ..methods import Labels
from .image_moves import change_greys, draw_greys, draw_moves, enlargement, inside, move
from .rules import image_bounds
from .runtime import network_dtype
from .step import Batch

VIEW = ImageMoves(shift=0.05, scale=1.4)
"""How far the second view of an image may lie from the first."""


def stream_seed(seed: int, stream: str, epoch: int = 0) -> int:
    """Seed of one stream of randomness in one epoch, independent of all others.

    A run that goes on from a checkpoint draws what the uninterrupted one would have drawn,
    because no stream depends on what was drawn in an earlier epoch.
    """
    digest = hashlib.blake2b(f"{seed}/{stream}/{epoch}".encode(), digest_size=7)
    return int.from_bytes(digest.digest(), "big")


def data_term_labels(kind: Labels, weak: Tensor, masks: Tensor | None) -> Tensor:
    """Labels of the cross-entropy, uint8 [n, H, W], see :class:`~accl_harness.methods.Method`.

    Raises:
        UserError: full supervision, and the data set has no masks.
    """
    if kind == "full":
        if masks is None:
            raise UserError("full supervision needs masks, the data set has weak labels alone")
        return masks
    if kind == "weak_or_background":
        return torch.where(weak == UNLABELLED, 0, weak).to(torch.uint8)
    return weak


def class_counts(labels: Tensor, classes: int) -> Tensor:
    """Labelled pixels of each class in labels [b, H, W]: float32 [b, classes], without a sync."""
    counts = [(labels == index).sum((1, 2)) for index in range(classes)]
    return torch.stack(counts, 1).float()


def balancing_weights(counts: Tensor) -> Tensor:
    """Weights [C] that make a mean over all labelled pixels the mean of each class's mean.

    Alone in a batch a class has weight 1; a class without a labelled pixel has 0.

    Args:
        counts: labelled pixels [b, C] of the batch.
    """
    counts = counts.sum(0)
    present = counts > 0
    shares = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, shares, 0.0)


class TrainingData:
    """Images, labels and reference masks of a training; the whole set in memory.

    Args:
        config: method, batch size, seed.
        dataset: ``data.Dataset`` with masks and weak labels.
        bank: what D sees as real, or None where ACCL is off.
        device: where the batches are wanted.
        rank, world: this process and the number of processes; each takes every ``world``-th
            image of a global batch, and knows from the labels what share of it that is.
        bounds: of each object class (see :func:`~.rules.class_bounds`), or None where the size
            penalty is off.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset,
        bank: ReferenceBank | None,
        device,
        rank: int = 0,
        world: int = 1,
        bounds: Sequence[tuple[float, float] | None] | None = None,
    ):
        self.config = config
        self.device = torch.device(device)
        self.bank = None if bank is None else bank.to(self.device)
        self.rank, self.world = rank, world
        labels = data_term_labels(config.table_row.data_term, dataset.weak_labels, dataset.masks)
        self.labelled = (labels != UNLABELLED).sum((1, 2))
        self.images = dataset.images.to(self.device, network_dtype(config))
        self.labels = labels.to(self.device)
        self.masks = None if dataset.masks is None else dataset.masks.to(self.device)
        self.bounds = None
        if bounds is not None:
            self.bounds = image_bounds(config, bounds, labels).to(self.device)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        full, rest = divmod(len(self), self.config.batch_size)
        return full + (rest >= self.world)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, in an order, with references and moves of its own.

        A last batch with fewer images than processes is left out.
        """
        generator = self._generator("order", epoch)
        ranges, moves, greys, views = self.config.image_moves, None, None, None
        if ranges.geometric:
            moves = draw_moves(ranges, len(self), self._generator("moves", epoch))
        if ranges.grey:
            greys = draw_greys(ranges.grey, len(self), self._generator("greys", epoch))
        if self.config.consistency_weight:
            views = draw_moves(VIEW, len(self), self._generator("views", epoch))
        order = torch.randperm(len(self), generator=generator)
        for batch in order.split(self.config.batch_size):
            # Every process draws for the global batch, so that all draw the same.
            references = self.bank.draw(batch, generator) if self.bank is not None else None
            if len(batch) >= self.world:
                yield self._part(
                    batch,
                    references,
                    None if moves is None else moves[batch],
                    None if greys is None else greys[batch],
                    None if views is None else views[batch],
                )

    def _generator(self, stream: str, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(self.config.seed, stream, epoch))

    def _part(
        self,
        batch: Tensor,
        references: Tensor | None,
        moves: Tensor | None,
        greys: Tensor | None,
        views: Tensor | None,
    ) -> Batch:
        part = slice(self.rank, None, self.world)
        mine = batch[part]
        chosen = mine.to(self.device)
        images, labels = self.images[chosen], self.labels[chosen]
        masks = None if self.masks is None else self.masks[chosen]
        if references is not None:
            references = references[part].to(self.device, images.dtype)
        enlarged = None
        labelled, seen, guide_share = self.labelled[batch], None, len(mine) / len(batch)
        whole = self.labels[batch.to(self.device)] if self.world > 1 else None
        if moves is not None:
            if whole is not None:  # a move may push labels out of the frame, in any process's part
                whole = move(whole, moves, smooth=False)
                labelled = (whole != UNLABELLED).sum((1, 2)).cpu()
            if self.config.crf_weight != 0:
                seen = inside(moves, *images.shape[-2:])
                guide_share = int(seen[part].sum()) / max(int(seen.sum()), 1)
                seen = seen[part].to(self.device)
            moves = moves[part]
            if self.config.image_moves.scale != 1:
                enlarged = enlargement(moves).to(self.device)
            images = move(images, moves, smooth=True)
            labels = move(labels, moves, smooth=False)
            masks = None if masks is None else move(masks, moves, smooth=False)
            references = None if references is None else move(references, moves, smooth=False)
        if references is not None:
            references = soften(references, self.config.softening)
        pixels, class_weight, counted = labels[0].numel(), None, labelled
        if self.config.balances_classes:
            counts = class_counts(labels if whole is None else whole, self.config.foregrounds + 1)
            class_weight = balancing_weights(counts)
            if whole is not None:
                counted = (counts * class_weight).sum(1).cpu()
        return Batch(
            images=images if greys is None else change_greys(images, greys[part]),
            labels=labels,
            masks=masks,
            references=references,
            guide=images if self.config.crf_weight != 0 else None,
            seen=seen,
            enlarged=enlarged,
            view=None if views is None else views[part].to(self.device),
            image_share=len(mine) / len(batch),
            label_share=_part_of(counted, part),
            class_weight=class_weight,
            guide_share=guide_share,
            **self._bounds(batch, part, enlarged),
            unlabelled_share=_part_of(pixels - labelled, part),
        )

    def _bounds(self, batch: Tensor, part: slice, enlarged: Tensor | None) -> dict[str, Any]:
        """The size bounds of the images as they were moved."""
        if self.bounds is None:
            return {}
        bounds = self.bounds[batch.to(self.device)]
        share = 1.0  # alone; counting would wait for the device
        if self.world > 1:
            share = _part_of(bounds.isfinite().any(2).sum(1).cpu(), part)
        bounds = bounds[part]
        if enlarged is not None:
            bounds = bounds * enlarged.view(-1, 1, 1)
        return {"bounds": bounds, "bounds_share": share}


def _part_of(counts: Tensor, part: slice) -> float:
    """What share of ``counts`` [b], one an image of the global batch, one process has."""
    total = counts.sum().item()
    return counts[part].sum().item() / total if total else 1.0
