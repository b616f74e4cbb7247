"""The losses as one writes them in plain PyTorch: what the fused ops are timed against.

No checks, no care for extreme values: every shortcut that a training script would take.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def segmentation_head(
    logits: Tensor, labels: Tensor, bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, partial cross-entropy and size penalty for C = 1; labels [B, *S] uint8."""
    probabilities = torch.sigmoid(logits)
    lower, upper = bounds.unbind(-1)
    size = probabilities.flatten(1).sum(1)
    penalty = (F.relu(lower - size) ** 2 + F.relu(size - upper) ** 2).mean() / logits[0].numel()
    return probabilities, partial_cross_entropy(logits, labels), penalty


def partial_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labelled pixels, C = 1."""
    labelled = labels != 255
    loss = F.binary_cross_entropy_with_logits(
        logits.squeeze(1), (labels == 1).to(logits.dtype), reduction="none"
    )
    return torch.where(labelled, loss, 0).sum() / labelled.sum().clamp(min=1)


def accl_loss(scores: Tensor) -> Tensor:
    """Eq. (5)."""
    return ((scores - 1) ** 2).mean()


def accl_discriminator_loss(fake_scores: Tensor, real_scores: Tensor) -> Tensor:
    """Eq. (6)."""
    return (fake_scores**2).mean() + ((real_scores - 1) ** 2).mean()
