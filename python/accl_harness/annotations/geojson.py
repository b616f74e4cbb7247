"""QuPath: a GeoJSON file of objects for each image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..data.formats import stem_of
from ..errors import UserError
from .items import Item, Labels
from .shapes import Shape

UNCLASSIFIED = "Unclassified"
"""What QuPath calls an object without a class."""


def is_geojson(content: Any) -> bool:
    """Whether a JSON file is of this format."""
    if isinstance(content, list):
        return bool(content) and all(
            isinstance(part, dict) and part.get("type") == "Feature" for part in content
        )
    return isinstance(content, dict) and content.get("type") in ("FeatureCollection", "Feature")


def read_geojson(path: Path, content: Any) -> Labels:
    """The objects of one image, in pixels of its full size; the image has the file's name.

    Raises:
        UserError: a geometry of another kind.
    """
    features = content if isinstance(content, list) else content.get("features", [content])
    shapes = [shape for feature in features for shape in _shapes(path, feature)]
    return Labels("QuPath", [Item(path, image=stem_of(path), shapes=shapes)])


def _shapes(path: Path, feature: dict[str, Any]) -> Iterator[Shape]:
    about = feature.get("properties") or {}
    named = about.get("classification") or {}
    label = named.get("name") or ": ".join(named.get("names", [])) or UNCLASSIFIED
    plane = (feature.get("geometry") or {}).get("plane") or {}
    if plane.get("z", 0) or plane.get("t", 0):
        raise UserError(f"{path}: '{label}' lies on another plane of a stack; one plane is read")
    yield from _of_geometry(path, label, feature.get("geometry") or {})


def _of_geometry(path: Path, label: str, geometry: dict[str, Any]) -> Iterator[Shape]:
    kind, places = geometry.get("type"), geometry.get("coordinates")
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _of_geometry(path, label, part)
        return
    many = str(kind).startswith("Multi")
    one = str(kind).removeprefix("Multi")
    if one == "Polygon":  # an outline and its holes
        for rings in places if many else [places]:
            yield Shape(label, "area", [_points(ring) for ring in rings])
    elif one == "LineString":
        for line in places if many else [places]:
            yield Shape(label, "line", [_points(line)])
    elif one == "Point":
        yield Shape(label, "points", [_points(places if many else [places])])
    else:
        raise UserError(f"{path}: a geometry of kind '{kind}' ('{label}') is not read")


def _points(places: list[list[float]]) -> np.ndarray:
    return np.array([place[:2] for place in places], float)
