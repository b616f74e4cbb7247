"""COCO: one JSON file for many images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..versions import need
from .items import Item, Labels
from .shapes import Shape, fill, of_runs, rectangle


def is_coco(content: Any) -> bool:
    """Whether a JSON file is of this format."""
    return isinstance(content, dict) and "images" in content and "annotations" in content


def read_coco(path: Path, content: dict[str, Any]) -> Labels:
    """The polygons and masks of all images; classes are the categories, by their number.

    Raises:
        UserError: an annotation names no image or category of the file, or is no area.
    """
    names = {
        category["id"]: str(category["name"])
        for category in sorted(content.get("categories", []), key=lambda c: c["id"])
    }
    items = {
        image["id"]: Item(path, image["file_name"], (int(image["height"]), int(image["width"])))
        for image in content["images"]
    }
    for annotation in content["annotations"]:
        where = f"{path}: annotation {annotation.get('id')}"
        if annotation["image_id"] not in items:
            raise UserError(f"{where} is of image {annotation['image_id']}, which is not listed")
        if annotation["category_id"] not in names:
            raise UserError(
                f"{where} is of category {annotation['category_id']}, which is not listed; there "
                f"are {', '.join(f'{key} {name}' for key, name in names.items()) or 'none'}"
            )
        item = items[annotation["image_id"]]
        label = names[annotation["category_id"]]
        item.shapes.append(_shape(where, label, annotation, item.size))
    return Labels("COCO", list(items.values()), list(names.values()))


def _shape(where: str, label: str, annotation: dict[str, Any], size: tuple[int, int]) -> Shape:
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        return Shape(label, "mask", mask=_mask(where, outline, size))
    if outline:
        rings = [np.array(ring, float).reshape(-1, 2) for ring in outline]
        # The parts of an object, not its holes: each is filled, so they are drawn one by one.
        return Shape(label, "area", rings) if len(rings) == 1 else _parts(label, rings, size)
    if annotation.get("bbox"):
        left, top, width, height = annotation["bbox"]
        return Shape(label, "box", [rectangle(left, top, left + width, top + height)])
    raise UserError(f"{where} ('{label}') has neither a segmentation nor a box")


def _parts(label: str, rings: list[np.ndarray], size: tuple[int, int]) -> Shape:
    mask = np.zeros(size, bool)
    for ring in rings:
        mask |= fill([ring], size)
    return Shape(label, "mask", mask=mask)


def _mask(where: str, outline: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    if tuple(outline["size"]) != size:
        raise UserError(
            f"{where}: its mask is {outline['size'][0]} x {outline['size'][1]}, its image "
            f"{size[0]} x {size[1]}"
        )
    if isinstance(outline["counts"], list):
        try:
            return of_runs(outline["counts"], size, by_columns=True)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    need("pycocotools", f"{where}: a compressed mask", "import")
    from pycocotools import mask as coco_masks

    counts = outline["counts"]
    packed = {"size": list(size), "counts": counts.encode() if isinstance(counts, str) else counts}
    return coco_masks.decode(packed).astype(bool)
