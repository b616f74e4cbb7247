"""Outlines, lines, points and brush masks as pixels.

Coordinates are (x, y) with the pixel in row r and column c covering [c, c + 1) x [r, r + 1), as in
LabelMe, COCO, CVAT and QuPath. A pixel belongs to a shape if its centre does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from ..errors import UserError

Kind = Literal["area", "box", "line", "points", "mask"]

ROUND = 180
"""Corners of the polygon that stands for a circle or an ellipse."""


@dataclass(frozen=True)
class Shape:
    """One mark as a tool has it."""

    label: str
    """What the tool calls its class."""
    kind: Kind
    rings: list[np.ndarray] = field(default_factory=list)
    """float64 [n, 2] each, (x, y): outlines and holes of an area, lines, or points."""
    mask: np.ndarray | None = None
    """bool [h, w] of a brush, at ``corner``."""
    corner: tuple[int, int] = (0, 0)
    """Row and column of the brush mask's first pixel."""
    level: int = 0
    """Where two shapes share a pixel, the higher level lies on top."""


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0.0) -> np.ndarray:
    """The outline of an ellipse, [n, 2]; half axes, turned clockwise as seen on the screen."""
    angle = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)
    return turned(np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], 1), degrees)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The outline of a box, [4, 2]."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


def turned(ring: np.ndarray, degrees: float) -> np.ndarray:
    """Points turned about their centre, clockwise as seen on the screen."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = (ring.min(0) + ring.max(0)) / 2
    return (ring - centre) @ turn + centre


def draw(shape: Shape, size: tuple[int, int], stroke: float, clip: bool = False) -> np.ndarray:
    """The pixels of a shape: bool [H, W].

    Args:
        shape: with coordinates in pixels of the image.
        size: height and width.
        stroke: lines are so wide, points are discs of this diameter, in pixels.
        clip: what lies outside of the image is cut off and not refused.

    Raises:
        UserError: it reaches more than a pixel out of the image, or marks no pixel.
    """
    if not clip:
        _refuse_outside(shape, size)
    if shape.mask is not None:
        drawn = _placed(shape.mask, shape.corner, size)
    elif shape.kind in ("area", "box"):
        drawn = fill(shape.rings, size)
    else:
        drawn = np.zeros(size, bool)
        for ring in shape.rings:
            if shape.kind == "points" or len(ring) == 1:
                for point in ring:
                    _mark_near(drawn, point, point, stroke / 2)
            for start, end in pairwise(ring) if shape.kind == "line" else ():
                _mark_near(drawn, start, end, stroke / 2)
    if not drawn.any():
        raise UserError(f"{describe(shape)} covers the centre of no pixel")
    return drawn


def describe(shape: Shape) -> str:
    """A shape for a message."""
    what = {
        "area": "polygon",
        "box": "box",
        "line": "line",
        "points": "point",
        "mask": "brush mask",
    }
    low, high = extent(shape)
    place = f"x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}"
    return f"{what[shape.kind]} '{shape.label}' ({place})"


def extent(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest (x, y) of a shape."""
    if shape.mask is not None:
        low = np.array(shape.corner[::-1], float)
        return low, low + shape.mask.shape[::-1]
    points = np.concatenate(shape.rings)
    return points.min(0), points.max(0)


def _refuse_outside(shape: Shape, size: tuple[int, int]) -> None:
    low, high = extent(shape)
    slack = 0 if shape.mask is not None else 1
    if (low < -slack).any() or (high > np.array(size[::-1]) + slack).any():
        raise UserError(
            f"{describe(shape)} lies outside of its image, which is {size[1]} wide and {size[0]} "
            "high; correct it in the tool, or give --clip to cut it off at the image's edge"
        )


def _placed(mask: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    drawn = np.zeros(size, bool)
    rows = np.arange(mask.shape[0]) + corner[0]
    columns = np.arange(mask.shape[1]) + corner[1]
    inside = np.ix_((rows >= 0) & (rows < size[0]), (columns >= 0) & (columns < size[1]))
    top, left = max(corner[0], 0), max(corner[1], 0)
    part = mask[inside]
    drawn[top : top + part.shape[0], left : left + part.shape[1]] = part
    return drawn


def fill(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside an odd number of rings, so inner rings are holes.

    Of two areas that share an edge, no pixel belongs to both.

    Args:
        rings: closed outlines, float [n, 2] of (x, y).
        size: height and width.

    Returns:
        bool [H, W].
    """
    height, width = size
    flips = np.zeros((height, width + 1), np.int64)
    for ring in rings:
        start, end = ring, np.roll(ring, -1, axis=0)
        for (x0, y0), (x1, y1) in zip(start, end, strict=True):
            low, high = sorted((y0, y1))
            # Rows whose centre r + 0.5 is in [low, high): each crossing counts once.
            first, last = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in (low, high))
            if first >= last:
                continue
            rows = np.arange(first, last)
            crossing = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)
            flips[rows, columns] += 1
    return (flips.cumsum(1)[:, :width] % 2).astype(bool)


def _mark_near(drawn: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> None:
    """Mark the pixels whose centre is at most ``radius`` from the segment.

    At least half a pixel, with which a line has no gap; a single point marks its own pixel.
    """
    radius = max(radius, 0.5)
    low = np.floor(np.minimum(start, end) - radius).astype(int)
    high = np.ceil(np.maximum(start, end) + radius).astype(int) + 1
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, drawn.shape[::-1])
    if left >= right or top >= bottom:
        return
    rows, columns = np.mgrid[top:bottom, left:right]
    centre = np.stack([columns + 0.5, rows + 0.5], -1)
    along = np.asarray(end, float) - start
    length = along @ along
    share = np.clip((centre - start) @ along / length, 0, 1)[..., None] if length else 0.0
    distance = np.linalg.norm(centre - (start + share * along), axis=-1)
    drawn[top:bottom, left:right] |= distance <= radius + 1e-9
    for x, y in (start, end):
        row, column = int(np.floor(y)), int(np.floor(x))
        if 0 <= row < drawn.shape[0] and 0 <= column < drawn.shape[1]:
            drawn[row, column] = True


def of_runs(runs: list[int], size: tuple[int, int], by_columns: bool) -> np.ndarray:
    """A mask from the lengths of its runs, of 0 first: bool [h, w].

    Args:
        runs: lengths; their sum is the mask's size.
        size: height and width.
        by_columns: the runs go down the columns, as in COCO; else along the rows, as in CVAT.

    Raises:
        UserError: the runs do not fill the mask.
    """
    if min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
        raise UserError(f"a brush mask of {size[0]} x {size[1]} has runs for {sum(runs)} pixels")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(size[::-1]).T if by_columns else values.reshape(size)
