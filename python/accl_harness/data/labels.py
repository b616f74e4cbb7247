"""Class indices of a label file: [H, W] (or [H, W, D]) integers, of which a binary mask is the
special case of one class.

A picture can state its integers in several ways (:func:`.pictures.label_readings`). A reading is
taken if its values make sense for what is wanted; where two make sense and do not mean the same,
the file is refused rather than guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..errors import UserError
from .formats import ImageFile
from .options import UNLABELLED, WeakOptions
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


def class_indices(file: ImageFile, decode: Decode) -> np.ndarray | None:
    """Labels that ``decode`` makes of the file, whichever way its values are written.

    Returns None where no reading makes sense. Raises UserError where two do and differ.
    """
    return _agreed(file, file.readings, decode)


def _agreed(
    file: ImageFile, readings: Mapping[str, np.ndarray], decode: Decode
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
            advice = "" if file.role == "weak" else ", or choose the object by --mask-value"
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
    the value exceeds it, with ``value`` where it equals it. Raises UserError that names the file
    and its values.
    """
    if value is not None and threshold is not None:
        raise UserError("mask_threshold and mask_value both choose the object; give one of them")
    if value is not None:
        mask = _of_value(file, value)
        return mask, float(value) if mask.any() else None
    if threshold is not None:
        return _agreed(file, file.graded, lambda a: (a > threshold).astype(np.uint8)), None
    mask = class_indices(file, _two_values)
    if mask is None:
        raise UserError(
            f"{file.path}: a mask holds 0 and one other value, this one holds {describe(file)}; "
            "paint one object per mask, or choose it by --mask-value V (object: value V) or "
            "--mask-threshold T (object: value > T)"
        )
    return mask, _object_value(file)


def _two_values(array: np.ndarray) -> np.ndarray | None:
    values = values_of(array)
    if np.count_nonzero(values) > 1:
        return None
    return (array != 0).astype(np.uint8)


def _object_value(file: ImageFile) -> float | None:
    """What stands for the object: of a coloured picture the colour, since 255 may be any of
    three channels."""
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


def weak_values(file: ImageFile, options: WeakOptions) -> np.ndarray:
    """Weak label file to uint8 {0 background, 1 foreground, 255 unlabelled}.

    The options say which values stand for them. Raises UserError for any other value.
    """
    codes = {
        **dict.fromkeys(options.background_values, 0),
        options.foreground: 1,
        options.unlabelled: UNLABELLED,
    }

    def decode(array: np.ndarray) -> np.ndarray | None:
        values = values_of(array)
        if not np.isin(values, list(codes)).all():
            return None
        labels = np.full(array.shape, UNLABELLED, np.uint8)
        for value, label in codes.items():
            labels[array == value] = label
        return labels

    labels = class_indices(file, decode)
    if labels is None:
        background = ", ".join(map(str, options.background_values)) or "no value"
        raise UserError(
            f"{file.path}: weak labels hold {background} (background), {options.foreground} "
            f"(foreground) and {options.unlabelled} (unlabelled), this file holds "
            f"{describe(file)}; weak.background, weak.foreground and weak.unlabelled name others"
        )
    return labels


def one_object_value(found: dict[float, Path]) -> None:
    """Files of different object values are parts of one multi-class label set: refused."""
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
    """UserError if ``value`` was asked for and no mask holds it; ``file`` is one of them."""
    if value is not None and not found:
        raise UserError(
            f"{folder}: no mask holds the value {value} that --mask-value names; "
            f"{file.path.name} holds {describe(file)}"
        )
