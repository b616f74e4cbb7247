"""One step of the alternating optimisation: first D, then G through the updated D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..classes import decided_maps, each_object, foreground
from ..terms import Batch, Pass, Term


class Record(NamedTuple):
    """What a step says of itself."""

    losses: Tensor
    """In the order of ``TrainingStep.columns``: this process's parts of the global batch's."""
    overlaps: Tensor
    """[b, 2 K, 2 K], pixels an image that two maps have in common: the predicted ones, then the
    true ones; each map with itself gives its size."""


class TrainingStep:
    """Updates G, and D where the adversarial term is on, with one batch.

    Args:
        generator: G, images [b, 1, H, W] to logits [b, C, H, W].
        discriminator: D, (images, masks) to patch scores; None trains without ACCL.
        optimizers: of G and of D (None without D).
        terms: of the objective, in the order in which they are added.
        foregrounds: object classes K.
        ops: module with the losses: ``accl_ext`` or ``accl_ext.reference``.
        autocast: makes the context of the networks' forward passes.
        scaler: loss scaling for float16.
        sum_gradients: called with a network after its backward; adds up the gradients of all
            processes, whose losses are shares of the global batch's.
        total: adds a tensor up over the processes, in place.
        world: number of processes.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None,
        optimizers: tuple[Optimizer, Optimizer | None],
        terms: Sequence[Term],
        foregrounds: int,
        ops: Any,
        autocast: Callable[[], AbstractContextManager],
        scaler: torch.amp.GradScaler,
        sum_gradients: Callable[[nn.Module], None],
        total: Callable[[Tensor], Tensor],
        world: int = 1,
    ):
        self.generator = generator
        self.discriminator = discriminator
        self.optimizer_g, self.optimizer_d = optimizers
        self.terms = tuple(terms)
        self.foregrounds = foregrounds
        self.ops = ops
        self.autocast = autocast
        self.scaler = scaler
        self.sum_gradients = sum_gradients
        self.total = total
        self.world = world
        self.records: list[Record] = []
        self.zero = torch.zeros((), device=next(generator.parameters()).device)
        # Batch norm takes its statistics over the batch, so real and fake must not share one.
        self.one_call = discriminator is not None and not any(
            isinstance(module, nn.BatchNorm2d) for module in discriminator.modules()
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The loss of G, and what each term gives by name."""
        return ("loss_g", *(name for term in self.terms for name in (term.name, *term.others)))

    @property
    def sums(self) -> Tensor:
        """The sums since the last :meth:`forget`, float64; of this process's parts.

        First ``columns``, then for each object class the predicted pixels, for each the true ones,
        for each the images' DSC.
        """
        kinds = self.foregrounds
        if not self.records:
            return self.zero.new_zeros(len(self.columns) + 3 * kinds, dtype=torch.float64)
        losses = torch.stack([record.losses for record in self.records]).double()
        pixels = torch.cat([record.overlaps for record in self.records]).double()
        predicted, truth = pixels.diagonal(dim1=1, dim2=2).split(kinds, 1)
        both = pixels.diagonal(kinds, 1, 2)
        dsc = torch.where(predicted + truth > 0, 2 * both / (predicted + truth), 1.0)
        return torch.cat([losses.sum(0), predicted.sum(0), truth.sum(0), dsc.sum(0)])

    def forget(self) -> None:
        """Begin new sums."""
        self.records.clear()

    def __call__(self, batch: Batch) -> None:
        """One update of D and of G; keeps the step's statistics without a host sync."""
        with self.autocast():
            logits = self.generator(batch.images)
        totals, shares = self._count(batch) if self.world > 1 else ({}, {})
        wanted = {}
        for term in self.terms:
            wanted |= term.head_options(batch, totals.get(term.name))
        head = self.ops.segmentation_head(logits, batch.labels, **wanted)
        passed = Pass(batch, logits, head, foreground(head.probabilities), self, shares)
        loss, losses = None, []
        for term in self.terms:
            mean = passed.share(term, term.value(passed))
            others = [passed.share(term, passed.notes[name]) for name in term.others]
            losses += [mean, *others]
            loss = mean if loss is None else loss.add(mean, alpha=term.weight)
        self.update(self.generator, self.optimizer_g, loss)
        self._keep(batch, head.probabilities, (loss, *losses))

    def _count(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """By term what it counts in the global batch, and this process's share of that."""
        own = [term.counts(batch).to(self.zero.device) for term in self.terms]
        totals = self.total(torch.cat(own)).split([len(counts) for counts in own])
        triples = list(zip(self.terms, own, totals, strict=True))
        shares = {term.name: term.share_of(mine, total) for term, mine, total in triples}
        return {term.name: total for term, _, total in triples}, shares

    def update(self, network: nn.Module, optimizer: Optimizer, loss: Tensor) -> None:
        """Descend the loss's gradients, added up over the processes."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.sum_gradients(network)
        self.scaler.step(optimizer)
        self.scaler.update()

    @torch.no_grad()
    def _keep(self, batch: Batch, probabilities: Tensor, losses: tuple[Tensor, ...]) -> None:
        """Put the step's figures aside in a few calls; ``sums`` adds them up."""
        predicted = decided_maps(probabilities)
        if batch.masks is None:
            true = torch.zeros_like(predicted)
        else:
            true = torch.stack(list(each_object(batch.masks, self.foregrounds)), 1)
        maps = torch.cat((predicted, true), 1).flatten(2).to(self.zero.dtype)
        # The products of all maps with all are the sizes and the overlaps; whole numbers.
        self.records.append(Record(torch.stack(losses), maps @ maps.mT))
