"""CVAT for images: one XML file for many images.

CVAT's mask export leaves lines and points out; this is the format that has them.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, parse

import numpy as np

from ..errors import UserError
from .items import Item, Labels
from .shapes import Shape, ellipse, of_runs, rectangle, turned


def read_cvat(path: Path) -> Labels:
    """The shapes of all images.

    Raises:
        UserError: not this format (CVAT for video has tracks), or a shape of another kind.
    """
    try:
        root = parse(path).getroot()
    except ParseError as error:
        raise UserError(f"{path}: is no XML ({error})") from error
    if root.tag != "annotations" or root.find("image") is None:
        found = "tracks of a video" if root.find("track") is not None else f"<{root.tag}>"
        raise UserError(f"{path}: holds {found}; export it as 'CVAT for images'")
    declared = [name.text or "" for name in root.findall("./meta//label/name")]
    items = []
    for image in root.findall("image"):
        size = int(image.get("height", 0)), int(image.get("width", 0))
        where = f"{path}, image {image.get('name')}"
        shapes = [_shape(where, node) for node in image if node.tag != "tag"]
        items.append(Item(path, image.get("name"), size, shapes))
    return Labels("CVAT", items, list(dict.fromkeys(declared)))


def _shape(where: str, node: Element) -> Shape:
    label, level = node.get("label", ""), int(node.get("z_order", 0))

    def numbers(*names: str) -> list[float]:
        return [float(node.get(name, 0)) for name in names]

    degrees = float(node.get("rotation", 0))
    if node.tag == "mask":
        left, top, width, height = (int(node.get(n, 0)) for n in ("left", "top", "width", "height"))
        runs = [int(run) for run in node.get("rle", "").split(",")]
        try:
            mask = of_runs(runs, (height, width), by_columns=False)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        return Shape(label, "mask", mask=mask, corner=(top, left), level=level)
    if node.tag == "box":
        ring = turned(rectangle(*numbers("xtl", "ytl", "xbr", "ybr")), degrees)
        return Shape(label, "box", [ring], level=level)
    if node.tag == "ellipse":
        ring = ellipse(*numbers("cx", "cy", "rx", "ry"), degrees)
        return Shape(label, "area", [ring], level=level)
    kinds = {"polygon": "area", "polyline": "line", "points": "points"}
    if node.tag not in kinds:
        raise UserError(f"{where}: a shape of kind '{node.tag}' ('{label}') is not read")
    pairs = [pair.split(",") for pair in node.get("points", "").split(";")]
    return Shape(label, kinds[node.tag], [np.array(pairs, float)], level=level)
