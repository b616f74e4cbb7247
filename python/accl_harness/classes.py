"""One class or several: the one place that knows what the channels of a network stand for.

A binary network gives one logit a pixel, a network of N >= 2 classes gives N and a softmax over
them. Masks are class indices in both cases, uint8 [n, H, W], and channel 0 of several is the
background, which no term and no score counts as an object.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def probabilities(logits: Tensor) -> Tensor:
    """Logits [B, C, H, W] to probabilities of that shape: sigmoid for C = 1, else softmax."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def foreground(maps: Tensor) -> Tensor:
    """The channels of [B, C, ...] that stand for objects, [B, K, ...]: all but the background."""
    return maps if maps.shape[1] == 1 else maps[:, 1:]


def decide(maps: Tensor) -> Tensor:
    """Probabilities [B, C, H, W] to class indices, uint8 [B, H, W].

    One channel is cut at 0.5; of several the largest counts, the first of equal ones.
    """
    chosen = maps[:, 0] > 0.5 if maps.shape[1] == 1 else maps.argmax(1)
    return chosen.to(torch.uint8)


def foreground_maps(masks: Tensor, foregrounds: int) -> Tensor:
    """Class indices [n, H, W] to a map for each object class, float32 [n, K, H, W] in {0, 1}.

    With one foreground class every value that is not 0 is its object.
    """
    if foregrounds == 1:
        return (masks != 0).unsqueeze(1).float()
    return F.one_hot(masks.long(), foregrounds + 1)[..., 1:].movedim(-1, 1).float()
