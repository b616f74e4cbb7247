"""Many reference masks from one or a few painted ones: shift, flip, scale, rotation, warping.

A mask is moved as its signed distance map, interpolated and cut at 0: an enlarged outline stays
smooth, where enlarged pixels would tell the discriminator real from false by their steps.
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
    """uint8 [H, W] {0, 1}, the size of the mask it was made from."""
    parameters: dict[str, Any]
    """What was drawn: source, flips, scale, rotation (degrees), warp (pixels), shift (pixels)."""


def make_masks(
    masks: Sequence[np.ndarray],
    n: int,
    seed: int = 0,
    mask_bank: MaskBankOptions | None = None,
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
    objects = [np.asarray(mask) != 0 for mask in masks]
    for i, mask in enumerate(objects):
        if not mask.any():
            raise UserError(f"references: painted mask {i} is empty; take it out")
    distances = [_signed_distance(mask) for mask in objects]
    made = []
    for i in range(n):
        source = i % len(objects)
        rng = np.random.default_rng((seed, i))
        made.append(_one(objects[source], distances[source], source, mask_bank, rng))
    return made


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the outline, positive inside; the image's border is no outline."""
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    if mask.all():
        inside = np.full(mask.shape, float(max(mask.shape)))
    return np.where(mask, inside - 0.5, 0.5 - outside)


def _one(
    mask: np.ndarray,
    distance: np.ndarray,
    source: int,
    ranges: MaskBankOptions,
    rng: np.random.Generator,
) -> Reference:
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

    parts = count_parts(mask)
    moved, broken = None, 0
    for _ in range(_TRIES):
        candidate = _transform(distance, centre, flips, scale, angle, [amplitude * f for f in warp])
        if candidate is None:
            scale *= _SHRINK
        elif broken < _BROKEN_TRIES and count_parts(candidate) != parts:  # a thin ring opened
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
        "pixels": int(shifted.sum()),
    }
    return Reference(shifted, parameters)


def _transform(
    distance: np.ndarray,
    centre: np.ndarray,
    flips: np.ndarray,
    scale: float,
    angle: float,
    warp: list[np.ndarray],
) -> np.ndarray | None:
    """The object about the middle of the frame; None if it is empty or reaches over the border."""
    shape = distance.shape
    # A whole number of pixels from where the object lies: moving alone changes no outline.
    middle = [c + round((side - 1) / 2 - c) for c, side in zip(centre, shape, strict=True)]
    rows, columns = np.indices(shape).astype(float)
    rows = rows - middle[0] + warp[0]
    columns = columns - middle[1] + warp[1]
    cos, sin = np.cos(np.radians(angle)) / scale, np.sin(np.radians(angle)) / scale
    sign = np.where(flips, -1.0, 1.0)
    source_rows = centre[0] + sign[0] * (cos * rows + sin * columns)
    source_columns = centre[1] + sign[1] * (cos * columns - sin * rows)
    moved = ndimage.map_coordinates(
        distance, [source_rows, source_columns], order=1, mode="constant", cval=-np.inf
    )
    moved = moved > 0
    border = moved[0].any() or moved[-1].any() or moved[:, 0].any() or moved[:, -1].any()
    return None if border or not moved.any() else moved


def _place(
    mask: np.ndarray, painted: tuple[slice, ...], place: np.ndarray, reach: float
) -> tuple[np.ndarray, list[int]]:
    """Put the object somewhere within ``reach`` of where the painted one lies, in the frame.

    Returns:
        The mask, and how far its centre lies from the painted one's, rows and columns.
    """
    window = ndimage.find_objects(mask.astype(np.uint8))[0]
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
