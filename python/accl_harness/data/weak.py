"""Weak labels made from full masks: a few sure pixels of the object, the rest unlabelled.

The default is the published recipe of Kervadec et al. (size-constrained CNN loss): binary erosion
with the full 3 x 3 element, 10 times, counting down to the first result that is not empty.
Eroding n times leaves the pixels whose chessboard distance to the outside exceeds n, so one
distance transform answers for every n.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..errors import UserError
from .formats import output_path, read_image, refuse_full, write_labels
from .labels import MaskReader
from .options import UNLABELLED, Slices, WeakOptions
from .pairing import Guesses, list_files
from .strokes import scribble
from .topology import count_parts, thin
from .wrong_marks import add_wrong_marks


def weak_labels(mask: np.ndarray, options: WeakOptions | None = None, index: int = 0) -> np.ndarray:
    """Weak label of one mask: uint8 [H, W], 1 foreground, 255 unlabelled.

    An empty mask gives no label.

    Args:
        mask: [H, W], object where not 0.
        options: how the label is made.
        index: the image's place in the data set, which together with the seed decides on a random
            disc.
    """
    return weaken([mask], options, first=index)[0]


def weaken(
    masks: Sequence[np.ndarray],
    options: WeakOptions | None = None,
    first: int = 0,
    classes: int | None = None,
) -> list[np.ndarray]:
    """Weak labels of a data set, see :func:`weak_labels`.

    ``ratio`` and ``wrong`` are met over all of them.

    Args:
        masks: [H, W] each.
        options: how the labels are made.
        first: the place of the first mask in the data set.
        classes: masks and labels hold class indices below this number; each class is an object of
            its own, and the background stays unlabelled.

    Raises:
        UserError: the ratio asks for more pixels than the objects have, or for fewer than one an
            object (than its closed lines, with ``keep_topology``).
    """
    options = options or WeakOptions()
    labels = _right_labels(masks, options, first, classes)
    if options.wrong == 0:
        return labels
    indices = [mask if classes is not None else np.asarray(mask) != 0 for mask in masks]
    return add_wrong_marks(labels, indices, options.wrong, options.seed, first)


def _right_labels(
    masks: Sequence[np.ndarray], options: WeakOptions, first: int, classes: int | None
) -> list[np.ndarray]:
    if options.strategy == "scribble":
        raise UserError("weak.strategy: scribbles are read from weak/, they cannot be made")
    if classes is not None:
        options.check_classes(classes)
    if options.strategy == "skeleton":
        return [
            scribble(np.asarray(mask), options, first + i, classes) for i, mask in enumerate(masks)
        ]
    kinds = max((classes or 1) - 1, 1)
    objects = [part for mask in masks for part in _objects(np.asarray(mask), classes)]
    if options.ratio is not None:
        pixels = sum(np.size(mask) for mask in masks)
        chosen = _to_ratio(objects, options, first * kinds, pixels)
    else:
        chosen = [
            _one(mask, options, first * kinds + i) if mask.any() else mask
            for i, mask in enumerate(objects)
        ]
    labels = [np.full(np.shape(mask), UNLABELLED, np.uint8) for mask in masks]
    for i, labelled in enumerate(chosen):
        labels[i // kinds][labelled] = i % kinds + 1
    return labels


def _objects(mask: np.ndarray, classes: int | None) -> list[np.ndarray]:
    """The objects of a mask one by one, bool [H, W]: of several classes each foreground class."""
    return [mask != 0] if classes is None else [mask == index for index in range(1, classes)]


def count_labelled(labels: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, object]:
    """``pixels`` labelled (not 255), their ``ratio`` (a fraction), ``per_image`` counts."""
    counts = [int(np.count_nonzero(label != UNLABELLED)) for label in labels]
    total = sum(int(label.size) for label in labels)
    return {
        "pixels": sum(counts),
        "ratio": sum(counts) / total if total else 0.0,
        "per_image": dict(zip(names, counts, strict=True)),
    }


def write_weak_labels(
    masks: str | Path,
    out: str | Path,
    options: WeakOptions | None = None,
    mask_threshold: float | None = None,
    mask_value: int | None = None,
    slices: Slices = "auto",
    classes: int | None = None,
) -> dict[str, object]:
    """``accl weaken MASKS OUT``: weak label files (0, 1, 255) for a folder of masks.

    Formats are kept (PNG for JPEG); a volume is weakened slice by slice.

    Returns:
        The report of :func:`count_labelled`, a count a file; with ``classes`` also ``per_class``,
        the pixels of each class, the background's too.

    Raises:
        UserError: ``out`` holds files already, or masks or options that cannot be.
    """
    if options is not None and options.codes_given:
        raise UserError(
            f"weak.{options.codes_given[0]} is about labels that a training reads; here masks are "
            "read, in which --mask-value or --mask-threshold chooses the object"
        )
    paths = list_files(masks, "masks")
    refuse_full(out)
    guesses = Guesses()
    files = [guesses.note(read_image(path, "mask", slices)) for path in paths.values()]
    guesses.tell()
    reader = MaskReader(mask_threshold, mask_value, classes)
    planes: list[np.ndarray] = []
    for file in files:
        planes += list(np.moveaxis(np.atleast_3d(reader.read(file)), -1, 0))
    reader.check(Path(masks))
    labels = iter(weaken(planes, options, classes=classes))
    written = []
    for file in files:
        depth = file.array.shape[2] if file.is_volume else 1
        stack = np.stack([next(labels) for _ in range(depth)], axis=-1)
        written.append(stack if file.is_volume else stack[..., 0])
        write_labels(output_path(out, file.path), written[-1], file, key="weak")
    report = count_labelled(written, list(paths))
    if classes is not None:
        report["per_class"] = {
            str(index): sum(int(np.count_nonzero(label == index)) for label in written)
            for index in range(classes)
        }
    return report


def _one(mask: np.ndarray, options: WeakOptions, index: int) -> np.ndarray:
    if options.strategy in ("auto", "erosion"):
        return _erode(mask, options.iterations, options.keep_topology)
    if options.strategy == "box":
        rows, columns = np.nonzero(mask)
        box = np.zeros_like(mask)
        m = options.margin
        box[
            max(rows.min() - m, 0) : rows.max() + m + 1,
            max(columns.min() - m, 0) : columns.max() + m + 1,
        ] = True
        return box
    distance = _distance_to_centre(mask, options, index)
    disc = mask & (distance <= options.radius)
    return disc if disc.any() else mask  # the centroid of a ring lies in its hole


def _crop(mask: np.ndarray) -> tuple[slice, ...]:
    return ndimage.find_objects(mask.astype(np.uint8))[0]


def _depth(mask: np.ndarray, transform) -> np.ndarray:
    """Distance of each object pixel to the outside, which begins at the image's border."""
    depth = np.zeros(mask.shape)
    window = _crop(mask)
    depth[window] = transform(np.pad(mask[window], 1))[1:-1, 1:-1]
    return depth


def _chessboard(mask: np.ndarray) -> np.ndarray:
    return ndimage.distance_transform_cdt(mask, metric="chessboard")


def _erode(mask: np.ndarray, iterations: int, keep_topology: bool) -> np.ndarray:
    depth = _depth(mask, _chessboard)
    times = min(iterations, int(depth.max()) - 1)
    if keep_topology:
        parts = count_parts(mask)
        times = next((n for n in range(times) if count_parts(depth > n + 1) != parts), times)
    return depth > times


def _distance_to_centre(mask: np.ndarray, options: WeakOptions, index: int) -> np.ndarray:
    if options.strategy == "disc":
        pixels = np.argwhere(mask)
        centre = pixels[np.random.default_rng((options.seed, index)).integers(len(pixels))]
    else:
        centre = np.rint(ndimage.center_of_mass(mask))
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    return np.hypot(rows - centre[0], columns - centre[1])


def _to_ratio(
    objects: list[np.ndarray], options: WeakOptions, first: int, total: int
) -> list[np.ndarray]:
    """The labels of all objects together have the ratio's share of the ``total`` pixels."""
    target = round(options.ratio * total)
    areas = np.array([np.count_nonzero(mask) for mask in objects])
    present = np.flatnonzero(areas)
    if target > areas.sum() or target < len(present):
        raise UserError(
            f"weak.ratio: {options.ratio:g} would label {target} pixels, but the masks allow from "
            f"{len(present) / total:.2g} (one pixel an object) to {areas.sum() / total:.2g} (all)"
        )
    ranks = {}
    for i in present:
        if options.strategy in ("disc", "centroid_disc"):
            ranks[i] = -_distance_to_centre(objects[i], options, first + int(i))
        else:
            ranks[i] = _depth(objects[i], ndimage.distance_transform_edt)

    chosen = list(objects)
    smallest = np.minimum(areas, 1)  # what an image cannot go below
    before = np.full(len(objects), -1)
    while True:
        counts = _share(target, areas, smallest)
        for i in np.flatnonzero(counts != before):
            if areas[i]:
                chosen[i] = _deepest(objects[i], ranks[i], counts[i], options.keep_topology)
        before = counts
        reached = np.array([np.count_nonzero(labelled) for labelled in chosen])
        if (reached == counts).all():
            return chosen
        smallest = np.maximum(smallest, np.where(reached > counts, reached, 0))
        if smallest.sum() > target:
            raise UserError(
                f"weak.ratio: {options.ratio:g} is too little to keep the topology, which takes "
                f"{smallest.sum() / total:.2g} or more"
            )


def _share(target: int, areas: np.ndarray, smallest: np.ndarray) -> np.ndarray:
    """Parts ``target`` in proportion to ``areas``, none below ``smallest``, sum exact."""
    fixed = areas == 0
    while True:
        rest = target - smallest[fixed].sum()
        free = areas[~fixed].sum()
        ideal = np.where(fixed, smallest, areas * (rest / free if free else 0.0))
        below = ~fixed & (ideal < smallest)
        if not below.any():
            break
        fixed |= below
    counts = np.floor(ideal).astype(int)
    short = target - counts.sum()
    order = np.argsort(-(ideal - counts), kind="stable")
    counts[order[:short]] += 1
    return counts


def _deepest(mask: np.ndarray, rank: np.ndarray, count: int, keep_topology: bool) -> np.ndarray:
    if keep_topology:
        return _thin_to(mask, rank, count)
    pixels = np.flatnonzero(mask)
    order = np.argsort(-rank.ravel()[pixels], kind="stable")
    labelled = np.zeros(mask.shape, bool)
    labelled.ravel()[pixels[order[:count]]] = True
    return labelled


def _thin_to(mask: np.ndarray, depth: np.ndarray, count: int) -> np.ndarray:
    window = _crop(mask)
    inside, depth = mask[window], depth[window]
    parts = count_parts(inside)
    start, level = inside, 1.0
    while True:  # whole layers first: thinning pixel by pixel is slow
        layer = depth > level
        if np.count_nonzero(layer) < count or count_parts(layer) != parts:
            break
        start, level = layer, level + 1
    labelled = np.zeros(mask.shape, bool)
    labelled[window] = thin(start, depth, count)
    return labelled
