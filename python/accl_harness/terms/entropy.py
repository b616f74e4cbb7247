"""The entropy of the prediction where no label says anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.options import UNLABELLED
from .term import Batch, Material, Pass, Term, check_weight


@dataclass(frozen=True)
class EntropyOptions:
    """Entropy."""

    entropy: float = 0.0
    """The mean entropy of the prediction over the unlabelled pixels has this weight, 0 for off: it
    wants the network sure of itself where no label says anything."""

    def check(self) -> None:
        """Refuse values that the term cannot have.

        Raises:
            UserError: naming the option.
        """
        check_weight(self, "entropy")


@dataclass(frozen=True)
class Entropy(Term):
    """Mean entropy over the unlabelled pixels."""

    name = "entropy"
    options = EntropyOptions
    weight_option = "entropy"
    curves = (("entropy", "entropy", "linear"),)

    weight: float

    @classmethod
    def measure(cls, config, material: Material) -> Entropy:
        """Nothing of it is measured."""
        return cls(config.entropy)

    def counts(self, batch: Batch) -> Tensor:
        """The unlabelled pixels."""
        return (batch.labels == UNLABELLED).sum(dtype=torch.float64).view(1)

    def value(self, passed: Pass) -> Tensor:
        """In nats."""
        return mean_entropy(passed.logits, passed.batch.labels == UNLABELLED)


def mean_entropy(logits: Tensor, chosen: Tensor) -> Tensor:
    """Mean entropy of the prediction, in nats, over the pixels ``chosen``; 0 where there are none.

    From the logits, since the derivative of p log p is infinite at a probability of 0.

    Args:
        logits: [b, C, H, W]; C = 1 stands for two classes.
        chosen: bool [b, H, W].
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if logits.shape[1] == 1:
        entropy = (F.softplus(logits) - logits * logits.sigmoid()).squeeze(1)
    else:
        entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    return torch.where(chosen, entropy, 0.0).sum() / chosen.sum().clamp(min=1)
