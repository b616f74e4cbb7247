"""Marks of one image laid over each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from ..errors import UserError
from .items import Mark
from .tables import class_of


def compose(
    marks: Sequence[Mark],
    shape: tuple[int, ...],
    names: list[str],
    table: dict[str, str] | None,
    where: str,
    overlap: str = "refuse",
) -> np.ndarray:
    """Marks as positions in the list of class names, from 1; 0 where nothing is marked.

    Args:
        marks: of one image, in the order of its file.
        shape: of the image.
        names: of the classes so far; new ones are added.
        table: what labels stand for.
        where: names the label file in a message.
        overlap: ``refuse`` two classes on one pixel of the same level, or let the ``last`` count.

    Returns:
        int32 of that shape.

    Raises:
        UserError: a label that the table does not know, or two classes on one pixel.
    """
    result = np.zeros(shape, np.int32)
    by_level = sorted(marks, key=lambda mark: mark.level)
    for _, group in groupby(by_level, key=lambda mark: mark.level):
        layer = np.zeros(shape, np.int32)
        for mark in group:
            index = _position(mark, names, table, where)
            both = layer[mark.mask]
            clash = (both != 0) & (both != index)
            if clash.any() and overlap == "refuse":
                other = names[int(both[clash][0]) - 1]
                raise UserError(
                    f"{where}: {np.count_nonzero(clash)} pixels are both '{other}' and "
                    f"'{names[index - 1]}' ({mark.name or mark.label}); correct it in the tool, or "
                    "give --overlap last for the later shape to count"
                )
            layer[mark.mask] = index
        result[layer != 0] = layer[layer != 0]
    return result


def _position(mark: Mark, names: list[str], table: dict[str, str] | None, where: str) -> int:
    name = class_of(mark.label, table)
    if name is None:
        raise UserError(
            f"{where}: label '{mark.label}' is not in the table ({', '.join(table)}); add it, or a "
            "line '*: CLASS' for all others"
        )
    if name not in names:
        names.append(name)
    return names.index(name) + 1
