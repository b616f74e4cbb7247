"""Class indices of a label file: [H, W] (or [H, W, D]) integers.

A binary mask is the special case of one class.

A picture can state its integers in several ways (:func:`.pictures.label_readings`). A reading is
taken if its values make sense for what is wanted; where two make sense and do not mean the same,
the file is refused rather than guessed at.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import HarnessWarning, UserError
from .formats import ImageFile
from .options import check_reading
from .pictures import values_of

Decode = Callable[[np.ndarray], "np.ndarray | None"]
"""Values of a file to uint8 labels, or None where they make no sense."""


def whole(array: np.ndarray) -> np.ndarray:
    """Numbers next to integers made integers: 0.9999999 is what a scaled file has for 1."""
    if array.dtype.kind != "f":
        return array
    nearest = np.rint(array)
    if np.abs(array - nearest).max() > 1e-3 or not nearest.any():
        return array
    return nearest


_ONE_OBJECT = ", or choose the object by --mask-value"


def class_indices(file: ImageFile, decode: Decode, advice: str = "") -> np.ndarray | None:
    """Labels that ``decode`` makes of the file, whichever way its values are written.

    Args:
        file: of the labels.
        decode: from the values of one reading to labels; None where they make no sense.
        advice: what else can be done where two readings differ.

    Returns:
        The labels; None where no reading makes sense.

    Raises:
        UserError: two readings make sense and differ.
    """
    return _agreed(file, file.readings, decode, advice)


def _agreed(
    file: ImageFile, readings: Mapping[str, np.ndarray], decode: Decode, advice: str
) -> np.ndarray | None:
    found = {}
    for name, array in readings.items():
        labels = decode(whole(array))
        if labels is not None:
            found[name] = labels
    if not found:
        return None
    (name, labels), *others = found.items()
    for other, different in others:
        if not np.array_equal(labels, different):
            raise UserError(
                f"{file.path}: its {name} and its {other} mean different labels "
                f"({_count(labels)} and {_count(different)} pixels of the object); save it as grey "
                f"values above a background of 0, without palette, transparency or MinIsWhite"
                f"{advice}"
            )
    return labels


def _count(labels: np.ndarray) -> int:
    return int(np.count_nonzero(labels == 1))


def describe(file: ImageFile) -> str:
    """The values of a file for a message, colours as colours."""
    name, array = next(iter(file.readings.items()))
    values = values_of(array)
    if name == "colours":
        digits = 6 if values.max() < 1 << 24 else 12
        shown = ", ".join(f"#{value:0{digits}x} ({value})" for value in values[:6])
    else:
        shown = ", ".join(number(value) for value in values[:6])
    return shown + (f", ... ({len(values)} values)" if len(values) > 6 else "")


def number(value: float) -> str:
    """A value as short as can be without two different ones looking alike."""
    return np.format_float_positional(value, trim="-") if value % 1 else f"{value:.0f}"


def binary_mask(
    file: ImageFile, threshold: float | None = None, value: int | None = None
) -> tuple[np.ndarray, float | None]:
    """Mask file to uint8 {0, 1}, and the value that stood for the object (None: none there).

    Without options the file holds 0 and one other value; with ``threshold`` the object is where
    the value exceeds it, with ``value`` where it equals it.

    Raises:
        UserError: other values; it names the file and its values.
    """
    check_reading(threshold, value, None)
    if value is not None:
        mask = _of_value(file, value)
        return mask, float(value) if mask.any() else None
    if threshold is not None:
        above = _agreed(
            file, file.graded, lambda array: (array > threshold).astype(np.uint8), _ONE_OBJECT
        )
        return above, None
    mask = class_indices(file, _two_values, _ONE_OBJECT)
    if mask is None:
        raise UserError(
            f"{file.path}: a mask holds 0 and one other value, this one holds {describe(file)}; "
            "paint one object per mask, or choose it by --mask-value V (object: value V) or "
            "--mask-threshold T (object: value > T); for several classes give --classes N"
        )
    return mask, _object_value(file)


def _two_values(array: np.ndarray) -> np.ndarray | None:
    values = values_of(array)
    if np.count_nonzero(values) > 1:
        return None
    return (array != 0).astype(np.uint8)


def _object_value(file: ImageFile) -> float | None:
    """What stands for the object.

    Of a coloured picture that is the colour, since 255 may be any of three channels.
    """
    name, array = next(iter(file.readings.items()))
    if name.endswith("channel"):
        array = file.readings["colours"]
    for reading in (array, *file.readings.values()):
        values = values_of(whole(reading))
        objects = values[values != 0]
        if len(objects) < 2:
            return float(objects[0]) if len(objects) else None
    return None


def _of_value(file: ImageFile, value: int) -> np.ndarray:
    name, array = next(iter(file.readings.items()))
    colours = file.readings.get("colours")
    if name == "colours" and 0 < value < 256 and not (array == value).any():
        raise UserError(
            f"{file.path}: --mask-value {value} is no colour of this picture, and it uses several "
            f"channels; it holds {describe(file)}"
        )
    if colours is not None and value > 255 and array.dtype == np.uint8:
        array = colours
    return (whole(array) == value).astype(np.uint8)


def class_mask(file: ImageFile, classes: int) -> np.ndarray:
    """Mask file of class indices to uint8 in 0 to ``classes - 1``.

    Raises:
        UserError: any other value; it names the file and its values.
    """

    def decode(array: np.ndarray) -> np.ndarray | None:
        inside = np.isin(values_of(array), np.arange(classes)).all()
        return array.astype(np.uint8) if inside else None

    mask = class_indices(file, decode)
    if mask is None:
        raise UserError(
            f"{file.path}: with --classes {classes} a mask holds class indices 0 (background) to "
            f"{classes - 1}, this one holds {describe(file)}; give the number of classes, the "
            "background counted, or renumber the mask"
        )
    return mask


class MaskReader:
    """Reads the masks of a data set and keeps what only all of them together tell.

    Args:
        threshold: the object is where a mask exceeds it.
        value: the object is where a mask equals it.
        classes: masks hold class indices below this number; None: one object.

    Raises:
        UserError: two of them are given.
    """

    def __init__(
        self,
        threshold: float | None = None,
        value: int | None = None,
        classes: int | None = None,
    ):
        check_reading(threshold, value, classes)
        self.threshold, self.value, self.classes = threshold, value, classes
        self._values: dict[float, Path] = {}
        self._last: ImageFile | None = None

    def read(self, file: ImageFile) -> np.ndarray:
        """The mask in a file: uint8, 0 background, 1 (or the class indices) objects."""
        self._last = file
        if self.classes is not None:
            return class_mask(file, self.classes)
        mask, value = binary_mask(file, self.threshold, self.value)
        if value is not None:
            self._values.setdefault(value, file.path)
        return mask

    def check(self, folder: Path) -> None:
        """Refuse files of ``folder`` that say different things about the object.

        Raises:
            UserError: they mark the object by different values, or none of them holds the value
                that was asked for.
        """
        if self.classes is not None:
            return
        one_object_value(self._values)
        if self._last is not None:
            some_object(self._values, self.value, folder, self._last)


def one_object_value(found: dict[float, Path]) -> None:
    """Refuse files of different object values: they are parts of one multi-class label set.

    Raises:
        UserError: naming two of the files and their values.
    """
    if len(found) > 1 and not set(found) <= {1.0, 255.0}:
        # 1 and 255 are the usual values: the file that has neither is the one to look at.
        (value, path), (other, other_path) = sorted(
            found.items(), key=lambda item: item[0] in (1.0, 255.0)
        )[:2]
        raise UserError(
            f"{path} marks the object by {number(value)}, {other_path} by {number(other)}; if they "
            "mean the same object, give --mask-threshold 0"
        )


def some_object(found: dict[float, Path], value: int | None, folder: Path, file: ImageFile) -> None:
    """Refuse a ``value`` that was asked for and that no mask holds; ``file`` is one of them.

    Raises:
        UserError: naming the folder and the values that are there.
    """
    if value is not None and not found:
        raise UserError(
            f"{folder}: no mask holds the value {value} that --mask-value names; "
            f"{file.path.name} holds {describe(file)}"
        )


def tell_unmasked(masks: Sequence[np.ndarray], folder: Path, classes: int | None) -> None:
    """Warn of classes that are labelled and that no training mask shows.

    They have no size bounds and no reference masks.
    """
    found = set().union(*(values_of(mask).tolist() for mask in masks))
    missing = [str(index) for index in range(1, classes or 1) if index not in found]
    if missing:
        warnings.warn(
            f"{folder}: no training mask shows class {', '.join(missing)}: no term on sizes and no "
            "reference mask will speak of it",
            HarnessWarning,
            stacklevel=2,
        )
