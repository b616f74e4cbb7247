"""Reference masks: what the discriminator takes for real.

They constrain the segmentation without a label of the image at hand (eq. (6) of the paper): the
image's own weak mask, masks of other images, its own mask, or masks that were painted or made.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..classes import foreground_maps
from ..errors import UserError
from .dataset import Dataset
from .formats import read_image, refuse_full, write_labels, write_mask
from .labels import MaskReader
from .mask_bank import make_masks
from .options import UNLABELLED, MaskBankOptions, ReferenceKind, Slices
from .pairing import Guesses, list_files, name_of, unique_names
from .pixels import resize_mask

FEW_MASKS = 20
"""Fewer than these are too few for D as they are; more serve it better as they are than moved."""


@dataclass
class ReferenceBank:
    """Masks for D, drawn step by step."""

    masks: Tensor
    """Class indices, uint8 [m, size, size], 0 background."""
    matched: bool
    """Whether mask i belongs to image i; else every mask is as likely for every image."""
    foregrounds: int = 1
    """Object classes: so many maps D sees."""

    def __len__(self) -> int:
        return len(self.masks)

    def to(self, device: torch.device | str) -> ReferenceBank:
        """The same bank on another device."""
        return ReferenceBank(self.masks.to(device), self.matched, self.foregrounds)

    def draw(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Masks for the images ``indices`` [b]: float32 [b, K, size, size] in {0, 1}.

        A matched bank returns each image's own. Any other draws uniformly, with replacement and
        without a look at ``indices``: an image's own mask comes with probability 1/m, as any.
        """
        if self.matched:
            chosen = indices
        else:
            chosen = torch.randint(
                len(self.masks), (len(indices),), generator=generator, device=generator.device
            )
        return foreground_maps(self.masks[chosen.to(self.masks.device)], self.foregrounds)


def make_bank(
    kind: ReferenceKind,
    dataset: Dataset,
    *,
    folder: str | Path | None = None,
    mask_threshold: float | None = None,
    mask_value: int | None = None,
    slices: Slices = "auto",
    mask_bank: MaskBankOptions | None = None,
    painted: int = 5,
    n: int | None = 200,
    seed: int = 0,
) -> ReferenceBank:
    """The bank of reference masks for a training set; the options are those of ``references``.

    - kind ``own_weak``: the image's own weak mask, unlabelled = 0 (partial ACCL).
    - kind ``unpaired``: a mask of the training set, drawn anew each step, whatever the image; where
      its images have none, but ``references/`` lies beside them, ``auto`` of that folder.
    - kind ``paired``: the image's own mask.
    - kind ``folder``: any masks in ``folder`` (default: ``references/`` beside the images).
    - kind ``augmented``: ``n`` masks made by :func:`~.mask_bank.make_masks` from those in
      ``folder``, or from ``painted`` masks of the training set. These are spread over the objects'
      sizes, as those should be that a person paints: three are a small, a middling and a large
      one. The others stay unseen.
      With ``n`` None they are left as they are.
    - kind ``auto``: ``augmented`` where ``folder`` holds fewer than ``FEW_MASKS``, else ``folder``.

    Raises:
        UserError: unknown kind, or masks, labels or folder that the kind needs are missing.
    """
    size = dataset.size

    classes = dataset.classes
    foregrounds = max((classes or 1) - 1, 1)

    def read(source: str | Path) -> list[np.ndarray]:
        reading = {"classes": classes, "binary_too": True}
        return list(read_masks(source, mask_threshold, mask_value, slices, **reading).values())

    beside = None if dataset.folder is None else dataset.folder / "references"
    if kind == "unpaired" and dataset.masks is None and beside is not None and beside.is_dir():
        kind, folder = "auto", beside
    if kind == "own_weak":
        if dataset.weak_labels is None:
            raise UserError("references own_weak: the data set has no weak labels")
        labels = dataset.weak_labels
        marked = torch.where(labels == UNLABELLED, 0, labels).to(torch.uint8)
        return ReferenceBank(marked, True, foregrounds)
    if kind in ("paired", "unpaired"):
        if dataset.masks is None:
            raise UserError(
                f"references {kind}: the training images have no masks; lay some of any images "
                "into references/ beside them, or name a folder of masks with --references.folder"
            )
        return ReferenceBank(dataset.masks, kind == "paired", foregrounds)
    if kind in ("folder", "auto"):
        if folder is None and beside is None:
            raise UserError("references folder: name the folder of reference masks")
        masks = read(folder or beside)
    elif kind == "augmented":
        masks = read(folder) if folder is not None else _painted(dataset, painted)
    else:
        known = ", ".join(get_args(ReferenceKind))
        raise UserError(f"references: wanted one of {known}, got {kind!r}")
    few = kind == "auto" and len(masks) < FEW_MASKS
    if n is not None and (kind == "augmented" or few):
        masks = [made.mask for made in make_masks(masks, n, seed, mask_bank, classes)]
    resized = np.stack([resize_mask(mask, size) for mask in masks])
    return ReferenceBank(torch.from_numpy(resized), False, foregrounds)


def soften(masks: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of floating masks [b, K, H, W], each map by itself.

    The standard deviation ``sigma`` is in pixels. Over the border the outermost values go on.
    """
    if sigma == 0:
        return masks
    reach = max(1, math.ceil(3 * sigma))
    steps = torch.arange(-reach, reach + 1, device=masks.device, dtype=masks.dtype)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights = weights / weights.sum()
    maps = masks.flatten(0, 1).unsqueeze(1)
    rows = F.pad(maps, (0, 0, reach, reach), mode="replicate")
    rows = F.conv2d(rows, weights.view(1, 1, -1, 1))
    rows = F.pad(rows, (reach, reach, 0, 0), mode="replicate")
    return F.conv2d(rows, weights.view(1, 1, 1, -1)).view_as(masks)


def read_masks(
    source: str | Path,
    mask_threshold: float | None = None,
    mask_value: int | None = None,
    slices: Slices = "auto",
    *,
    classes: int | None = None,
    binary_too: bool = False,
) -> dict[str, np.ndarray]:
    """Masks of a folder (or of one file), uint8 [H, W] {0, 1} at their own size, by name.

    Volumes are sliced (``stem_z012``); masks without an object are left out, since a reference
    shows one.

    Args:
        source: the folder or file.
        mask_threshold: the object is where a mask exceeds it.
        mask_value: the object is where a mask equals it.
        slices: the axis of a volume's slices.
        classes: the masks hold class indices below this number, and so do those returned.
        binary_too: where no file holds ``mask_value``, take masks of 0 and one other value, as
            ``accl references`` writes them.

    Raises:
        UserError: no mask with an object, or masks that cannot be read.
    """
    source = Path(source)
    paths = {name_of(source): source} if source.is_file() else list_files(source, "masks")
    guesses = Guesses()
    files = [guesses.note(read_image(path, "mask", slices)) for path in paths.values()]
    guesses.tell()
    reader = MaskReader(mask_threshold, mask_value, classes)
    read = [reader.read(file) for file in files]
    if binary_too and mask_value is not None and not any(mask.any() for mask in read):
        reader = MaskReader()
        read = [reader.read(file) for file in files]
    reader.check(source)
    names, origins, masks = [], [], []
    for name, file, mask in zip(paths, files, read, strict=True):
        planes = np.moveaxis(np.atleast_3d(mask), -1, 0)
        masks += [plane.copy() for plane in planes]
        names += [f"{name}_z{z:03d}" for z in range(len(planes))] if file.is_volume else [name]
        origins += [file.path] * len(planes)
    unique_names(names, origins)
    found = {name: mask for name, mask in zip(names, masks, strict=True) if mask.any()}
    if not found:
        raise UserError(f"{source}: all masks are empty; a reference mask shows an object")
    return found


def write_references(
    masks: str | Path,
    out: str | Path,
    n: int = 200,
    seed: int = 0,
    mask_bank: MaskBankOptions | None = None,
    mask_threshold: float | None = None,
    mask_value: int | None = None,
    slices: Slices = "auto",
    classes: int | None = None,
) -> dict[str, object]:
    """``accl references MASKS OUT``: a bank of ``n`` PNG masks from a folder or file of masks.

    With ``classes`` masks hold class indices, and so do the files written; else 0 and 255.
    Beside them ``manifest.json`` keeps seed, ranges and what was drawn for each mask.

    Returns:
        A report: ``count``, ``painted`` (masks used), and the smallest, median and largest
        ``pixels``.
    """
    painted = read_masks(masks, mask_threshold, mask_value, slices, classes=classes)
    refuse_full(out)
    out, names = Path(out), list(painted)
    mask_bank = mask_bank or MaskBankOptions()
    made = make_masks(list(painted.values()), n, seed, mask_bank, classes)
    write = write_mask if classes is None else write_labels
    entries = []
    for i, (mask, parameters) in enumerate(made):
        path = write(out / f"reference_{i:05d}.png", mask)
        entries.append({"file": path.name, **parameters, "source": names[parameters["source"]]})
    manifest = {"seed": seed, "mask_bank": asdict(mask_bank), "masks": entries}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    pixels = [entry["pixels"] for entry in entries]
    return {
        "count": n,
        "painted": len(names),
        "pixels": [min(pixels), int(np.median(pixels)), max(pixels)],
    }


def _painted(dataset: Dataset, count: int) -> list[np.ndarray]:
    """The middle one of each ``count``-th part of the training masks, ordered by size.

    The mean size of a few random ones can be far from that of all, and the terms hold the
    predictions at it.
    """
    if dataset.masks is None:
        raise UserError("references augmented: name a folder of painted masks, the data have none")
    present = [mask for mask in map(dataset.full_mask, range(len(dataset))) if mask.any()]
    if not 1 <= count <= len(present):
        raise UserError(
            f"references augmented: wanted 1 to {len(present)} painted masks (so many images have "
            f"an object), got {count}"
        )
    ordered = sorted(present, key=lambda mask: (mask != 0).mean())
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]
