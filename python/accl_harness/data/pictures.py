"""Decoded pictures: grey values of an image, class indices of a label file.

An image becomes its luminance. A label file stands for integers, and a picture can say them in
several ways: by grey value, palette index, one colour channel, colour or transparency. Each way
that keeps the painted areas apart is a reading; :mod:`.labels` takes those that make sense and
refuses the file where they disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import UserError


@dataclass
class Picture:
    """A decoded picture with nothing dropped; leading axes [H, W] or [pages, H, W]."""

    samples: np.ndarray
    """[..., 1] grey or palette index, [..., 3] colour."""
    alpha: np.ndarray | None = None
    """[...] opacity; 0 where nothing is to be seen."""
    palette: np.ndarray | None = None
    """[n, 3] the colour of each index."""
    bits: int | None = None
    """Of a grey sample, where they are fewer than its number type has."""
    white_is_zero: bool = False
    turned: bool = False
    """Rows and columns have been exchanged to show it upright."""

    def __post_init__(self) -> None:
        if not self.samples.dtype.isnative:
            self.samples = self.samples.astype(self.samples.dtype.newbyteorder("="))

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Picture:
        """The picture with its planes turned or flipped alike."""
        alpha = None if self.alpha is None else change(self.alpha)
        return replace(self, samples=change(self.samples), alpha=alpha)

    @property
    def colours(self) -> np.ndarray:
        """What is shown, without the transparency: [..., 1 or 3]."""
        if self.palette is not None:
            return self.palette[self.samples[..., 0]]
        shown, full = self.samples, (1 << self.bits) - 1 if self.bits else 0
        if self.white_is_zero and full:
            shown = full - shown
        elif self.white_is_zero:
            shown = shown.max() - shown if shown.dtype.kind == "f" else ~shown
        return (shown * (255 // full)).astype(np.uint8) if 0 < full < 255 else shown


def values_of(array: np.ndarray) -> np.ndarray:
    """Distinct values, ascending."""
    if array.dtype == np.uint8:
        return np.flatnonzero(np.bincount(array.ravel(), minlength=256))
    return np.unique(array)


def luminance(colours: np.ndarray) -> np.ndarray:
    """[..., 1, 3 or 4] to [...] with the weights of ITU-R 601-2, as Pillow does."""
    if colours.shape[-1] < 3:
        return colours[..., 0]
    red, green, blue = (colours[..., channel] for channel in range(3))
    if colours.dtype.kind == "u" and colours.dtype.itemsize <= 2:
        wide = [channel.astype(np.uint64) for channel in (red, green, blue)]
        grey = (19595 * wide[0] + 38470 * wide[1] + 7471 * wide[2] + 32768) >> np.uint64(16)
        return grey.astype(colours.dtype)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def grey_values(picture: Picture, path: Path) -> np.ndarray:
    """What the networks see of an image.

    Raises:
        UserError: its content is in the transparency.
    """
    colours = picture.colours
    if picture.alpha is not None and _varies(picture.alpha) and not _varies(colours):
        raise UserError(
            f"{path}: has one colour everywhere, what it shows is in its transparency; save it "
            "without transparency"
        )
    return luminance(colours)


def label_readings(picture: Picture) -> dict[str, np.ndarray]:
    """The integers that a label file may mean, by the way of reading; the usual way first."""
    if picture.palette is not None:
        found = _palette_readings(picture)
    elif picture.samples.shape[-1] == 1:
        found = {"stored values": picture.samples[..., 0]}
        if (picture.bits or 8) < 8 or picture.white_is_zero:
            found["shown values"] = picture.colours[..., 0]
    else:
        found = _colour_readings(picture.samples)
    if picture.alpha is None or not _varies(picture.alpha):
        return found
    return _transparent_readings(picture, found)


def graded_readings(picture: Picture) -> dict[str, np.ndarray]:
    """What a threshold is compared with: a palette's index, else the brightest channel."""
    if picture.palette is not None:
        found = _palette_readings(picture)
        if not _grey_palette(picture):
            found = {"palette indices": found["palette indices"]}
    else:
        found = {"shown values": picture.colours.max(-1)}
        if picture.white_is_zero:
            found["stored values"] = picture.samples[..., 0]
    if picture.alpha is None or not _varies(picture.alpha):
        return found
    if not _varies(picture.colours):
        return {"transparency": picture.alpha}
    return {name: np.where(picture.alpha > 0, array, 0) for name, array in found.items()}


def colour_codes(colours: np.ndarray) -> np.ndarray:
    """Colours [..., 3] as integers [...]: red * 65536 + green * 256 + blue (16-bit: * 2**16)."""
    if colours.shape[-1] == 1:
        return colours[..., 0]
    deep = colours.dtype.itemsize > 1
    step = np.int64(1 << 16 if deep else 1 << 8)
    red, green, blue = (colours[..., channel].astype(np.int64) for channel in range(3))
    return (red * step + green) * step + blue


def _varies(array: np.ndarray) -> bool:
    pixels = array.reshape(-1, array.shape[-1]) if array.ndim > 2 else array.reshape(-1, 1)
    return bool((pixels != pixels[0]).any())


def _colour_readings(colours: np.ndarray) -> dict[str, np.ndarray]:
    codes = colour_codes(colours)
    red, green, blue = (colours[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return {"grey values": red, "colours": codes}
    used = [name for name, c in (("red", red), ("green", green), ("blue", blue)) if c.any()]
    if len(used) == 1:
        channel = {"red": red, "green": green, "blue": blue}[used[0]]
        return {f"{used[0]} channel": channel, "colours": codes}
    return {"colours": codes}


def _palette_readings(picture: Picture) -> dict[str, np.ndarray]:
    index = picture.samples[..., 0]
    found = {"palette indices": index}
    used = values_of(index)
    colours = picture.palette[used]
    if len(np.unique(colours, axis=0)) < len(used):
        return found  # a palette that shows classes alike says nothing about them
    codes = picture.palette[:, 0].astype(np.int64)
    if not _grey_palette(picture):
        codes = colour_codes(picture.palette)
    light = luminance(colours)
    if len(used) <= 2 and codes[used].all():
        # No black: the darker colour of two is the background, as a single dark one is.
        dark = light < 128 if len(used) == 1 else light < light.max()
        codes[used[dark]] = 0
    if not np.array_equal(codes[used], used):
        found["palette colours"] = codes[index]
    return found


def _grey_palette(picture: Picture) -> bool:
    colours = picture.palette[values_of(picture.samples)]
    return bool((colours == colours[:, :1]).all())


def _transparent_readings(picture: Picture, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Readings of a picture with transparent or half transparent pixels."""
    alpha, colours = picture.alpha, picture.colours
    seen = alpha > 0
    found.pop("palette colours", None)  # what is seen of them comes below
    if not _varies(colours):
        return {"transparency": alpha}
    if colours.shape[-1] > 1:
        shown = np.where(seen[..., None], colours, 0)
        visible = next(iter(_colour_readings(shown).values()))
    else:
        visible = np.where(seen, colours[..., 0], 0)
    if not (seen & (visible == 0)).any():  # else black areas become one with transparent ones
        found["visible colours"] = visible
    if seen.any() and not (colours[seen] != colours[seen][0]).any():
        found["transparency"] = alpha
    return found
