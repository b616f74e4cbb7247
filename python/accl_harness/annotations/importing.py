"""``accl import``: label files of people's tools to the folder layout, and what was understood."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..data.class_names import FILE, read_class_names, write_class_names
from ..data.formats import ImageFile, read_image, suffix_of
from ..data.options import MOST_CLASSES, UNLABELLED
from ..errors import UserError
from .compose import compose
from .dicom import read_dicom
from .files import ImageFinder, is_dicom, read_labels
from .items import Item, Labels, Mark
from .options import ImportOptions
from .rasters import raster_marks
from .shapes import describe, draw
from .slicer import SUFFIX as SEGMENTS
from .slicer import segment_marks
from .tables import NOT_OBJECTS, class_of, read_table
from .writing import ReadItem, refuse_written, report_of, write_item


def import_labels(
    source: str | Path, out: str | Path, options: ImportOptions | None = None
) -> dict[str, Any]:
    """Read label files and write ``OUT/split/images``, ``OUT/split/to`` and ``OUT/classes.yaml``.

    Nothing is written before all has been read and understood. The classes are numbered as
    ``OUT/classes.yaml`` says, where it is there, else as the table or the tool lists them.

    Args:
        source: a label file, or a folder of them.
        out: the data set, which may be there already.
        options: how the files are understood.

    Returns:
        ``tool``, ``files`` (names of the images), ``classes`` (name -> index, files, shapes and
        pixels), ``pixels`` (of all images), ``unmarked`` (names of images without a mark),
        ``left_out`` (images without labels), ``folder``.

    Raises:
        UserError: what is missing, does not fit or is not known; it names the files.
    """
    source, out, options = Path(source), Path(out), options or ImportOptions()
    table = None if options.table is None else read_table(options.table)
    if not is_dicom(source):
        if options.to == "images":
            raise UserError(f"{source}: --to images is for DICOM, whose series become volumes")
        labels = read_labels(source, options.mask_suffix)
        finder = ImageFinder(source, options.images, options.mask_suffix)
        return _import(labels, finder, out, table, options)
    with tempfile.TemporaryDirectory() as workplace:
        labels = read_dicom(source, Path(workplace), options.window)
        if options.to == "images":
            for item in labels.items:
                item.marks = []
        labels.items = [item for item in labels.items if item.marks is not None]
        if not labels.items:
            raise UserError(
                f"{source}: holds series, but no segmentation (SEG, RTSTRUCT); --to images takes "
                "the series alone"
            )
        return _import(labels, ImageFinder(source, workplace, ""), out, table, options)


def _import(
    labels: Labels,
    finder: ImageFinder,
    out: Path,
    table: dict[str, str] | None,
    options: ImportOptions,
) -> dict[str, Any]:
    """Read every image with its labels, and write all if nothing was wrong."""
    known = read_class_names(out)
    names: list[str] = []
    read, problems = [], []
    for item, stem in zip(labels.items, _stems(labels.items), strict=True):
        try:
            read.append(_read(item, stem, finder, names, table, options))
        except UserError as error:
            problems.append(str(error))
    _refuse(problems)
    classes = [] if options.to == "images" else _classes(names, known, table, labels, out)
    folder = out / options.split
    refuse_written(read, folder, options)
    lookup = np.array(
        [UNLABELLED if options.to == "weak" else 0]
        + [UNLABELLED if name == "unlabelled" else classes.index(name) for name in names],
        np.uint8,
    )
    for one in read:
        write_item(one, lookup[one.names], folder, options)
    if known is None and classes:
        write_class_names(out, classes)
    return report_of(labels.tool, read, names, classes, folder / options.to)


def _stems(items: Sequence[Item]) -> list[str]:
    """The names of the images without suffix; with their folders where two would be the same."""
    paths = [PurePosixPath((item.image or "").replace("\\", "/")) for item in items]
    short = [path.name[: len(path.name) - len(suffix_of(path.name))] for path in paths]
    twice = {name for name, count in Counter(short).items() if count > 1}
    found = []
    for name, path in zip(short, paths, strict=True):
        folders = [part for part in path.parent.parts if part not in ("..", ".", "/")]
        found.append("_".join((*folders, name)) if name in twice else name)
    again = [name for name, count in Counter(found).items() if count > 1]
    if again:
        raise UserError(f"two of the labelled images are called {again[0]}; give one another name")
    return found


def _read(
    item: Item,
    stem: str,
    finder: ImageFinder,
    names: list[str],
    table: dict[str, str] | None,
    options: ImportOptions,
) -> ReadItem:
    path = finder.find(item)
    image = None if path is None else read_image(path, slices=options.slices)
    size = _size(item, image, finder, options)
    marks, shapes = _marks(item, image, size, table, options)
    where = str(item.source) if item.raster else f"{item.source}, image {item.image}"
    if image is None and item.raster and not marks:
        raise UserError(f"{where}: marks nothing")
    shape = marks[0].mask.shape if item.raster and marks else size
    if image is not None:
        shape = image.array.shape
    array = compose(marks, shape, names, table, where, options.overlap)
    if options.to != "weak" and "unlabelled" in names:
        raise UserError(
            f"{where}: marks pixels as unlabelled, which {options.to}/ has no value for; import to "
            "weak, or complete it"
        )
    return ReadItem(item, stem, image, array, shapes)


def _size(
    item: Item, image: ImageFile | None, finder: ImageFinder, options: ImportOptions
) -> tuple[int, int] | None:
    """Height and width of the labels' image.

    Raises:
        UserError: there is no image where one is needed, or it has another size.
    """
    if image is not None:
        shape = image.array.shape
        if item.size and shape[:2] != item.size:
            wanted, got = f"{item.size[1]} x {item.size[0]}", f"{shape[1]} x {shape[0]}"
            raise UserError(
                f"{item.source}: was drawn on an image of {wanted} pixels (width x height), but "
                f"{image.path} has {got}; give the image that was drawn on"
            )
        if not item.raster and item.marks is None and image.is_volume:
            raise UserError(f"{item.source}: draws on {image.path}, which is a volume of slices")
        return shape[:2]
    if item.embedded is not None and item.size:
        return item.size
    if options.to == "references" and (item.size or item.raster):
        return item.size
    raise UserError(
        f"{item.source}: its image {item.image or ''} is not there; looked in "
        f"{finder.looked_in()}; --images names another folder"
    )


def _marks(
    item: Item,
    image: ImageFile | None,
    size: tuple[int, int] | None,
    table: dict[str, str] | None,
    options: ImportOptions,
) -> tuple[list[Mark], Counter[str]]:
    if item.marks is not None:
        marks = [_laid(mark, image) for mark in item.marks]
        return marks, Counter(class_of(mark.label, table) for mark in marks)
    if item.raster:
        marks = _raster(item, image, table, options)
        return marks, Counter(class_of(mark.label, table) for mark in marks)
    marks = []
    for shape in item.shapes:
        if shape.kind == "box" and not options.boxes:
            raise UserError(
                f"{item.source}, image {item.image}: {describe(shape)} is no outline; draw one, or "
                "give --boxes to fill it"
            )
        try:
            mask = draw(shape, size, options.stroke, options.clip)
        except UserError as error:
            raise UserError(f"{item.source}, image {item.image}: {error}") from error
        marks.append(Mark(shape.label, mask, shape.level, describe(shape)))
    return marks, Counter(class_of(shape.label, table) for shape in item.shapes)


def _laid(mark: Mark, image: ImageFile) -> Mark:
    """A mark in the axes of the image's file on its array, in which single axes are left out."""
    axes = image.layout.axes
    order = [*axes, *(axis for axis in range(mark.mask.ndim) if axis not in axes)]
    return replace(mark, mask=mark.mask.transpose(order).reshape(image.array.shape))


def _raster(
    item: Item, image: ImageFile | None, table: dict[str, str] | None, options: ImportOptions
) -> list[Mark]:
    if item.source.name.lower().endswith(SEGMENTS):
        return segment_marks(item.source, image, options.slices)
    marks = raster_marks(item.source, image, options.slices, table, options.threshold)
    if table is not None or options.threshold is not None:
        return marks
    if len(marks) > 1:
        shown = ", ".join(mark.label for mark in marks[:6]) + (", ..." if len(marks) > 6 else "")
        raise UserError(
            f"{item.source}: holds the values {shown} beside 0; --table says what they are: a file "
            "of lines such as '1: background', or a word: ilastik (1 background, 2 the object), "
            "values (each is a class), instances (all are one class)"
        )
    return [Mark("object", mark.mask) for mark in marks]


def _classes(
    names: list[str],
    known: Sequence[str] | None,
    table: dict[str, str] | None,
    labels: Labels,
    out: Path,
) -> list[str]:
    """The names of the classes by index.

    Raises:
        UserError: a class that ``classes.yaml`` does not have, or none but the background.
    """
    found = [name for name in names if name not in NOT_OBJECTS]
    if known is not None:
        unknown = [name for name in found if name not in known[1:]]
        if unknown:
            raise UserError(
                f"{labels.items[0].source.parent}: label '{unknown[0]}' is no class of "
                f"{out / FILE} ({', '.join(known[1:])}); --table says which it is, or add it there"
            )
        return ["background", *known[1:]]
    order = [class_of(name, None) for name in (table or {}).values()]
    order += [class_of(label, table) for label in labels.declared]
    order += sorted(found, key=_natural)
    listed = [name for name in dict.fromkeys(order) if name not in (None, *NOT_OBJECTS)]
    if not listed:
        raise UserError(f"{labels.items[0].source}: no object is marked, the background at most")
    if len(listed) >= MOST_CLASSES:
        raise UserError(f"{len(listed)} classes are more than labels of 8 bits can tell apart")
    return ["background", *listed]


def _natural(name: str) -> list[str | int]:
    """Sorts "value 10" behind "value 9"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _refuse(problems: list[str]) -> None:
    if problems:
        more = len(problems) - 1
        raise UserError(problems[0] + (f" (and {more} more images have faults)" if more else ""))
