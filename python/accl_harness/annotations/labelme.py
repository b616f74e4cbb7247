"""LabelMe: a JSON file for each image."""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .items import Item, Labels
from .shapes import Shape, ellipse, rectangle


def is_labelme(content: Any) -> bool:
    """Whether a JSON file is of this format."""
    return isinstance(content, dict) and "shapes" in content and "imagePath" in content


def read_labelme(path: Path, content: dict[str, Any]) -> Labels:
    """The shapes of one file.

    Polygons, circles, lines, points, boxes and masks (of its AI tools) are read; flags and groups
    say nothing about pixels.

    Raises:
        UserError: a shape of another kind.
    """
    height, width = content.get("imageHeight"), content.get("imageWidth")
    data = content.get("imageData")
    item = Item(
        path,
        image=content["imagePath"],
        size=(int(height), int(width)) if height and width else None,
        shapes=[_shape(path, shape) for shape in content["shapes"]],
        embedded=base64.b64decode(data) if data else None,
    )
    return Labels("LabelMe", [item])


def _shape(path: Path, shape: dict[str, Any]) -> Shape:
    label, kind = str(shape["label"]), shape.get("shape_type") or "polygon"
    points = np.array(shape["points"], float).reshape(-1, 2)
    if kind == "mask":
        return Shape(label, "mask", mask=_mask(path, shape["mask"]), corner=_corner(points))
    if kind == "circle":  # its centre and a point on it
        radius = float(np.linalg.norm(points[1] - points[0]))
        return Shape(label, "area", [ellipse(*points[0], radius, radius)])
    if kind == "rectangle":
        return Shape(label, "box", [rectangle(*points.min(0), *points.max(0))])
    known = {
        "polygon": "area",
        "oriented_rectangle": "box",
        "line": "line",
        "linestrip": "line",
        "point": "points",
        "points": "points",
    }
    if kind not in known:
        raise UserError(f"{path}: a shape of kind '{kind}' ('{label}') is not read")
    return Shape(label, known[kind], [points])


def _corner(points: np.ndarray) -> tuple[int, int]:
    column, row = points.min(0)
    return round(row), round(column)


def _mask(path: Path, text: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(text))) as image:
            return np.array(image.convert("L")) > 0
    except (OSError, binascii.Error) as error:
        raise UserError(f"{path}: the picture of a mask cannot be read ({error})") from error
