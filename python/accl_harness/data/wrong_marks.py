"""Marks as a hasty hand makes them: some of them lie on the wrong side of a border.

Real strokes are not always right. To see what that costs, pixels are added to weak labels whose
class is not the mask's. Half of the images with wrong pixels get a slip, a stroke that goes on over
the border next to a right mark; the other half a stray mark on something else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .options import UNLABELLED


def add_wrong_marks(
    labels: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    share: float,
    seed: int = 0,
    first: int = 0,
) -> list[np.ndarray]:
    """Weak labels of which a share of the labelled pixels is wrong.

    Args:
        labels: uint8 [H, W] each: class indices, 255 unlabelled, all of them right.
        masks: [H, W] class indices each.
        share: wrong over all labelled pixels of the result, in [0, 1). It is met over all images,
            as far as unlabelled pixels of another class allow.
        seed: of the places.
        first: the place of the first image in the data set, which decides with the seed.
    """
    counts = np.array([np.count_nonzero(label != UNLABELLED) for label in labels])
    # The first k images together have the share's part of their labels, rounded: so the share is
    # met even where each image's own part is less than a pixel.
    steps = np.rint(np.cumsum(counts) * share / (1 - share)).astype(int)
    return [
        _with_wrong(label, np.asarray(mask), wrong, np.random.default_rng((seed, first + i)))
        for i, (label, mask, wrong) in enumerate(
            zip(labels, masks, np.diff(steps, prepend=0), strict=True)
        )
    ]


def _with_wrong(label: np.ndarray, mask: np.ndarray, wrong: int, rng: np.random.Generator):
    marked = label[label != UNLABELLED]
    if not wrong or not marked.size:
        return label
    kind = rng.choice(marked)
    free = (label == UNLABELLED) & (mask != kind)
    if not free.any():
        return label
    slips = rng.random() < 0.5
    places = np.argwhere(label == kind if slips else free)
    start = places[rng.integers(len(places))]
    if slips:  # from the mark to the next pixel beyond the border
        start = _nearest(free, start, 1)[0]
    changed = label.copy()
    changed[tuple(_nearest(free, start, wrong).T)] = kind
    return changed


def _nearest(free: np.ndarray, start: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` pixels of ``free`` that are nearest to ``start``, [count, 2], nearest first."""
    pixels = np.argwhere(free)
    order = np.argsort(((pixels - start) ** 2).sum(1), kind="stable")
    return pixels[order[:count]]
