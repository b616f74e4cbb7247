"""Painted masks of training images: each is also its own image's label, of every pixel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..errors import HarnessWarning
from .dataset import Dataset
from .options import UNLABELLED
from .pixels import resize_mask

AGREEING = 0.5
"""A mask that contradicts more of its image's marks than this share is another image's."""


def with_painted_labels(
    dataset: Dataset, painted: Mapping[str, np.ndarray]
) -> tuple[Dataset, list[str]]:
    """The data set with painted masks in the place of the weak labels of the same name.

    A mask of another size than its image, or one that contradicts most marks, belongs to another
    image of that name: it stays a reference mask alone, and a warning tells.

    Args:
        dataset: with weak labels; it is left as it is.
        painted: class indices, uint8 [H, W], at their own size, by the image's name.

    Returns:
        The data set, and the names of the images that took their mask.
    """
    labels, taken, other = dataset.weak_labels.clone(), [], []
    for i, name in enumerate(dataset.names):
        if name not in painted:
            continue
        mask = resize_mask(painted[name], dataset.size)
        marks = labels[i].numpy()
        marked = marks != UNLABELLED
        agrees = not marked.any() or (mask == marks)[marked].mean() >= AGREEING
        if painted[name].shape == tuple(dataset.full_shape(i)) and agrees:
            marks[:] = mask
            taken.append(name)
        else:
            other.append(name)
    if other:
        warnings.warn(
            f"painted masks with the names of images that they do not fit ({', '.join(other)}): "
            "they count as masks of other images",
            HarnessWarning,
            stacklevel=2,
        )
    return replace(dataset, weak_labels=labels), taken
