"""Images of labels: values (napari, Fiji, ITK-SNAP, ilastik), colours, and soft brushes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..data.formats import ImageFile, read_image
from ..data.labels import binary_mask, describe, whole
from ..data.options import Slices
from ..data.pairing import read_partner
from ..data.pictures import values_of
from ..errors import UserError
from .items import Mark
from .tables import REST, colour_name, has_colours

MOST = 1000
"""A file of more values than this, or colours, is no image of labels."""


def raster_marks(
    path: Path,
    image: ImageFile | None,
    slices: Slices,
    table: Mapping[str, str] | None,
    threshold: float | None,
) -> list[Mark]:
    """A mark for each value or colour of an image of labels but 0, black and the transparent.

    Those mean "not marked", unless the table says what they are.

    Args:
        path: of the labels.
        image: that they are of; the labels are laid on its grid.
        slices: the axis of a volume's slices.
        table: what people say the values or colours are.
        threshold: everything above it is one object, so it is a soft brush.

    Raises:
        UserError: the sizes differ, or the file is no image of labels.
    """
    file = read_partner(path, "mask", image, slices) if image else read_image(path, "mask", slices)
    if threshold is not None:
        return [Mark("object", binary_mask(file, threshold)[0] == 1)]
    picture = file.picture
    coloured = picture is not None and picture.colours.shape[-1] > 1
    if coloured and (picture.palette is None or (table and has_colours(table))):
        return _colours(file, table)
    array = picture.samples[..., 0] if coloured else whole(file.array)
    values = values_of(array)
    if array.dtype.kind == "f" and (values % 1).any():
        raise UserError(
            f"{path}: holds {describe(file)}, which are no labels; of a soft brush --threshold T "
            "takes what lies above T"
        )
    _few(path, len(values))
    marks = [(str(int(value)), array == value) for value in values]
    return [Mark(name, mask) for name, mask in marks if name != "0" or (table and "0" in table)]


def _colours(file: ImageFile, table: Mapping[str, str] | None) -> list[Mark]:
    picture = file.picture
    colours = picture.colours
    if colours.dtype != np.uint8:
        raise UserError(f"{file.path}: colours of {colours.dtype}; save it with 8 bits a channel")
    if table is None:
        raise UserError(
            f"{file.path}: is a picture in colours; --table FILE says what they mean, in lines "
            "such as '#ff0000: vessel'"
        )
    shown = np.ones(colours.shape[:-1], bool) if picture.alpha is None else picture.alpha > 0
    parts = colours.astype(np.int64)
    codes = np.where(shown, (parts[..., 0] << 16) + (parts[..., 1] << 8) + parts[..., 2], 0)
    values = values_of(codes)
    marks = []
    unknown = {}
    for value in values:
        name = colour_name((value >> 16, value >> 8 & 255, value & 255))
        where = (codes == value) & shown
        if name in table or (REST in table and value):
            marks.append(Mark(name, where))
        elif value:
            unknown[name] = int(np.count_nonzero(where))
        if len(unknown) > MOST:
            break
    if unknown:
        most = sorted(unknown, key=unknown.get, reverse=True)[:4]
        raise UserError(
            f"{file.path}: {len(unknown)} colours are not in the table, most of all "
            + ", ".join(f"{name} ({unknown[name]} pixels)" for name in most)
            + "; name them, or draw without soft edges (colours mix there)"
        )
    return marks


def _few(path: Path, count: int) -> None:
    if count > MOST:
        raise UserError(f"{path}: holds {count} values, so it is no image of labels")
