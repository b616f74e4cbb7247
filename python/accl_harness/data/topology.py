"""Shrinking a binary mask without breaking it: components and holes stay what they were.

Foreground is 8-connected, background 4-connected, as a digital picture needs.
"""

from __future__ import annotations

import heapq
from functools import lru_cache

import numpy as np
from scipy import ndimage

FULL = np.ones((3, 3), bool)
"""The full 3 x 3 element: erosion by it, and 8-connectivity."""


def count_parts(mask: np.ndarray) -> tuple[int, int]:
    """Number of components and of holes of a mask [H, W]."""
    components = ndimage.label(mask, structure=FULL)[1]
    holes = ndimage.label(np.pad(~mask.astype(bool), 1, constant_values=True))[1] - 1
    return components, holes


@lru_cache(maxsize=1)
def _simple_neighbourhoods() -> tuple[bool, ...]:
    """For each of the 256 neighbourhoods: may its centre be removed without a change of topology?

    It may if its foreground neighbours form one 8-component and the background among them that
    touches the centre's four sides forms one 4-component.
    """
    table = []
    for code in range(256):
        ring = np.array([code >> bit & 1 for bit in range(8)], bool)
        square = np.zeros(9, bool)
        square[[0, 1, 2, 3, 5, 6, 7, 8]] = ring
        square = square.reshape(3, 3)
        foreground = ndimage.label(square, structure=FULL)[1]
        background = ~square
        background[1, 1] = False
        parts = ndimage.label(background)[0]
        sides = {int(parts[i, j]) for i, j in ((0, 1), (1, 0), (1, 2), (2, 1))} - {0}
        table.append(foreground == 1 and len(sides) == 1)
    return tuple(table)


def thin(
    mask: np.ndarray, depth: np.ndarray, count: int, ends: np.ndarray | None = None
) -> np.ndarray:
    """Take away the shallowest removable pixels of ``mask`` until ``count`` are left.

    Only simple points go, so a disc shrinks to a point at worst and a ring to a closed line; more
    than ``count`` pixels are left where the topology asks for them.

    Args:
        mask: [H, W], object where not 0.
        depth: [H, W], the order of removal (a distance transform).
        count: number of pixels wanted.
        ends: bool [H, W], where the end of a line stays; None: nowhere.

    Returns:
        Bool [H, W].
    """
    simple = _simple_neighbourhoods()
    kept_ends = np.pad(np.zeros(mask.shape, bool) if ends is None else ends, 1).ravel().tolist()
    padded = np.pad(mask.astype(bool), 1)
    width = padded.shape[1]
    pixels = padded.ravel().tolist()
    depths = np.pad(depth, 1).ravel().tolist()
    offsets = (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1)

    def removable(pixel: int) -> bool:
        code = 0
        for bit, offset in enumerate(offsets):
            if pixels[pixel + offset]:
                code |= 1 << bit
        is_end = code & (code - 1) == 0  # one neighbour, or none
        return simple[code] and not (is_end and kept_ends[pixel])

    heap = [(depths[pixel], pixel) for pixel in np.flatnonzero(padded).tolist()]
    heapq.heapify(heap)
    left = len(heap)
    kept: set[int] = set()
    while heap and left > count:
        level, pixel = heapq.heappop(heap)
        if not pixels[pixel]:
            continue
        if not removable(pixel):
            kept.add(pixel)
            continue
        pixels[pixel] = False
        left -= 1
        for offset in offsets:
            neighbour = pixel + offset
            if neighbour in kept:  # it may have become simple: look again, at its turn or now
                kept.discard(neighbour)
                heapq.heappush(heap, (max(level, depths[neighbour]), neighbour))
    return np.array(pixels).reshape(padded.shape)[1:-1, 1:-1]
