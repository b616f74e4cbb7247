"""Masks grown from marks, written for people: the command ``accl grow``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ..classes import decide, foreground_maps
from ..data.dataset import Dataset, load_images
from ..data.formats import read_image, refuse_full
from ..data.grow import needs_sizes, with_grown_labels
from ..data.options import UNLABELLED, Slices, WeakOptions
from ..data.pairing import list_files, partners, read_partner
from ..data.pixels import resize_mask, resize_weak
from ..data.references import read_masks
from ..data.weak_files import WeakReader
from ..errors import UserError
from .predict import write_predictions


def grow(
    marks: str | Path,
    out: str | Path,
    images: str | Path,
    references: str | Path | None = None,
    *,
    size: int = 128,
    weak: WeakOptions | None = None,
    mask_threshold: float | None = None,
    mask_value: int | None = None,
    slices: Slices = "auto",
    classes: int | None = None,
) -> dict[str, object]:
    """``accl grow MARKS OUT``: a mask for each image, grown from its marks.

    The walker works on squares of ``size`` pixels, as a training with method ``walker`` does; the
    masks are brought to the images' own size, and the marks themselves stay as they are.

    Args:
        marks: folder of weak label files, named as the images.
        out: folder for the masks (new or empty), in the images' formats.
        images: folder of the images.
        references: folder or file of painted masks of any images; needed where an image has no
            background marked.
        size: the working size.
        weak: which values of the marks stand for what.
        mask_threshold: the object of a painted mask is where it exceeds this value.
        mask_value: the object of a painted mask is where it equals this value.
        slices: axis of a volume's slices.
        classes: marks and painted masks hold class indices below this number.

    Returns:
        A report: ``count`` of the masks, and ``unmarked``, the names of images without a mark. Such
        an image gets no mask; such a slice of a volume is left background.

    Raises:
        UserError: files that cannot be read or do not fit together, no mark at all, or marks
            without background and no painted masks.
    """
    refuse_full(out)
    if size < 1:
        raise UserError(f"size: wanted 1 or more, got {size}")
    dataset = load_images(images, size=size, slices=slices)
    full = _read_marks(dataset, Path(images), Path(marks), weak or WeakOptions(), slices, classes)
    marked = [i for i, labels in enumerate(full) if (labels != UNLABELLED).any()]
    if not marked:
        raise UserError(f"{marks}: no image has a mark")
    unmarked = [name for i, name in enumerate(dataset.names) if i not in set(marked)]
    dataset.classes = classes
    dataset.weak_labels = torch.from_numpy(np.stack([resize_weak(w, size) for w in full]))
    painted = None
    if references is not None:
        options = {"classes": classes, "binary_too": True}
        masks = read_masks(references, mask_threshold, mask_value, slices, **options).values()
        painted = torch.from_numpy(np.stack([resize_mask(mask, size) for mask in masks]))
    elif needs_sizes(dataset):
        raise UserError(
            "references: some marks hold no background; name a folder of painted masks of any "
            "images with --references, or mark background in every image"
        )
    grown = with_grown_labels(dataset.subset(marked), painted)
    masks = [
        _at_full_size(labels, full[i], max(classes or 2, 2))
        for i, labels in zip(marked, grown.weak_labels, strict=True)
    ]
    write_predictions(grown, masks, Path(out))
    return {"count": len(masks), "unmarked": unmarked}


def _read_marks(
    dataset: Dataset,
    images: Path,
    marks: Path,
    weak: WeakOptions,
    slices: Slices,
    classes: int | None,
) -> list[np.ndarray]:
    """The weak labels of each image, uint8 [H, W], in the order of the data set."""
    paths = list_files(images)
    weak_paths = partners(paths, marks, "weak label", "")
    if weak_paths is None:
        raise UserError(f"{marks}: no such folder")
    reader, found = WeakReader(weak, classes), []
    for stem, path in paths.items():
        file = read_partner(weak_paths[stem], "weak", read_image(path, slices=slices), slices)
        found += list(np.moveaxis(np.atleast_3d(reader.read(file)), -1, 0))
    reader.check()
    return found


def _at_full_size(grown: torch.Tensor, marks: np.ndarray, classes: int) -> np.ndarray:
    """Class indices [size, size] to the marks' size [H, W], with the marks as they are."""
    objects = foreground_maps(grown[None].long(), classes - 1)
    maps = torch.cat((1 - objects.sum(1, keepdim=True), objects), 1)
    full = decide(F.interpolate(maps, size=marks.shape, mode="bilinear"))[0].numpy()
    return np.where(marks == UNLABELLED, full, marks)
