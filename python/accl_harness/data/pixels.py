"""From file values to what the networks see: grey range and size."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from .options import UNLABELLED


def to_unit_range(array: np.ndarray) -> np.ndarray:
    """Grey values to float32 in [-1, 1].

    8-bit: v / 127.5 - 1. Anything deeper: the 0.5 to 99.5 percentile of the whole array (for a
    volume: of the volume, so that its slices stay comparable), cut off outside. A constant
    array gives -1.
    """
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(127.5) - 1
    values = array.astype(np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    if low == high:  # a few bright pixels on black
        low, high = values.min(), values.max()
    if low == high:
        return np.full(array.shape, -1, np.float32)
    return (np.clip((values - low) / (high - low), 0, 1) * 2 - 1).astype(np.float32)


def resize_image(image: np.ndarray, size: int) -> Tensor:
    """[H, W] or [H, W, D] float32 to a tensor [D, 1, size, size] (D = 1 for a flat image).

    Bilinear; when shrinking with an antialiasing filter, since dropping pixels of a speckled
    image turns its texture into noise of another kind.
    """
    planes = torch.from_numpy(np.ascontiguousarray(image))
    planes = planes[None] if planes.ndim == 2 else planes.movedim(-1, 0)
    planes = planes[:, None]
    if planes.shape[-2:] == (size, size):
        return planes.contiguous()
    planes = F.interpolate(
        planes.contiguous(), size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return planes.clamp_(-1, 1)


def _nearest(length: int, size: int) -> np.ndarray:
    """Source index whose centre lies nearest to each target pixel's centre."""
    return ((np.arange(size) + 0.5) * length / size).astype(np.intp)


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Class indices [H, W] to [size, size]: nearest, but no object class of the image is lost.

    An image whose object is smaller than a pixel of the working size would say that there is none.
    """
    return _with_lost(mask, _sampled(mask, size), unguarded=0)


def lost_classes(mask: np.ndarray, size: int) -> list[int]:
    """The object classes of a mask [H, W] that plain sampling to [size, size] would lose."""
    return _lost(mask, _sampled(mask, size), unguarded=0)


def resize_weak(labels: np.ndarray, size: int) -> np.ndarray:
    """Weak labels [H, W] to [size, size]: nearest, but no label value of the image is lost.

    Nearest keeps the share of labelled pixels and, as masks are sampled at the same points, keeps
    every label on its object; pooling ("any pixel labelled") would widen the labels over the
    boundary. What nearest can lose is an image's whole annotation of a few pixels: then the
    target pixel of the deepest labelled one is set.
    """
    return _with_lost(labels, _sampled(labels, size), unguarded=UNLABELLED)


def _sampled(labels: np.ndarray, size: int) -> np.ndarray:
    if labels.shape == (size, size):
        return labels
    return labels[np.ix_(_nearest(labels.shape[0], size), _nearest(labels.shape[1], size))]


def _lost(labels: np.ndarray, resized: np.ndarray, unguarded: int) -> list[int]:
    if resized is labels:
        return []
    return [int(v) for v in np.setdiff1d(labels, resized) if v != unguarded]


def _with_lost(labels: np.ndarray, resized: np.ndarray, unguarded: int) -> np.ndarray:
    """``resized`` with a pixel for each value that it lacks, where that value lies deepest."""
    lost = _lost(labels, resized, unguarded)
    if lost:
        resized = resized.copy()
    for value in lost:
        depth = ndimage.distance_transform_edt(np.pad(labels == value, 1))[1:-1, 1:-1]
        place = np.unravel_index(depth.argmax(), depth.shape)
        row, column = (
            i * side // full
            for i, side, full in zip(place, resized.shape, labels.shape, strict=True)
        )
        resized[row, column] = value
    return resized
