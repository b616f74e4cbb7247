"""The labels of an image written into the folder layout, and the report of all."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.formats import ImageFile, output_path, suffix_of, write_labels
from ..errors import UserError
from .items import Item
from .options import ImportOptions


@dataclass
class ReadItem:
    """One image with its labels, before the classes have numbers."""

    item: Item
    stem: str
    image: ImageFile | None
    names: np.ndarray
    """int32 [H, W] or [H, W, D]: the position in the list of names, from 1; 0 not marked."""
    shapes: Counter[str] = field(default_factory=Counter)


def refuse_written(read: list[ReadItem], folder: Path, options: ImportOptions) -> None:
    """Refuse to write over labels, or to give two images one name.

    Raises:
        UserError: naming the file.
    """
    for one in read:
        path = _target(one, folder, options)
        if options.to != "images" and path.exists() and not options.replace:
            raise UserError(f"{path}: is there already; give --replace, or name another folder")
        if one.image is None or options.to == "references":
            continue
        copy = folder / "images" / (one.stem + suffix_of(one.image.path))
        if copy.exists() and copy.read_bytes() != one.image.path.read_bytes():
            raise UserError(f"{copy}: another image has this name already; name another folder")


def _target(one: ReadItem, folder: Path, options: ImportOptions) -> Path:
    if one.image is not None:
        name = one.stem + suffix_of(one.image.path)
    elif one.item.raster and one.names.ndim == 3:
        name = one.stem + (".nrrd" if suffix_of(one.item.source) == ".nrrd" else ".nii.gz")
    else:
        name = one.stem + ".png"
    return output_path(folder / options.to, name)


def write_item(one: ReadItem, labels: np.ndarray, folder: Path, options: ImportOptions) -> None:
    """Write the labels of one image, and a copy of the image beside them."""
    if options.to != "references":
        (folder / "images").mkdir(parents=True, exist_ok=True)
        if one.image is not None:
            copy = folder / "images" / (one.stem + suffix_of(one.image.path))
            if not copy.exists():
                shutil.copyfile(one.image.path, copy)
        else:
            _write_embedded(one, folder / "images")
    if options.to == "images":
        return
    key = "weak" if options.to == "weak" else "mask"
    write_labels(_target(one, folder, options), labels, one.image, key=key)


def _write_embedded(one: ReadItem, folder: Path) -> None:
    from PIL import Image

    with Image.open(io.BytesIO(one.item.embedded)) as image:
        suffix = ".jpg" if image.format == "JPEG" else f".{str(image.format).lower()}"
    (folder / (one.stem + suffix)).write_bytes(one.item.embedded)


def report_of(
    tool: str,
    read: list[ReadItem],
    names: list[str],
    classes: list[str],
    folder: Path,
) -> dict[str, Any]:
    """What :func:`.importing.import_labels` gives back."""
    pixels: Counter[str] = Counter()
    files: Counter[str] = Counter()
    shapes: Counter[str] = Counter()
    for one in read:
        counts = np.bincount(one.names.ravel(), minlength=len(names) + 1)[1:]
        pixels.update({name: int(count) for name, count in zip(names, counts, strict=True)})
        files.update(name for name, count in zip(names, counts, strict=True) if count)
        shapes.update(one.shapes)
    entries = {
        name: {"index": index, "files": files[name], "shapes": shapes[name], "pixels": pixels[name]}
        for index, name in enumerate(classes)
    }
    used = {one.image.path.resolve() for one in read if one.image is not None}
    roots = {one.image.path.parent for one in read if one.image is not None}
    sources = {one.item.source.resolve() for one in read}
    left = [
        path.name
        for root in sorted(roots)
        for path in sorted(root.iterdir())
        if suffix_of(path) and path.is_file() and path.resolve() not in used | sources
    ]
    return {
        "tool": tool,
        "files": [one.stem for one in read],
        "classes": entries,
        "pixels": sum(one.names.size for one in read),
        "unmarked": [one.stem for one in read if not one.names.any()],
        "left_out": left,
        "folder": folder,
    }
