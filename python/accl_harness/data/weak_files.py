"""The files in weak/: which value stands for what, and whether they can teach every class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import HarnessWarning, UserError
from .formats import ImageFile
from .labels import class_indices, describe
from .options import UNLABELLED, WeakOptions
from .pairing import partners
from .pictures import values_of


def labels_to_read(
    weak: WeakOptions | None, folder: Path, images: dict[str, Path], suffix: str
) -> dict[str, Path] | None:
    """The weak label files of the images; None where labels are made, or none are wanted.

    Raises:
        UserError: an image without a label, or options that would count for nothing.
    """
    if weak is None:
        return None
    if weak.strategy not in ("auto", "scribble"):
        _refuse_idle(weak, folder, read=False)
        return None
    paths = partners(images, folder, "weak label", suffix)
    _refuse_idle(weak, folder, read=paths is not None)
    if weak.strategy == "scribble" and paths is None:
        raise UserError(f"{folder}: no such folder; strategy scribble reads labels there")
    return paths


def _refuse_idle(weak: WeakOptions, folder: Path, read: bool) -> None:
    """Refuse options of making labels where they are read, and of reading where they are made."""
    making = (
        "ratio",
        "iterations",
        "keep_topology",
        "radius",
        "margin",
        "stroke",
        "jitter",
        "wrong",
        "seed",
    )
    changed = [name for name in making if getattr(weak, name) != getattr(WeakOptions, name)]
    if read and changed:
        raise UserError(
            f"{folder}: labels lie here already, weak.{changed[0]} would not touch them; "
            "take the folder away or name a strategy (weak.strategy erosion)"
        )
    if not read and weak.codes_given:
        why = f"strategy {weak.strategy} does not read it" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {why}; weak.{weak.codes_given[0]} is about the labels in it")


class WeakReader:
    """Reads the files of one folder of weak labels, and judges them together.

    Args:
        options: which values stand for what.
        classes: number of classes of class indices; None: one object.
    """

    def __init__(self, options: WeakOptions, classes: int | None = None):
        self.options, self.classes = options, classes
        self._full: str | None = None  # the first file without an unlabelled pixel, in words
        self._open = False  # some file has one

    def read(self, file: ImageFile) -> np.ndarray:
        """The labels of ``file``, see :func:`weak_values`."""
        labels = weak_values(file, self.options, self.classes)
        found = set(values_of(labels).tolist())
        if UNLABELLED in found:
            self._open = True
        elif self._full is None and 0 in found and len(found) > 1:
            self._full = f"{file.path}: every pixel is labelled ({describe(file)}"
        return labels

    def check(self) -> None:
        """Refuse strokes on 0 where nothing says that 0 is the background.

        Tools whose 0 means "not marked" write them. Read as they are, they would say that the
        object is the strokes alone. A folder in which another file has unlabelled pixels knows
        the code for these, so its full files are masks of whole images.

        Raises:
            UserError: naming the first such file and what to say of it.
        """
        options = self.options
        said = options.codes != "values" or options.background is not None
        said = said or 0 in (options.unlabelled, options.foreground)
        if self._full is None or self._open or said:
            return
        raise UserError(
            f"{self._full}; no {options.unlabelled} for unlabelled). If 0 means not marked, as in "
            "ilastik, napari, 3D Slicer and ITK-SNAP, give --weak.unlabelled 0 (or --weak.codes "
            "ilastik where 1 is the background and 2 the object); if these are full masks, give "
            "--weak.codes full"
        )


def weak_values(file: ImageFile, options: WeakOptions, classes: int | None = None) -> np.ndarray:
    """Weak label file to uint8 {0 background, 1 foreground, 255 unlabelled}.

    With ``classes`` to class indices and 255. The options say which values stand for them.

    Raises:
        UserError: any other value.
    """
    codes = label_codes(options, classes)

    def decode(array: np.ndarray) -> np.ndarray | None:
        values = values_of(array)
        if not np.isin(values, list(codes)).all():
            return None
        labels = np.full(array.shape, UNLABELLED, np.uint8)
        for value, label in codes.items():
            labels[array == value] = label
        return labels

    labels = class_indices(file, decode)
    if labels is not None:
        return labels
    if options.codes == "ilastik":
        raise UserError(
            f"{file.path}: with weak.codes ilastik weak labels hold 0 (not marked), 1 (background) "
            f"to {len(codes) - 1}, this file holds {describe(file)}"
            + ("; for several classes give --classes N" if classes is None else "")
        )
    if classes is not None:
        raise UserError(
            f"{file.path}: with --classes {classes} weak labels hold class indices 0 (background) "
            f"to {classes - 1} and {options.unlabelled} (unlabelled), this file holds "
            f"{describe(file)}; --ignore-index names another value of unlabelled pixels, "
            "--weak.codes ilastik is for 0 not marked, 1 background, 2 the first class"
        )
    background = ", ".join(map(str, options.background_values)) or "no value"
    raise UserError(
        f"{file.path}: weak labels hold {background} (background), {options.foreground} "
        f"(foreground) and {options.unlabelled} (unlabelled), this file holds "
        f"{describe(file)}; weak.background, weak.foreground and weak.unlabelled name others, "
        "weak.codes ilastik is 0 not marked, 1 background, 2 the object; for several classes give "
        "--classes N"
    )


def label_codes(options: WeakOptions, classes: int | None) -> dict[int, int]:
    """What the values of a weak label file stand for: value -> class index or 255.

    Args:
        options: how weak labels are read.
        classes: number of classes; None: one object, whose index is 1.
    """
    if options.codes == "ilastik":
        return {0: UNLABELLED, **{index + 1: index for index in range(classes or 2)}}
    if classes is not None:
        return {**{index: index for index in range(classes)}, options.unlabelled: UNLABELLED}
    return {
        **dict.fromkeys(options.background_values, 0),
        options.foreground: 1,
        options.unlabelled: UNLABELLED,
    }


def check_marked(
    labels: Sequence[np.ndarray],
    folder: Path,
    options: WeakOptions,
    classes: int | None = None,
    made: bool = False,
) -> None:
    """Look that the weak labels of a training set mark every object class somewhere.

    With several classes a warning tells if a folder of labels leaves the background unmarked.

    Args:
        labels: of all images.
        folder: they were read from, or made from the masks in it.
        options: how they were read or made.
        classes: number of classes of class indices; None: one object.
        made: the labels were made from the masks in ``folder``, which hold no background label.

    Raises:
        UserError: a class without a label, since nothing could teach that class.
    """
    marked = set().union(*(values_of(label).tolist() for label in labels)) - {UNLABELLED}
    missing = [index for index in range(1, classes or 2) if index not in marked]
    if classes is None and missing and not made:
        raise UserError(
            f"{folder}: no pixel holds the foreground's value {options.foreground}; "
            "for files of 0 and 255 that mark the foreground alone give weak.foreground 255 "
            "and weak.unlabelled 0"
        )
    if classes is None:
        return
    if missing:
        held = ", ".join(map(str, sorted(marked))) or "none"
        raise UserError(
            f"{folder}: no {'mask' if made else 'label'} of the training images holds class "
            f"{missing[0]} of --classes {classes} (classes there: {held}), so nothing would teach "
            "it; give the number of classes that there are, or images that show it"
        )
    if 0 not in marked and not made:
        warnings.warn(
            f"{folder}: no label marks the background (class 0): the labels alone would let the "
            "objects fill the image; mark some of it",
            HarnessWarning,
            stacklevel=2,
        )
