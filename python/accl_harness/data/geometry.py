"""Where the voxels of a file lie: which axis the slices are on, and the way into the world."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import HarnessWarning, UserError
from .options import Slices

TOLERANCE = 0.1
"""Largest distance, in voxels, between the grids of an image and of its mask."""


@dataclass(frozen=True)
class Layout:
    """How an array [H, W] or [H, W, D] lies in its file."""

    shape: tuple[int, ...]
    """As stored."""
    axes: tuple[int, ...]
    """Stored axes, those of length 1 around the others left out, in the array's order."""
    sure: bool = True
    """Nothing about the order of the axes was guessed."""

    def restore(self, array: np.ndarray) -> np.ndarray:
        """The array as the file has it."""
        return np.ascontiguousarray(array.transpose(np.argsort(self.axes)).reshape(self.shape))

    @property
    def slices(self) -> Slices:
        """The axis of a volume's slices in its file."""
        return "first" if self.axes == (1, 2, 0) else "last"


def arrange(
    stored: np.ndarray,
    *,
    slices: Slices,
    usual: Slices,
    known: bool = True,
    spacing: tuple[float, ...] = (),
) -> tuple[np.ndarray, Layout]:
    """Lay a stored array out as [H, W] or [H, W, D], and know the way back.

    Args:
        stored: the array as the file has it.
        slices: the axis of the slices. With ``auto`` a shape or spacing that clearly says otherwise
            than ``usual`` is followed; the layout is then not sure.
        usual: where files of this kind have their slices, ``first`` or ``last``.
        known: the format says so, it is no mere habit.
        spacing: of the three stored axes, where the format has it.
    """
    if stored.ndim != 3:
        return stored, Layout(stored.shape, tuple(range(stored.ndim)))
    guess = _slice_axis(stored.shape, spacing, known) if slices == "auto" else slices
    sure = slices != "auto" or guess == usual or (known and guess is None)
    axes = (1, 2, 0) if (guess or usual) == "first" else (0, 1, 2)
    return stored.transpose(axes), Layout(stored.shape, axes, sure)


def _slice_axis(shape: tuple[int, ...], spacing: tuple[float, ...], known: bool) -> Slices | None:
    """The axis of the slices where it can be told, else None."""
    if len(spacing) == 3 and min(spacing) > 0:
        for name, axis in (("first", 0), ("last", 2)):
            if spacing[axis] > 1.5 * max(np.delete(spacing, axis)):
                return name
    factor = 4 if known else 2
    for name, axis in (("first", 0), ("last", 2)):
        if factor * shape[axis] <= min(np.delete(shape, axis)):
            return name
    if not known and (shape[1] == shape[2]) != (shape[0] == shape[1]):
        return "first" if shape[1] == shape[2] else "last"
    return None


@dataclass(frozen=True)
class Geometry:
    """Ways from voxel indices of an array [H, W, D] to mm in the world.

    The world's axes are right, anterior, superior. A file may state several ways, the first counts.
    """

    affines: tuple[np.ndarray, ...]
    convention: str = "nifti"
    """Formats of one convention name their axes alike."""
    default: bool = False
    """The affine is what a format has where nobody said anything."""

    @property
    def affine(self) -> np.ndarray:
        """The affine that is taken."""
        return self.affines[0]

    def permuted(self, axes: tuple[int, ...]) -> Geometry:
        """For an array whose axes have been transposed."""
        order = [*axes, *range(len(axes), 4)]
        return replace(self, affines=tuple(affine[:, order] for affine in self.affines))


def make_geometry(affines: list[np.ndarray], convention: str, default: bool) -> Geometry | None:
    """None where no affine can be inverted."""
    good = [
        affine
        for affine in affines
        if np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-12
    ]
    return Geometry(tuple(good), convention, default) if good else None


def match(
    array: np.ndarray,
    geometry: Geometry | None,
    path: Path,
    target_shape: tuple[int, ...],
    target: Geometry | None,
    target_path: Path,
) -> np.ndarray:
    """The labels ``array`` on the grid of its image: turned and flipped where that is exact.

    Raises:
        UserError: the grids differ by more than the order of the axes; names both files.
    """
    if geometry is None or target is None:
        return array
    same = array.shape == target_shape
    if same and any(
        _moves(own, other, array.shape) == ((0, 1, 2), (1, 1, 1))
        for own, other in itertools.product(geometry.affines, target.affines)
    ):
        return array
    moves = _moves(geometry.affine, target.affine, array.shape)
    if moves is not None:
        axes, signs = moves
        volume = array if array.ndim == 3 else array[..., None]
        turned = volume.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
        turned = turned if array.ndim == 3 else turned[..., 0]
        if turned.shape == target_shape:
            return np.ascontiguousarray(turned)
    alike = same and geometry.convention == target.convention
    if alike and geometry.default != target.default:
        lost = path if geometry.default else target_path
        warnings.warn(
            f"{lost}: states no position (an identity affine), so {path} and {target_path} are "
            "laid on each other voxel by voxel",
            HarnessWarning,
            stacklevel=2,
        )
        return array
    raise UserError(
        f"{path}: lies elsewhere in the world than its image {target_path} "
        f"({_position(geometry.affine, array.shape)}; the image: "
        f"{_position(target.affine, target_shape)}); resample it to the image's grid, or save it "
        "with the image's affine if its header alone is wrong"
    )


def _moves(
    own: np.ndarray, target: np.ndarray, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Axes and signs that carry an array of ``shape`` to the target's grid; None if none do."""
    shape = (*shape, 1)[:3]
    to_target = np.linalg.inv(target) @ own
    linear, shift = to_target[:3, :3], to_target[:3, 3]
    axes, signs = [None] * 3, [1] * 3
    for axis in sorted(range(3), key=lambda axis: shape[axis] == 1):
        column = np.abs(linear[:, axis])
        if shape[axis] == 1:  # its direction and thickness do not matter
            column = np.where([a is None for a in axes], column, -1)
        place = int(column.argmax())
        if axes[place] is not None:
            return None
        axes[place] = axis
        signs[place] = -1 if shape[axis] > 1 and linear[place, axis] < 0 else 1
    wanted = np.zeros((3, 4))
    for place, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        wanted[place, axis] = sign
        wanted[place, 3] = shape[axis] - 1 if sign < 0 else 0
    corners = np.array(list(itertools.product(*((0, length - 1) for length in shape))))
    found = corners @ linear.T + shift
    if np.abs(found - (corners @ wanted[:, :3].T + wanted[:, 3])).max() > TOLERANCE:
        return None
    return tuple(axes), tuple(signs)


def _position(affine: np.ndarray, shape: tuple[int, ...]) -> str:
    spacing = " x ".join(f"{s:.4g}" for s in np.linalg.norm(affine[:3, :3], axis=0))
    size = " x ".join(map(str, shape))
    corner = ", ".join(f"{value:.4g}" for value in affine[:3, 3])
    axes = "".join(
        "RAS"[i] if affine[i, column] > 0 else "LPI"[i]
        for column in range(3)
        for i in [int(np.abs(affine[:3, column]).argmax())]
    )
    return f"{size} voxels of {spacing} mm, axes to {axes}, from ({corner})"
