"""The training set in the device's memory, and the order in which an epoch shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..classes import assumed_objects, labelled_objects
from ..config import TrainConfig
from ..data.image_moves import change_greys, draw_greys, draw_moves, enlargement, inside, move
from ..data.options import UNLABELLED, ImageMoves
from ..data.references import ReferenceBank, soften
from ..terms import Batch, terms_of
from ..terms.data_term import data_term_labels
from ..terms.size_penalty import image_bounds
from .runtime import network_dtype

VIEW = ImageMoves(shift=0.05, scale=1.4)
"""How far the second view of an image may lie from the first."""


def stream_seed(seed: int, stream: str, epoch: int = 0) -> int:
    """Seed of one stream of randomness in one epoch, independent of all others.

    A run that goes on from a checkpoint draws what the uninterrupted one would have drawn,
    because no stream depends on what was drawn in an earlier epoch.
    """
    digest = hashlib.blake2b(f"{seed}/{stream}/{epoch}".encode(), digest_size=7)
    return int.from_bytes(digest.digest(), "big")


class TrainingData:
    """Images, labels and reference masks of a training; the whole set in memory.

    Args:
        config: method, batch size, seed.
        dataset: ``data.Dataset`` with masks and weak labels.
        bank: what D sees as real, or None where ACCL is off.
        device: where the batches are wanted.
        rank, world: this process and the number of processes; each takes every ``world``-th
            image of a global batch.
        bounds: of each object class (see
            :func:`~accl_harness.terms.size_penalty.class_bounds`), or None where the size
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
        self.needs = frozenset().union(*(term.needs for term in terms_of(config)))
        labels = data_term_labels(config.table_row.data_term, dataset.weak_labels, dataset.masks)
        self.labelled = (labels != UNLABELLED).sum((1, 2))
        self.images = dataset.images.to(self.device, network_dtype(config))
        self.labels = labels.to(self.device)
        assumed = assumed_objects(labels, config.foregrounds, UNLABELLED)
        self.assumed = assumed.to(self.device)
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
        if "view" in self.needs:
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
        chosen = batch[part].to(self.device)
        images, labels = self.images[chosen], self.labels[chosen]
        masks = None if self.masks is None else self.masks[chosen]
        bounds = None if self.bounds is None else self.bounds[chosen]
        if references is not None:
            references = references[part].to(self.device, images.dtype)
        enlarged = seen = None
        if moves is not None:
            moves = moves[part]
            if "guide" in self.needs:
                seen = inside(moves, *images.shape[-2:]).to(self.device)
            if self.config.image_moves.scale != 1:
                enlarged = enlargement(moves).to(self.device)
                bounds = None if bounds is None else bounds * enlarged.view(-1, 1, 1)
            images = move(images, moves, smooth=True)
            labels = move(labels, moves, smooth=False)
            masks = None if masks is None else move(masks, moves, smooth=False)
            references = None if references is None else move(references, moves, smooth=False)
        if references is not None:
            references = soften(references, self.config.softening)
        return Batch(
            images=images if greys is None else change_greys(images, greys[part]),
            labels=labels,
            present=labelled_objects(labels, self.config.foregrounds) | self.assumed[chosen],
            masks=masks,
            references=references,
            bounds=bounds,
            guide=images if "guide" in self.needs else None,
            seen=seen,
            enlarged=enlarged,
            view=None if views is None else views[part].to(self.device),
        )
