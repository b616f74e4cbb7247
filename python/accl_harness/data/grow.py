"""Masks grown from marks by a random walker (Grady 2006), and what painted masks say of size.

A pixel goes to the class whose marks a walker from there meets first; the walker shuns edges of the
grey values. Marks of objects alone need some background to set them against: the pixels farthest
from the marks. How many stay undecided, and where the outlines are drawn, follows from the sizes of
painted masks. Nothing here is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import UserError
from .dataset import Dataset
from .options import UNLABELLED
from .topology import FULL

BETA = 130.0
"""How much the walker shuns edges: scikit-image's default."""
UNDECIDED = 0.5
"""Beyond a large object's own pixels, so many times as many, the next to the marks, may be object;
never more than this share of what such an object leaves of the frame."""
LARGE = 5 / 6
"""The quantile of the painted sizes that is a large object: of three masks about the largest."""
STEPS = 24
"""Halvings of the interval in which the threshold is sought."""


def grow_masks(
    images: np.ndarray,
    labels: np.ndarray,
    painted: np.ndarray | None,
    foregrounds: int = 1,
) -> np.ndarray:
    """A full mask of each image: the most probable class of :func:`grow_maps`.

    Returns:
        Class indices, uint8 [n, H, W]; 255 throughout where an image has no mark.
    """
    maps = grow_maps(images, labels, painted, foregrounds)
    unknown = ~(labels != UNLABELLED).any((1, 2))
    grown = maps.argmax(1).astype(np.uint8)
    grown[unknown] = UNLABELLED
    return grown


def grow_maps(
    images: np.ndarray,
    labels: np.ndarray,
    painted: np.ndarray | None,
    foregrounds: int = 1,
) -> np.ndarray:
    """The probability of each class at each pixel of the images, by a walker from there.

    Where an image's labels hold background, they are the seeds. Where they do not, the background
    is what lies farthest from the marks, and its probability is weighed by one factor for all such
    images, which gives the objects the mean size of the painted masks.

    Args:
        images: grey values, floats [n, H, W], of any range.
        labels: class indices, uint8 [n, H, W], 0 background, 255 unlabelled.
        painted: masks of any images, class indices, uint8 [m, H, W] of the same size; None where
            every image with a mark has background marked.
        foregrounds: number of object classes K.

    Returns:
        float32 [n, 1 + K, H, W], 1 at a mark's own class; 0 throughout where an image has no mark.

    Raises:
        UserError: an image without marked background, and no painted mask that shows a class of it.
    """
    maps = np.zeros((len(labels), 1 + foregrounds, *labels.shape[1:]), np.float32)
    marked = (labels != UNLABELLED).any((1, 2))
    complete = has_background(labels)
    for i in np.flatnonzero(complete):
        maps[i] = walk(images[i], labels[i], foregrounds)
    rest = np.flatnonzero(marked & ~complete)
    if len(rest) == 0:
        return maps
    sizes = Sizes(painted, foregrounds)
    for i in rest:
        maps[i] = walk(images[i], sizes.add_background(labels[i]), foregrounds)
    wanted = sum(sizes.expected(labels[i]) for i in rest)
    found = maps[rest]
    found[:, 0] *= _weight_of_background(found, wanted)
    total = found.sum(1, keepdims=True)
    maps[rest] = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
    for i in rest:  # the weight may turn no mark
        marks = labels[i] != UNLABELLED
        maps[i][:, marks] = np.arange(1 + foregrounds)[:, None] == labels[i][marks]
    return maps


def has_background(labels: np.ndarray) -> np.ndarray:
    """Which of the labels [n, H, W] mark background: bool [n]."""
    return (labels == 0).any((1, 2))


def needs_sizes(dataset: Dataset) -> bool:
    """Whether some image has marks of objects alone, so that painted masks must tell their size."""
    labels = dataset.weak_labels.numpy()
    return bool(((labels != UNLABELLED).any((1, 2)) & ~has_background(labels)).any())


def with_grown_labels(dataset: Dataset, painted: Tensor | None) -> Dataset:
    """The data set with the masks grown from its weak labels in their place.

    Args:
        dataset: with weak labels.
        painted: class indices, uint8 [m, size, size], of any images; None where no image needs
            them, see :func:`needs_sizes`.
    """
    grown = grow_masks(
        dataset.images[:, 0].numpy(),
        dataset.weak_labels.numpy(),
        None if painted is None else painted.cpu().numpy(),
        max((dataset.classes or 1) - 1, 1),
    )
    return replace(dataset, weak_labels=torch.from_numpy(grown))


def walk(image: np.ndarray, seeds: np.ndarray, foregrounds: int = 1) -> np.ndarray:
    """The probability of each class at each pixel, floats [1 + K, H, W].

    Args:
        image: grey values [H, W].
        seeds: class indices [H, W], 255 undecided; some pixel is not.
        foregrounds: number of object classes K.
    """
    from skimage.segmentation import random_walker  # takes half a second to import

    found, inverse = np.unique(seeds[seeds != UNLABELLED], return_inverse=True)
    maps = np.zeros((1 + foregrounds, *seeds.shape))
    if len(found) == 1 or not (seeds == UNLABELLED).any():
        for index in found:
            maps[index] = 1.0 if len(found) == 1 else seeds == index
        return maps
    places = np.zeros(seeds.shape, np.int64)
    places[seeds != UNLABELLED] = inverse + 1
    image, beta = image.astype(np.float64), BETA
    if np.ptp(image) == 0:  # scikit-image divides by the spread; without edges all steps are alike
        image, beta = np.indices(image.shape)[0].astype(np.float64), 0.0
    # The solver ends within tol, so a probability may lie that far outside of [0, 1].
    solver = {"mode": "cg_j", "tol": 1e-3, "prob_tol": 1.0}
    maps[found] = random_walker(image, places, beta=beta, return_full_prob=True, **solver)
    return maps.clip(0, 1)


class Sizes:
    """What painted masks say of the objects' sizes, each class by itself.

    Of masks with several parts, as of many cells, a part counts, and an image holds as many as its
    marks have.
    """

    def __init__(self, painted: np.ndarray | None, foregrounds: int):
        self.foregrounds = foregrounds
        self.mean, self.large, self.many = {}, {}, {}
        for index in range(1, foregrounds + 1):
            pixels = _objects([] if painted is None else painted, index, foregrounds)
            if not pixels:
                continue
            parts = np.array([count_components(mask) for mask in pixels])
            sizes = np.array([np.count_nonzero(mask) for mask in pixels], float)
            self.many[index] = bool(np.median(parts) > 1)
            each = sizes / parts if self.many[index] else sizes
            self.mean[index] = sizes.sum() / parts.sum() if self.many[index] else sizes.mean()
            self.large[index] = float(np.quantile(each, LARGE))

    def count(self, label: np.ndarray, index: int) -> int:
        """How many objects the marks of a class stand for."""
        marks = label == index
        return count_components(marks) if self.many[index] else int(marks.any())

    def expected(self, label: np.ndarray) -> float:
        """Object pixels of an image by its marks."""
        return sum(self.count(label, index) * mean for index, mean in self.mean.items())

    def add_background(self, label: np.ndarray) -> np.ndarray:
        """The marks, and background where every class is too far away.

        Raises:
            UserError: a marked class that no painted mask shows.
        """
        far = label == UNLABELLED
        for index in np.unique(label[~far]):
            if index not in self.large:
                raise UserError(
                    f"no background is marked, and no painted mask shows class {index}: name "
                    "painted masks with --references.folder, or mark some background"
                )
            large = min(self.count(label, index) * self.large[index], label.size - 1)
            room = int(large + UNDECIDED * min(large, label.size - 1 - large))
            distance = ndimage.distance_transform_edt(label != index)
            far &= distance > np.partition(distance.ravel(), room)[room]
        return np.where(far, np.uint8(0), label)


def _objects(masks: Sequence[np.ndarray], index: int, foregrounds: int) -> list[np.ndarray]:
    """Where masks show a class, bool [H, W] each, those that do."""
    shown = [np.asarray(mask) != 0 if foregrounds == 1 else mask == index for mask in masks]
    return [mask for mask in shown if mask.any()]


def count_components(mask: np.ndarray) -> int:
    """Number of 8-connected parts of a mask [H, W]."""
    return int(ndimage.label(mask, structure=FULL)[1])


def _weight_of_background(maps: np.ndarray, wanted: float) -> float:
    """The factor of the background's probability at which objects win about ``wanted`` pixels.

    Args:
        maps: probabilities [n, 1 + K, H, W].
        wanted: object pixels of all images together.
    """
    objects, background = maps[:, 1:].max(1), maps[:, 0]
    total = objects + background
    share = np.divide(objects, total, out=np.zeros_like(objects), where=total > 0)
    low, high = 0.0, 1.0  # of the threshold on that share
    for _ in range(STEPS):
        middle = (low + high) / 2
        if np.count_nonzero(share > middle) > wanted:
            low = middle
        else:
            high = middle
    return high / max(1 - high, 1e-6)
