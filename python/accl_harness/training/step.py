"""One step of the alternating optimisation: first D, then G through the updated D."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

STATISTICS = (
    "loss_g",
    "partial_ce",
    "size_penalty",
    "accl",
    "loss_d",
    "d_real",
    "d_fake",
    "predicted",
    "truth",
    "dsc",
)
"""What a step adds to the sums: losses and mean scores of the batch (shares of it under DDP),
predicted and true foreground pixels, and the sum of the images' DSC."""


@dataclass
class Batch:
    """What a step needs; under DDP the part of one process."""

    images: Tensor
    """[b, 1, H, W], floating, in [-1, 1]."""
    labels: Tensor
    """[b, H, W] uint8: 0 background, 1 foreground, 255 unlabelled."""
    masks: Tensor | None = None
    """[b, H, W] uint8 {0, 1}; for the statistics alone."""
    references: Tensor | None = None
    """[b, 1, H, W], floating {0, 1}: what D sees as real; None where ACCL is off."""
    image_share: float = 1.0
    """This process's part of the global batch, in images."""
    label_share: float = 1.0
    """This process's part of the global batch, in labelled pixels."""


@dataclass
class Objective:
    """Weights and forms of the terms of eq. (4); the data term always has weight 1."""

    size_weight: float = 0.0
    accl_weight: float = 0.0
    bounds: Tensor | None = None
    """[2]: a, b of eq. (3) in pixels."""
    criterion: str = "lsgan"
    discriminator_scale: float = 1.0


class TrainingStep:
    """Updates G, and D where the adversarial term is on, with one batch.

    Args:
        generator: G, images [b, 1, H, W] to logits of that shape.
        discriminator: D, (images, masks) to patch scores; None trains without ACCL.
        optimizers: of G and of D (None without D).
        objective: weights and forms of the terms.
        ops: module with the losses: ``accl_ext`` or ``accl_ext.reference``.
        autocast: makes the context of the networks' forward passes.
        scaler: loss scaling for float16.
        sum_gradients: called with a network after its backward; adds up the gradients of all
            processes, whose losses are shares of the global batch's.
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
    ):
        self.generator = generator
        self.discriminator = discriminator
        self.optimizer_g, self.optimizer_d = optimizers
        self.objective = objective
        self.ops = ops
        self.autocast = autocast
        self.scaler = scaler
        self.sum_gradients = sum_gradients
        device = next(generator.parameters()).device
        self.sums = torch.zeros(len(STATISTICS), dtype=torch.float64, device=device)
        # Batch norm takes its statistics over the batch, so real and fake must not share one.
        self._one_call = discriminator is not None and not any(
            isinstance(module, nn.BatchNorm2d) for module in discriminator.modules()
        )

    def __call__(self, batch: Batch) -> None:
        """One update of D and of G; adds the step's statistics to ``sums`` without a host sync."""
        objective = self.objective
        with self.autocast():
            logits = self.generator(batch.images)
        head = self.ops.segmentation_head(
            logits, batch.labels, objective.bounds if objective.size_weight else None
        )
        zero = self.sums.new_zeros(())
        loss_d = d_real = d_fake = accl = zero
        if self.discriminator is not None:
            loss_d, d_real, d_fake = self._update_discriminator(batch, head.probabilities.detach())
            accl = self._accl(batch.images, head.probabilities)
        loss = self._generator_loss(batch, head, accl)
        self._update(self.generator, self.optimizer_g, loss)
        self._count(batch, head, loss, accl, loss_d, d_real, d_fake)

    def _update_discriminator(self, batch: Batch, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Minimises eq. (6); returns loss and mean scores of this process's images."""
        self.discriminator.requires_grad_(True)
        images, real = batch.images, batch.references
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
            scores = self.discriminator(images, probabilities)
        return self.ops.accl_loss(scores, criterion=self.objective.criterion)

    def _generator_loss(self, batch: Batch, head: Any, accl: Tensor) -> Tensor:
        """Eq. (4): data term, size penalty and ACCL, each normalised over the global batch."""
        loss = _share(head.partial_ce, batch.label_share)
        for term, weight in (
            (head.size_penalty, self.objective.size_weight),
            (accl, self.objective.accl_weight),
        ):
            if weight:
                loss = loss.add(term, alpha=weight * batch.image_share)
        return loss

    def _update(self, network: nn.Module, optimizer: Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.sum_gradients(network)
        self.scaler.step(optimizer)
        self.scaler.update()

    @torch.no_grad()
    def _count(self, batch: Batch, head: Any, loss: Tensor, *adversarial: Tensor) -> None:
        accl, loss_d, d_real, d_fake = adversarial
        share = batch.image_share
        predicted = head.probabilities.squeeze(1) > 0.5
        masks = torch.zeros_like(predicted) if batch.masks is None else batch.masks > 0
        overlap = (predicted & masks).sum((1, 2))
        predicted, truth = predicted.sum((1, 2)), masks.sum((1, 2))
        total = predicted + truth
        dsc = torch.where(total > 0, 2 * overlap / total, 1.0)
        values = (
            loss,
            head.partial_ce * batch.label_share,
            head.size_penalty * share,
            accl * share,
            loss_d * share,
            d_real * share,
            d_fake * share,
            predicted.sum(),
            truth.sum(),
            dsc.sum(),
        )
        self.sums += torch.stack([value.to(self.sums) for value in values])


def _share(loss: Tensor, share: float) -> Tensor:
    return loss if share == 1.0 else loss * share
