"""Which files belong together, and what is said where they do not."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import UserError
from .formats import ImageFile, Role, list_files, read_image


def split_folder(root: Path, split: str, masks: str) -> Path:
    """``root/split``; UserError that shows the layout where it is missing."""
    layout = f"wanted {root}/{split}/images and {root}/{split}/{masks} with equal file names"
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {layout}")
    if not (root / split).is_dir():
        raise UserError(f"{root}: has no folder {split}; {layout}")
    return root / split


def partners(images: dict[str, Path], folder: Path, what: str) -> dict[str, Path] | None:
    """The files of ``folder`` by stem; None if there is no such folder.

    UserError for an image without one and for one without an image.
    """
    if not folder.is_dir():
        return None
    paths = list_files(folder, f"{what}s")
    without = [path for stem, path in images.items() if stem not in paths]
    alone = [path for stem, path in paths.items() if stem not in images]
    if without:
        raise UserError(
            f"{without[0]}: has no {what} of the same name in {folder}"
            + (f" (nor have {len(without) - 1} more)" if len(without) > 1 else "")
            + f"; add the {what} or take the image out"
        )
    if alone:
        raise UserError(
            f"{alone[0]}: has no image of the same name in {next(iter(images.values())).parent}"
            + (f" (nor have {len(alone) - 1} more)" if len(alone) > 1 else "")
            + f"; add the image or take the {what} out"
        )
    return paths


def read_partner(path: Path, role: Role, image: ImageFile) -> ImageFile:
    """Reads a mask or weak label; UserError unless it has the shape of its image."""
    file = read_image(path, role)
    if file.array.shape != image.array.shape:
        wanted, got = (" x ".join(map(str, a.shape)) for a in (image.array, file.array))
        raise UserError(f"{path}: is {got}, its image {image.path} is {wanted}; make them equal")
    return file


def patient(stem: str, pattern: str | None) -> str:
    """The first group of ``pattern`` in the stem, or the whole match; None: the stem itself."""
    if pattern is None:
        return stem
    try:
        match = re.search(pattern, stem)
    except re.error as error:
        raise UserError(f"patients: {pattern!r} is not a regular expression ({error})") from error
    if match is None:
        raise UserError(f"patients: {pattern!r} finds nothing in the file name {stem!r}")
    return match.group(1) if match.groups() and match.group(1) else match.group(0)


def one_object_value(found: dict[float, Path]) -> None:
    """Files of different object values are parts of one multi-class label set: refused."""
    if len(found) > 1 and not set(found) <= {1.0, 255.0}:
        # 1 and 255 are the usual values: the file that has neither is the one to look at.
        (value, path), (other, other_path) = sorted(
            found.items(), key=lambda item: item[0] in (1.0, 255.0)
        )[:2]
        raise UserError(
            f"{path} marks the object by {value:g}, {other_path} by {other:g}; if they mean the "
            "same object, give --mask-threshold 0"
        )
