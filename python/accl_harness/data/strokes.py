"""Scribbles as people draw them, made from masks: a line in every class, the background too.

An object's line is its skeleton; where that says little, as a disc's single point, the outline of
its inner half. The background's line runs around the objects. Lines are bent a little and a part of
each is drawn, one pixel wide.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .options import UNLABELLED, WeakOptions
from .topology import FULL, thin

GAP = (0.03, 0.1)
"""Distance of the background's line from the objects, as a share of the image's longer side."""
BEND = 0.15
"""The jitter is smooth over this share of a line's extent."""
WIDE = 0.75
"""Pixels within this distance of the bent line belong to it."""


def scribble(mask: np.ndarray, options: WeakOptions, index: int, classes: int | None) -> np.ndarray:
    """Scribble of one mask: uint8 [H, W], class indices and 255 unlabelled.

    Args:
        mask: [H, W], object where not 0; with ``classes`` class indices below that number.
        options: their ``stroke``, ``jitter`` and ``seed`` count.
        index: the image's place in the data set, which decides with the seed.
        classes: number of classes; None: one object and its background.
    """
    labels = np.full(mask.shape, UNLABELLED, np.uint8)
    indices = mask if classes is not None else (mask != 0).astype(np.uint8)
    for kind in range(classes or 2):
        region = indices == kind
        if not region.any():
            continue
        rng = np.random.default_rng((options.seed, index, kind))
        lines = [_around(region, rng)] if kind == 0 else _object_lines(region)
        for line in lines:
            labels[_drawn(line, region, options, rng)] = kind
    return labels


def _object_lines(region: np.ndarray) -> list[np.ndarray]:
    """A line for each component, bool [H, W] each."""
    parts, _ = ndimage.label(region, structure=FULL)
    lines = []
    for number, window in enumerate(ndimage.find_objects(parts), 1):
        part = np.pad(parts[window] == number, 1)
        line = np.zeros(region.shape, bool)
        line[window] = _middle(part)[1:-1, 1:-1]
        lines.append(line)
    return lines


def _middle(part: np.ndarray) -> np.ndarray:
    """The skeleton of one component, or the outline of its inner half.

    The latter where the skeleton is shorter than the object is wide.
    """
    depth = ndimage.distance_transform_edt(part)
    deepest = depth.max()
    skeleton = thin(part, depth, 0, ends=depth >= deepest / 2)
    if np.count_nonzero(skeleton) >= 2 * deepest:
        return skeleton
    inner = depth > deepest / 2
    return inner & ~ndimage.binary_erosion(inner)


def _around(background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A line around what is not background, at a distance; in an empty mask at half depth."""
    if background.all():
        rows, columns = np.indices(background.shape)
        sides = (rows, columns, rows[::-1], columns[:, ::-1])
        depth = np.minimum.reduce(sides)
        return depth == depth.max() // 2
    distance = ndimage.distance_transform_edt(background)
    gap = max(rng.uniform(*GAP) * max(background.shape), 1.5)
    near = distance <= min(gap, 0.7 * distance.max())
    # The image's border is no outline.
    return near & ~ndimage.binary_erosion(near, border_value=1)


def _drawn(
    line: np.ndarray, region: np.ndarray, options: WeakOptions, rng: np.random.Generator
) -> np.ndarray:
    """The part of a line that is drawn, bent, inside its region; at least one pixel."""
    part = _cut(line, options.stroke, rng)
    window = tuple(
        slice(max(int(places.min()) - 4, 0), int(places.max()) + 5) for places in np.nonzero(part)
    )
    part, inside = part[window], region[window]
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    smooth = max(BEND * max(part.shape), 2.0)
    grid = np.indices(part.shape).astype(float)
    for axis in range(2):
        noise = ndimage.gaussian_filter(rng.standard_normal(part.shape), smooth)
        bend = noise / max(float(np.abs(noise).max()), 1e-12)
        grid[axis] += options.jitter * np.minimum(depth, 2 * smooth) * bend
    distance = ndimage.distance_transform_edt(~part)
    bent = ndimage.map_coordinates(distance, grid, order=1, mode="nearest") < WIDE
    bent &= inside
    result = np.zeros(line.shape, bool)
    result[window] = bent if bent.any() else part & inside
    return result


def _cut(line: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A share of a line's pixels that hang together, from a random one on."""
    places = np.argwhere(line)
    wanted = max(round(share * len(places)), 1)
    left = {tuple(place) for place in places.tolist()}
    chosen: list[tuple[int, int]] = []
    start = tuple(places[rng.integers(len(places))].tolist())
    queue = [start]
    left.discard(start)
    while len(chosen) < wanted:
        if not queue:  # another piece of the line
            queue.append(left.pop())
        row, column = queue.pop(0)
        chosen.append((row, column))
        for step in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            near = (row + step[0], column + step[1])
            if near in left:
                left.discard(near)
                queue.append(near)
    part = np.zeros(line.shape, bool)
    part[tuple(np.array(chosen).T)] = True
    return part
