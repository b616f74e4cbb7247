"""The training step as one writes it plainly in PyTorch: the baseline of ``train_step.py``.

Same method and same result as the harness's step, none of its care: memory as it comes, Adam's
default, one pass of D for real and one for fake masks, sigmoid, cross-entropy and size term one
after the other, and gradients of D's parameters computed in G's pass and thrown away.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNLABELLED = 255


class PlainStep:
    """One update of D and of G.

    Args:
        generator: images [b, 1, H, W] to logits.
        discriminator: (images, masks) to patch scores, or None.
        lr: rate of both Adams, betas (0.5, 0.999).
        accl_weight, size_weight, bounds: of eqs. (3) and (4); bounds in pixels or None.
        autocast: type to compute the networks in, None for their own.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module | None,
        *,
        lr: float = 2e-4,
        accl_weight: float = 0.0,
        size_weight: float = 0.0,
        bounds: tuple[float, float] | None = None,
        autocast: torch.dtype | None = None,
    ):
        self.generator = generator
        self.discriminator = discriminator
        self.accl_weight, self.size_weight, self.bounds = accl_weight, size_weight, bounds
        self.autocast = autocast
        self.optimizer_g = torch.optim.Adam(generator.parameters(), lr, (0.5, 0.999))
        if discriminator is not None:
            self.optimizer_d = torch.optim.Adam(discriminator.parameters(), lr, (0.5, 0.999))

    def __call__(self, images: Tensor, labels: Tensor, references: Tensor | None = None) -> Tensor:
        """Images and references [b, 1, H, W], labels [b, H, W] uint8; returns G's loss."""
        with self._context():
            logits = self.generator(images)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        probabilities = torch.sigmoid(logits)

        if self.discriminator is not None:
            with self._context():
                fake_scores = self.discriminator(images, probabilities.detach())
                real_scores = self.discriminator(images, references)
            loss_d = F.mse_loss(fake_scores, torch.zeros_like(fake_scores)) + F.mse_loss(
                real_scores, torch.ones_like(real_scores)
            )
            self.optimizer_d.zero_grad()
            loss_d.backward()
            self.optimizer_d.step()

        labelled = labels != UNLABELLED
        targets = labels.to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits.squeeze(1)[labelled], targets[labelled])
        if self.size_weight:
            loss = loss + self.size_weight * self._size_penalty(probabilities)
        if self.discriminator is not None:
            with self._context():
                scores = self.discriminator(images, probabilities)
            loss = loss + self.accl_weight * F.mse_loss(scores, torch.ones_like(scores))
        self.optimizer_g.zero_grad()
        loss.backward()
        self.optimizer_g.step()
        return loss.detach()

    def _size_penalty(self, probabilities: Tensor) -> Tensor:
        lower, upper = self.bounds
        size = probabilities.sum((1, 2, 3))
        penalty = torch.clamp(lower - size, min=0) ** 2 + torch.clamp(size - upper, min=0) ** 2
        return (penalty / probabilities[0].numel()).mean()

    def _context(self):
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(next(self.generator.parameters()).device.type, self.autocast)
