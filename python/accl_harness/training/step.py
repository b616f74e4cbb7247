"""One step of the alternating optimisation: first D, then G through the updated D."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..classes import decided_maps, each_object, foreground, labelled_objects, probabilities
from ..data.options import UNLABELLED
from .image_moves import move
from .terms import Consistency, GatedCRF, SizeBalance, SizePrior, mean_entropy

LOSSES = (
    "loss_g",
    "partial_ce",
    "size_penalty",
    "accl",
    "loss_d",
    "d_real",
    "d_fake",
    "size_prior",
    "size_balance",
    "crf",
    "entropy",
    "consistency",
)
STATISTICS = (*LOSSES, "predicted", "truth", "dsc")
"""The sums over an epoch's steps: losses and mean scores of the batch (shares of it under DDP),
predicted and true foreground pixels, and the images' DSC; the last three for each object class."""


@dataclass
class Batch:
    """What a step needs; under DDP the part of one process."""

    images: Tensor
    """[b, 1, H, W], floating, in [-1, 1]."""
    labels: Tensor
    """[b, H, W] uint8: class indices, 0 background, 255 unlabelled."""
    masks: Tensor | None = None
    """[b, H, W] uint8 class indices; for the statistics alone."""
    references: Tensor | None = None
    """[b, K, H, W], floating in [0, 1]: what D sees as real; None where ACCL is off."""
    class_weight: Tensor | None = None
    """[C] (C = 1: [2]), weights of the cross-entropy's classes; None: every pixel counts alike."""
    bounds: Tensor | None = None
    """[b, C, 2]: a, b of eq. (3) in pixels; None where the size penalty is off."""
    guide: Tensor | None = None
    """[b, 1, H, W], the moved images with their own grey values: what the CRF compares."""
    seen: Tensor | None = None
    """bool [b, H, W], the pixels that a move did not bring in from outside; None: all."""
    enlarged: Tensor | None = None
    """[b], how many times larger a move made an object's area; None: as it was."""
    view: Tensor | None = None
    """[b, 2, 3], where a second view of the images looks, see :func:`~.image_moves.draw_moves`;
    None where its consistency is off."""
    image_share: float = 1.0
    """This process's part of the global batch, in images."""
    label_share: float = 1.0
    """This process's part of the global batch, in labelled pixels, weighted by their classes."""
    guide_share: float = 1.0
    """This process's part of the global batch, in pixels of ``seen``."""
    bounds_share: float = 1.0
    """This process's part of the global batch, in pairs of image and class that are bounded."""
    unlabelled_share: float = 1.0
    """This process's part of the global batch, in unlabelled pixels."""


@dataclass
class Objective:
    """Weights and forms of the terms of eq. (4) and of those beyond the paper.

    The data term always has weight 1.
    """

    size_weight: float = 0.0
    accl_weight: float = 0.0
    foregrounds: int = 1
    """Object classes K."""
    criterion: str = "lsgan"
    discriminator_scale: float = 1.0
    noise: float = 0.0
    """Standard deviation of the noise on what D sees."""
    size_prior: SizePrior | None = None
    size_balance: SizeBalance | None = None
    crf: GatedCRF | None = None
    entropy_weight: float = 0.0
    consistency: Consistency | None = None


class Record(NamedTuple):
    """What a step says of itself."""

    losses: Tensor
    """[12], in the order of ``LOSSES``, of this process's images."""
    overlaps: Tensor
    """[b, 2 K, 2 K], pixels an image that two maps have in common: the predicted ones, then the
    true ones; each map with itself gives its size."""
    shares: tuple[float, ...]
    """This process's part of the global batch, for each of the losses."""


class TrainingStep:
    """Updates G, and D where the adversarial term is on, with one batch.

    Args:
        generator: G, images [b, 1, H, W] to logits [b, C, H, W].
        discriminator: D, (images, masks) to patch scores; None trains without ACCL.
        optimizers: of G and of D (None without D).
        objective: weights and forms of the terms.
        ops: module with the losses: ``accl_ext`` or ``accl_ext.reference``.
        autocast: makes the context of the networks' forward passes.
        scaler: loss scaling for float16.
        sum_gradients: called with a network after its backward; adds up the gradients of all
            processes, whose losses are shares of the global batch's.
        total: adds a tensor up over the processes, in place.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None,
        optimizers: tuple[Optimizer, Optimizer | None],
        objective: Objective,
        ops: Any,
        autocast: Callable[[], AbstractContextManager],
        scaler: torch.amp.GradScaler,
        sum_gradients: Callable[[nn.Module], None],
        total: Callable[[Tensor], Tensor],
    ):
        self.generator = generator
        self.discriminator = discriminator
        self.optimizer_g, self.optimizer_d = optimizers
        self.objective = objective
        self.ops = ops
        self.autocast = autocast
        self.scaler = scaler
        self.sum_gradients = sum_gradients
        self.total = total
        self.records: list[Record] = []
        self.zero = torch.zeros((), device=next(generator.parameters()).device)
        # Batch norm takes its statistics over the batch, so real and fake must not share one.
        self._one_call = discriminator is not None and not any(
            isinstance(module, nn.BatchNorm2d) for module in discriminator.modules()
        )

    @property
    def sums(self) -> Tensor:
        """The sums of ``STATISTICS`` since the last :meth:`forget`, float64."""
        kinds = self.objective.foregrounds
        if not self.records:
            return self.zero.new_zeros(len(LOSSES) + 3 * kinds, dtype=torch.float64)
        losses = torch.stack([record.losses for record in self.records]).double()
        shares = torch.tensor([record.shares for record in self.records], dtype=torch.float64)
        pixels = torch.cat([record.overlaps for record in self.records]).double()
        predicted, truth = pixels.diagonal(dim1=1, dim2=2).split(kinds, 1)
        both = pixels.diagonal(kinds, 1, 2)
        dsc = torch.where(predicted + truth > 0, 2 * both / (predicted + truth), 1.0)
        counts = [predicted.sum(0), truth.sum(0), dsc.sum(0)]
        return torch.cat([(losses * shares.to(losses.device)).sum(0), *counts])

    def forget(self) -> None:
        """Begin new sums."""
        self.records.clear()

    def __call__(self, batch: Batch) -> None:
        """One update of D and of G; keeps the step's statistics without a host sync."""
        with self.autocast():
            logits = self.generator(batch.images)
        head = self.ops.segmentation_head(
            logits, batch.labels, batch.bounds, weight=batch.class_weight
        )
        objects = foreground(head.probabilities)
        loss_d = d_real = d_fake = accl = self.zero
        if self.discriminator is not None:
            loss_d, d_real, d_fake = self._update_discriminator(batch, objects.detach())
            accl = self._accl(batch.images, objects)
        crf, entropy = self._crf(batch, head.probabilities), self.zero
        if self.objective.entropy_weight:
            entropy = mean_entropy(logits, batch.labels == UNLABELLED)
        views = self._consistency(batch, objects)
        beyond = (*self._size_terms(batch, head), crf, entropy, views)
        loss = self._generator_loss(batch, head, accl, *beyond)
        self._update(self.generator, self.optimizer_g, loss)
        paper = (head.partial_ce, head.size_penalty, accl, loss_d, d_real, d_fake)
        self._keep(batch, head.probabilities, (loss, *paper, *beyond))

    def _update_discriminator(self, batch: Batch, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Minimises eq. (6); returns loss and mean scores of this process's images."""
        self.discriminator.requires_grad_(True)
        images = batch.images
        fake, real = self._noisy(fake), self._noisy(batch.references)
        with self.autocast():
            if self._one_call:
                pairs = torch.cat((images, images)), torch.cat((fake, real))
                fake_scores, real_scores = self.discriminator(*pairs).chunk(2)
            else:
                fake_scores = self.discriminator(images, fake)
                real_scores = self.discriminator(images, real)
        loss = self.ops.accl_discriminator_loss(
            fake_scores,
            real_scores,
            criterion=self.objective.criterion,
            scale=self.objective.discriminator_scale,
        )
        self._update(self.discriminator, self.optimizer_d, _share(loss, batch.image_share))
        # In G's pass D only hands gradients through: none of its own are computed.
        self.discriminator.requires_grad_(False)
        return loss.detach(), real_scores.detach().mean(), fake_scores.detach().mean()

    def _accl(self, images: Tensor, probabilities: Tensor) -> Tensor:
        """Eq. (5), through the updated D."""
        with self.autocast():
            scores = self.discriminator(images, self._noisy(probabilities))
        return self.ops.accl_loss(scores, criterion=self.objective.criterion)

    def _noisy(self, masks: Tensor) -> Tensor:
        """Masks as D sees them. The noise comes from the stream that dropout draws from."""
        if self.objective.noise == 0:
            return masks
        return masks + self.objective.noise * torch.randn_like(masks)

    def _size_terms(self, batch: Batch, head: Any) -> tuple[Tensor, Tensor]:
        """Size prior and size balance; sizes count as they would be without the move."""
        prior, balance = self.objective.size_prior, self.objective.size_balance
        if prior is None and balance is None:
            return self.zero, self.zero
        kinds = self.objective.foregrounds
        present = labelled_objects(batch.labels, kinds)
        scale = 1.0 if batch.enlarged is None else batch.enlarged.unsqueeze(1)
        sizes = foreground(head.soft_size) / scale
        first = second = self.zero
        if prior is not None:
            first = prior.penalty(sizes, present)
        if balance is not None:
            predicted = decided_maps(head.probabilities.detach()).sum((2, 3)) / scale
            second = balance(predicted, sizes, present, self.total)
        return first, second

    def _crf(self, batch: Batch, probabilities: Tensor) -> Tensor:
        if self.objective.crf is None:
            return self.zero
        return self.objective.crf.energy(self.ops, probabilities, batch.guide, batch.seen)

    def _consistency(self, batch: Batch, objects: Tensor) -> Tensor:
        if self.objective.consistency is None:
            return self.zero
        with self.autocast():
            logits = self.generator(move(batch.images, batch.view, smooth=True))
        second = foreground(probabilities(logits.to(objects.dtype)))
        return self.objective.consistency.penalty(objects, second, batch.view)

    def _generator_loss(
        self,
        batch: Batch,
        head: Any,
        accl: Tensor,
        prior: Tensor,
        balance: Tensor,
        crf: Tensor,
        entropy: Tensor,
        views: Tensor,
    ) -> Tensor:
        """Eq. (4) and what goes beyond it, each term normalised over the global batch."""
        objective = self.objective
        loss = _share(head.partial_ce, batch.label_share)
        for term, weight, share in (
            (head.size_penalty, objective.size_weight, batch.bounds_share),
            (accl, objective.accl_weight, batch.image_share),
            (prior, getattr(objective.size_prior, "weight", 0), batch.image_share),
            (balance, getattr(objective.size_balance, "weight", 0), batch.image_share),
            (crf, getattr(objective.crf, "weight", 0), batch.guide_share),
            (entropy, objective.entropy_weight, batch.unlabelled_share),
            (views, getattr(objective.consistency, "weight", 0), batch.image_share),
        ):
            if weight:
                loss = loss.add(term, alpha=weight * share)
        return loss

    def _update(self, network: nn.Module, optimizer: Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.sum_gradients(network)
        self.scaler.step(optimizer)
        self.scaler.update()

    @torch.no_grad()
    def _keep(self, batch: Batch, probabilities: Tensor, losses: tuple[Tensor, ...]) -> None:
        """Put the step's figures aside in a few calls; ``sums`` adds them up."""
        kinds = self.objective.foregrounds
        predicted = decided_maps(probabilities)
        if batch.masks is None:
            true = torch.zeros_like(predicted)
        else:
            true = torch.stack(list(each_object(batch.masks, kinds)), 1)
        maps = torch.cat((predicted, true), 1).flatten(2).to(self.zero.dtype)
        # The products of all maps with all are the sizes and the overlaps; whole numbers.
        overlaps = maps @ maps.mT
        shares = (1.0, batch.label_share, batch.bounds_share, *(batch.image_share,) * 6)
        shares += (batch.guide_share, batch.unlabelled_share, batch.image_share)
        self.records.append(Record(torch.stack(losses), overlaps, shares))


def _share(loss: Tensor, share: float) -> Tensor:
    return loss if share == 1.0 else loss * share
