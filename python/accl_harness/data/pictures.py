"""Pictures (PNG, JPEG, GIF, BMP, TIFF): grey values of an image, class indices of a label file.

An image becomes its luminance. A label file stands for integers, and a picture can say them in
several ways: by grey value, palette index, one colour channel, colour or transparency. Each way
that keeps the painted areas apart is a reading; :mod:`.labels` takes those that make sense and
refuses the file where they disagree.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

ORIENTATION = 0x0112
"""The tag of EXIF and TIFF that says how the stored rows and columns are to be turned."""


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
    """What the networks see of an image; UserError if its content is in the transparency."""
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


def read_pillow(path: Path) -> Picture:
    """PNG, JPEG, GIF and BMP, upright as their EXIF orientation says."""
    from PIL import Image

    with Image.open(path) as image:
        if image.format in ("GIF", "PNG") and getattr(image, "n_frames", 1) > 1:
            raise UserError(
                f"{path}: holds {image.n_frames} frames; save the one that is meant by itself"
            )
        if image.format == "BMP" and image.mode == "1":
            _mend_two_greys(image, path)
        return _decode(image, path)


def _mend_two_greys(image: Any, path: Path) -> None:
    """Pillow takes every BMP whose palette is black and white for one bit a pixel; some have 8."""
    image.fp.seek(14)
    header = image.fp.read(16)
    bits = header[10] if header[0] == 12 else header[14]
    if bits == 1:
        return
    if bits != 8 or image.tile[0][0] != "raw":
        raise UserError(f"{path}: a BMP of {bits} bits and two colours; save it as PNG")
    _decode_as(image, "1;8")


def _decode(image: Any, path: Path) -> Picture:
    """The picture of an opened Pillow image, or of the page it stands at."""
    raw = image.tile[0][3] if image.tile else image.mode
    raw = raw if isinstance(raw, str) else str(raw[0])
    deep = re.fullmatch(r"(LA|RGBA?);16([BLN])", raw)
    clear = image.info.get("transparency")
    if deep:
        picture = _decode_deep(image, path, raw, clear)
    else:
        image.load()
        picture = _decode_mode(image, raw, clear)
    orientation = image.getexif().get(ORIENTATION, 1)
    return _upright(picture, orientation)


def _decode_mode(image: Any, raw: str, clear: Any) -> Picture:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGBA"), np.uint8).reshape(-1, 4)
        palette = np.pad(palette, ((0, 256 - len(palette)), (0, 0)))
        planes = np.array(image)
        index = planes[..., 0] if image.mode == "PA" else planes
        alpha = planes[..., 1] if image.mode == "PA" else palette[index, 3]
        if isinstance(clear, int):
            alpha = np.where(index == clear, 0, alpha)
        return Picture(index[..., None], alpha, palette[:, :3])
    if image.mode in ("1", "L", "F", "I") or image.mode.startswith("I;16"):
        values = np.array(image)[..., None]
        few = re.fullmatch(r"(1|L);?([1248]?)(I?)R?", raw)
        bits = None
        if few and few[3]:  # Pillow has turned white from 0 to its highest value already
            values = ~values
        if few and few[1] + few[2] != "L":
            bits = int(few[2] or 1)
            values = values.astype(np.uint8) // (1 if bits == 1 else 255 // ((1 << bits) - 1))
        return Picture(values, _keyed(values, clear), bits=bits, white_is_zero=bool(few and few[3]))
    if image.mode in ("LA", "La", "RGBA", "RGBa"):
        planes = np.array(image.convert("LA" if image.mode[0] == "L" else "RGBA"))
        return Picture(planes[..., :-1], planes[..., -1])
    values = np.array(image.convert("RGB"))
    return Picture(values, _keyed(values, clear))


def _decode_as(image: Any, raw: str) -> None:
    """Loads a Pillow image as if its pixels were stored in the mode ``raw``."""
    tile = image.tile[0]
    arguments = raw if isinstance(tile[3], str) else (raw, *tile[3][1:])
    named = hasattr(tile, "_replace")  # since Pillow 11
    image.tile = [tile._replace(args=arguments) if named else (*tile[:3], arguments)]
    image.load()


def _keyed(samples: np.ndarray, clear: Any) -> np.ndarray | None:
    """Opacity where one colour stands for transparent."""
    if clear is None or isinstance(clear, bytes):
        return None
    return np.where((samples == np.array(clear)).all(-1), 0, 255).astype(np.uint8)


def _decode_deep(image: Any, path: Path, raw: str, clear: Any) -> Picture:
    """16 bits a channel, of which Pillow keeps the high byte: the low one is read apart."""
    from PIL import Image

    kind, order = raw.split(";16")
    with Image.open(path) as other:
        other.seek(image.tell())
        if kind == "LA":  # two 16-bit numbers are four bytes
            _decode_as(other, "RGBA")
            planes = np.array(other).view(">u2").astype(np.uint16)
        else:
            little = sys.byteorder == "little"
            _decode_as(
                other, f"{kind};16" + {"B": "L", "L": "B"}.get(order, "B" if little else "L")
            )
            image.load()
            planes = np.array(image).astype(np.uint16) << 8 | np.array(other)
    if kind in ("LA", "RGBA"):
        return Picture(planes[..., :-1], planes[..., -1])
    return Picture(planes, _keyed(planes, clear))


def _upright(picture: Picture, orientation: int) -> Picture:
    """Turned and mirrored as EXIF's orientation (1 to 8) says, each page alike."""
    first = picture.samples.ndim - 3  # 1 where there are pages
    picture.turned = orientation in (5, 6, 7, 8)

    def turn(plane: np.ndarray) -> np.ndarray:
        plane = plane.swapaxes(first, first + 1) if picture.turned else plane
        rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
        columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
        return np.ascontiguousarray(plane[(slice(None),) * first + (rows, columns)])

    return picture if orientation == 1 else picture.map(turn)


def read_tiff(path: Path) -> Picture:
    """A TIFF, its pages (the slices of a volume) on the first axis where there are several."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise UserError(
                f"{path}: holds {len(file.series)} images of different size or kind; save the one "
                "that is meant by itself"
            )
        series, page = file.series[0], file.series[0].keyframe
        white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        if page.photometric in _BY_PILLOW:
            return _pillow_pages(path, page)
        try:
            array, axes = series.asarray(), series.axes
        except (ValueError, NotImplementedError) as error:
            if "imagecodecs" not in str(error):
                raise
            picture = _pillow_pages(path, page)
            picture.white_is_zero = white_is_zero
            return picture
        palette = None
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            colours = page.colormap.T
            palette = (colours // 257 if colours.max() > 255 else colours).astype(np.uint8)
        orientation = page.tags.valueof(ORIENTATION, 1)
        bits = page.bitspersample if page.bitspersample < 8 * array.dtype.itemsize else None
    if "C" in axes and array.shape[axes.index("C")] > 1:
        raise UserError(
            f"{path}: holds {array.shape[axes.index('C')]} channels; save the one that is meant, "
            "or its colours as RGB"
        )
    if array.dtype == bool:
        array, bits = array.astype(np.uint8), 1
    if palette is not None or array.dtype.kind == "f":
        bits = None
    array = np.moveaxis(array, axes.index("S"), -1) if "S" in axes else array[..., None]
    channels = array.shape[-1]
    if channels > 4:
        raise UserError(f"{path}: holds {channels} channels; save the one that is meant")
    alpha = array[..., -1] if channels in (2, 4) else None
    samples = array[..., :3] if channels > 2 else array[..., :1]
    picture = Picture(samples, alpha, palette, bits, white_is_zero)
    return _upright(picture, orientation)


_BY_PILLOW = (5, 6, 8, 9, 10)
"""Photometric interpretations that Pillow turns to RGB: CMYK, YCbCr and the kinds of Lab."""


def _pillow_pages(path: Path, page: Any) -> Picture:
    """A TIFF through Pillow, whose codecs tifffile leaves to another package (LZW, JPEG, ...)."""
    from PIL import Image

    advice = "save it without compression or with deflate"
    if page.planarconfig == 2 and page.bitspersample > 8:
        raise UserError(
            f"{path}: {page.bitspersample}-bit colour in planes cannot be read with compression "
            f"{page.compression.name}; {advice}"
        )
    try:
        with Image.open(path) as image:
            pages = []
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                pages.append(_decode(image, path))
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read with compression {page.compression.name} ({error}); {advice}"
        ) from error
    if len(pages) == 1:
        return pages[0]
    first = pages[0]
    if any(not np.array_equal(first.palette, other.palette) for other in pages[1:]):
        raise UserError(f"{path}: its pages have different palettes; save them without palette")
    first.samples = np.stack([picture.samples for picture in pages])
    if first.alpha is not None:
        first.alpha = np.stack([picture.alpha for picture in pages])
    return first
