"""The second stage: a fresh network learns masks that the first one and the random walker agree on.

The first stage finds its training images' objects better than those of new images, because most of
its terms only restrain it. Full supervision on the masks that it found loses less on the way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..config import TrainConfig
from ..data.dataset import Dataset
from ..data.grow import grow_maps, needs_sizes
from ..data.options import UNLABELLED
from ..data.topology import FULL
from ..errors import UserError
from ..terms import TERMS
from .inference import TrainedRun, predict_probabilities
from .loop import Trainer
from .measures import reference_bank, whole_objects

THRESHOLD = 0.4
"""A pixel is an object's where the mean probability exceeds this."""
CHUNK = 16


def second_config(config: TrainConfig) -> TrainConfig:
    """The options of the second stage: those of the first as measured, with the data term alone.

    Its labels are masks, so that partial cross-entropy is full supervision.
    """
    off = {name: value for term in TERMS for name, value in term.off().items()}
    return config.replace(method="partial_ce", class_balance=None, init=None, **off)


def second_labels(first: TrainedRun, train: Dataset, painted: Tensor | None) -> Tensor:
    """The masks that the second network learns: class indices, uint8 [n, size, size].

    An object is where the mean of both probabilities exceeds 0.4; of its 8-connected parts those
    count that touch a mark of their class, and the marks themselves. 255 throughout where an image
    has no mark.

    Args:
        first: the network of the first stage.
        train: the training images with their weak labels.
        painted: masks of any images, class indices, uint8 [m, size, size].
    """
    labels = train.weak_labels.numpy()
    foregrounds = first.config.foregrounds
    sizes = painted.cpu().numpy() if painted is not None and needs_sizes(train) else None
    maps = grow_maps(train.images[:, 0].numpy(), labels, sizes, foregrounds)
    for start in range(0, len(maps), CHUNK):
        part = slice(start, start + CHUNK)
        found = predict_probabilities(first, train.images[part]).cpu()
        if found.shape[1] == 1:
            found = torch.cat((1 - found, found), 1)
        maps[part] = (maps[part] + found.numpy()) / 2
    masks = [agreed(each, marks) for each, marks in zip(maps, labels, strict=True)]
    return torch.from_numpy(np.stack(masks))


def agreed(probabilities: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """The mask of one image, uint8 [H, W], see :func:`second_labels`.

    Args:
        probabilities: the mean ones, [1 + K, H, W].
        marks: class indices [H, W], 255 unlabelled.
    """
    marked = marks != UNLABELLED
    if not marked.any():
        return np.full(marks.shape, UNLABELLED, np.uint8)
    objects = probabilities[1:].max(0)
    # For one object that is p > 0.4; of several the likeliest has to win over the background.
    shown = objects * (1 - THRESHOLD) > probabilities[0] * THRESHOLD
    indices = np.where(shown, probabilities[1:].argmax(0) + 1, 0).astype(np.uint8)
    indices[marked] = marks[marked]
    mask = np.zeros(marks.shape, np.uint8)
    for index in np.unique(indices[indices > 0]):
        parts = ndimage.label(indices == index, structure=FULL)[0]
        touched = np.unique(parts[marks == index])
        mask[np.isin(parts, touched[touched > 0])] = index
    return mask


class SecondStage:
    """What the second stage is made from; bad input is told before the first one starts.

    Args:
        config: options of the run.
        train, validation: its images.
        ops: module with the losses.
        fabric: of the run's devices.

    Raises:
        UserError: marks of objects alone, and no painted masks.
    """

    def __init__(self, config: TrainConfig, train: Dataset, validation, ops: Any, fabric):
        self.train, self.validation, self.ops, self.fabric = train, validation, ops, fabric
        walker = config.replace(method="walker")  # takes painted masks as they are
        self._painted = whole_objects(walker, train, reference_bank(walker, train))
        if needs_sizes(train) and self._painted is None:
            raise UserError(
                "second_stage: where no background is marked it needs painted masks; name some "
                "with --references.folder, or give --second-stage false"
            )

    def labels(self, first: TrainedRun) -> Tensor:
        """The masks that the second network learns, see :func:`second_labels`."""
        return second_labels(first, self.train, self._painted)

    def trainer(self, first: Trainer, labels: Tensor) -> Trainer:
        """The training of a fresh network on ``labels``; the figures of the first go on."""
        data = replace(self.train, weak_labels=labels)
        config = second_config(first.config)
        second = Trainer(config, data, self.validation, self.ops, self.fabric)
        second.given = first.given
        second.seconds = first.seconds
        second.annotation_ratio = first.annotation_ratio
        second.measured = first.measured
        second.watch.issued += first.watch.issued
        return second
