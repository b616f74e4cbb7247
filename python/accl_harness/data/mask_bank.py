"""Many reference masks from one or a few painted ones: shift, flip, scale, rotation, warping.

A mask is moved as its signed distance map, interpolated and cut at 0: an enlarged outline stays
smooth, where enlarged pixels would tell the discriminator real from false by their steps. Of
several classes the whole label map takes one move: all of its objects together as one mask, and
within that the class whose own distance map is largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from ..errors import UserError
from .options import MaskBankOptions
from .topology import count_parts

_TRIES = 80
_BROKEN_TRIES = 10
_SHRINK = 0.95


class Reference(NamedTuple):
    """One made mask."""

    mask: np.ndarray
    """Class indices, uint8 [H, W], the size of the mask it was made from."""
    parameters: dict[str, Any]
    """What was drawn: source, flips, scale, rotation (degrees), warp (pixels), shift (pixels)."""


def make_masks(
    masks: Sequence[np.ndarray],
    n: int,
    seed: int = 0,
    mask_bank: MaskBankOptions | None = None,
    classes: int | None = None,
) -> list[Reference]:
    """Make ``n`` reference masks from painted ones, which take turns.

    The whole object stays in the frame: where a drawn scale does not fit it is reduced until it
    does; where warping breaks a thin ring or splits an object, warp and scale are drawn back.
    Mask ``i`` depends on ``seed``, ``i`` and its source alone.

    Args:
        masks: [H, W] each, object where not 0.
        n: number of masks.
        seed: of the random changes.
        mask_bank: their ranges.
        classes: the masks hold class indices below this number, which move together; None: one
            object.

    Raises:
        UserError: no mask, an empty mask, n below 1 or a negative seed.
    """
    mask_bank = mask_bank or MaskBankOptions()
    if n < 1:
        raise UserError(f"n: wanted at least 1 reference mask, got {n}")
    if seed < 0:
        raise UserError(f"seed: wanted 0 or more, got {seed}")
    if not masks:
        raise UserError("references: wanted at least one painted mask")
    arrays = [np.asarray(mask) for mask in masks]
    for i, mask in enumerate(arrays):
        if not mask.any():
            raise UserError(f"references: painted mask {i} is empty; take it out")
    painted = [_Painted(mask, classes) for mask in arrays]
    made = []
    for i in range(n):
        source = i % len(painted)
        rng = np.random.default_rng((seed, i))
        made.append(_one(painted[source], source, mask_bank, rng))
    return made


class _Painted:
    """A painted mask as what is moved: its objects together, and each class of several."""

    def __init__(self, mask: np.ndarray, classes: int | None):
        self.mask = mask != 0
        self.distance = _signed_distance(self.mask)
        self.indices, self.distances = [1], []
        if classes is not None:
            self.indices = [index for index in range(1, classes) if (mask == index).any()]
            self.distances = [_signed_distance(mask == index) for index in self.indices]
        self.parts = self.topology(self.mask if classes is None else mask)

    def topology(self, labels: np.ndarray) -> list[tuple[int, int]]:
        """Number of components and of holes of each class."""
        return [count_parts(labels == index) for index in self.indices]


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the outline, positive inside; the image's border is no outline."""
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    if mask.all():
        inside = np.full(mask.shape, float(max(mask.shape)))
    return np.where(mask, inside - 0.5, 0.5 - outside)


def _one(
    painted: _Painted, source: int, ranges: MaskBankOptions, rng: np.random.Generator
) -> Reference:
    mask = painted.mask
    window = ndimage.find_objects(mask.astype(np.uint8))[0]
    centre = np.array([(s.start + s.stop - 1) / 2 for s in window])
    diameter = max(s.stop - s.start for s in window)

    flips = (rng.random(2) < 0.5) & ranges.flip
    scale = float(np.exp(rng.uniform(np.log(ranges.scale_min), np.log(ranges.scale_max))))
    angle = float(rng.uniform(-ranges.rotation, ranges.rotation))
    field = [
        ndimage.gaussian_filter(rng.standard_normal(mask.shape), ranges.warp_smoothness * diameter)
        for _ in range(2)
    ]
    amplitude = ranges.warp * diameter
    warp = [f / max(float(f.std()), 1e-12) for f in field]
    place = rng.random(2)

    moved, broken = None, 0
    for _ in range(_TRIES):
        candidate = _transform(painted, centre, flips, scale, angle, [amplitude * f for f in warp])
        if candidate is None:
            scale *= _SHRINK
        elif broken < _BROKEN_TRIES and painted.topology(candidate) != painted.parts:
            # A thin ring opened.
            scale, amplitude, broken = scale**0.5, amplitude / 2, broken + 1
        else:
            moved = candidate
            break
    if moved is None:
        raise UserError(
            f"references: painted mask {source} is too thin to be scaled by {scale:.2g}"
        )
    shifted, shift = _place(moved, window, place, ranges.shift)
    parameters = {
        "source": source,
        "flip_rows": bool(flips[0]),
        "flip_columns": bool(flips[1]),
        "scale": round(scale, 4),
        "rotation": round(angle, 2),
        "warp": round(amplitude, 2),
        "shift": [int(s) for s in shift],
        "pixels": int(np.count_nonzero(shifted)),
    }
    return Reference(shifted, parameters)


def _transform(
    painted: _Painted,
    centre: np.ndarray,
    flips: np.ndarray,
    scale: float,
    angle: float,
    warp: list[np.ndarray],
) -> np.ndarray | None:
    """The objects about the middle of the frame, as uint8 class indices.

    None if there are none or one reaches over the border.
    """
    shape = painted.mask.shape
    # A whole number of pixels from where the object lies: moving alone changes no outline.
    middle = [c + round((side - 1) / 2 - c) for c, side in zip(centre, shape, strict=True)]
    rows, columns = np.indices(shape).astype(float)
    rows = rows - middle[0] + warp[0]
    columns = columns - middle[1] + warp[1]
    cos, sin = np.cos(np.radians(angle)) / scale, np.sin(np.radians(angle)) / scale
    sign = np.where(flips, -1.0, 1.0)
    source_rows = centre[0] + sign[0] * (cos * rows + sin * columns)
    source_columns = centre[1] + sign[1] * (cos * columns - sin * rows)
    places = [source_rows, source_columns]

    def at_places(distance: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(distance, places, order=1, mode="constant", cval=-np.inf)

    moved = at_places(painted.distance) > 0
    border = moved[0].any() or moved[-1].any() or moved[:, 0].any() or moved[:, -1].any()
    if border or not moved.any():
        return None
    if not painted.distances:
        return moved.astype(np.uint8)
    nearest = np.argmax([at_places(distance) for distance in painted.distances], axis=0)
    return np.where(moved, np.array(painted.indices, np.uint8)[nearest], np.uint8(0))


def _place(
    mask: np.ndarray, painted: tuple[slice, ...], place: np.ndarray, reach: float
) -> tuple[np.ndarray, list[int]]:
    """Put the objects somewhere within ``reach`` of where the painted one lies, in the frame.

    Returns:
        The mask, and how far its centre lies from the painted one's, rows and columns.
    """
    window = ndimage.find_objects((mask != 0).astype(np.uint8))[0]
    corner, shift = [], []
    for axis in range(2):
        side, extent = mask.shape[axis], window[axis].stop - window[axis].start
        home = (painted[axis].start + painted[axis].stop - extent) / 2
        low = min(max(round(home - reach * side), 0), side - extent)
        high = max(min(round(home + reach * side), side - extent), low)
        corner.append(low + int(place[axis] * (high - low + 1)))
        shift.append(round(corner[-1] - home))
    result = np.zeros(mask.shape, np.uint8)
    target = tuple(
        slice(start, start + part.stop - part.start)
        for start, part in zip(corner, window, strict=True)
    )
    result[target] = mask[window]
    return result, shift
