"""Objects that are too small for the working size are told before a training, not after it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..errors import HarnessWarning
from .pixels import lost_classes


def tell_small_objects(masks: Sequence[np.ndarray], size: int, folder: Path) -> None:
    """Warn where a pixel must stand for an object that sampling to the working size would miss.

    Args:
        masks: class indices [H, W] each, at the images' own size.
        size: the working size.
        folder: the masks were read from.
    """
    needed = [_size_for(mask == index) for mask in masks for index in lost_classes(mask, size)]
    if needed:
        one = len(needed) == 1
        warnings.warn(
            f"{folder}: {len(needed)} object{'' if one else 's'} of {len(masks)} masks "
            f"{'is' if one else 'are'} smaller than a pixel at --size {size}, where a pixel stands "
            f"for each; --size {max(needed)} or more shows all of them",
            HarnessWarning,
            stacklevel=2,
        )


def _size_for(found: np.ndarray) -> int:
    """The working size at which sampling meets an object, bool [H, W], for sure.

    Sample points lie a pixel of the working size apart, so that must be no wider than the largest
    square inside the object.
    """
    depth = ndimage.distance_transform_cdt(np.pad(found, 1), metric="chessboard").max()
    return math.ceil(max(found.shape) / (2 * int(depth) - 1))
