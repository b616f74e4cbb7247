"""One class or several: the one place that knows what the channels of a network stand for.

A binary network gives one logit a pixel, a network of N >= 2 classes gives N and a softmax over
them. Masks are class indices in both cases, uint8 [n, H, W], and channel 0 of several is the
background, which no term and no score counts as an object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


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


def decided_maps(maps: Tensor) -> Tensor:
    """Probabilities [B, C, H, W] to where each object class is decided for: bool [B, K, H, W]."""
    if maps.shape[1] == 1:
        return maps > 0.5
    return torch.stack(list(each_object(decide(maps), maps.shape[1] - 1)), 1)


def foreground_maps(masks: Tensor, foregrounds: int) -> Tensor:
    """Class indices [n, H, W] to a map for each object class, float32 [n, K, H, W] in {0, 1}.

    With one foreground class every value that is not 0 is its object.
    """
    return torch.stack(list(each_object(masks, foregrounds)), 1).float()


def each_object(masks: Tensor, foregrounds: int) -> Iterator[Tensor]:
    """Where class indices [n, H, W] are of each object class in turn: bool [n, H, W]."""
    if foregrounds == 1:
        yield masks != 0
        return
    for index in range(1, foregrounds + 1):
        yield masks == index


def labelled_objects(labels: Tensor, foregrounds: int) -> Tensor:
    """Which object classes the weak labels [n, H, W] of each image name: bool [n, K]."""
    found = [(labels == index).flatten(1).any(1) for index in range(1, foregrounds + 1)]
    return torch.stack(found, 1)


def assumed_objects(labels: Tensor, foregrounds: int, unlabelled: int) -> Tensor:
    """Which object classes an image without any label is taken to hold: bool [n, K].

    Those that every labelled image names. An image that is labelled speaks for itself.

    Args:
        labels: weak labels of the whole data set [n, H, W].
        foregrounds: object classes K.
        unlabelled: the value of pixels without a label.
    """
    silent = (labels == unlabelled).flatten(1).all(1)
    everywhere = labelled_objects(labels[~silent], foregrounds).all(0)
    return silent[:, None] & everywhere & ~silent.all()


def by_class(values: Sequence[Any], classes: int | None) -> Any:
    """A value for each object class under the class's index; without classes the one value."""
    if classes is None:
        return values[0]
    return {str(index): value for index, value in enumerate(values, 1)}
