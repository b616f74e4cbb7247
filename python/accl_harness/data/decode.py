"""Decoding of PNG, JPEG, GIF and BMP through Pillow and of TIFF through tifffile.

Nothing is dropped: transparency, palette and all 16 bits stay, rows and columns lie as a viewer
shows them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .pictures import Picture

ORIENTATION = 0x0112
"""The tag of EXIF and TIFF that says how the stored rows and columns are to be turned."""

SUBFILE_TYPE = 254
"""The tag of a TIFF's page whose lowest bit says that it is another page at a reduced size."""

_BY_PILLOW = (5, 6, 8, 9, 10)
"""Photometric interpretations of a TIFF that Pillow turns to RGB: CMYK, YCbCr, kinds of Lab."""


@contextmanager
def large_files() -> Iterator[None]:
    """Let Pillow read images and texts of any size.

    Its limits guard servers against files of strangers. A user's own whole slide is beyond them.
    """
    from PIL import Image, PngImagePlugin

    limits = (Image, "MAX_IMAGE_PIXELS"), (PngImagePlugin, "MAX_TEXT_CHUNK")
    limits += ((PngImagePlugin, "MAX_TEXT_MEMORY"),)
    before = [getattr(module, name) for module, name in limits]
    try:
        for (module, name), value in zip(limits, (None, 1 << 30, 1 << 30), strict=True):
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in zip(limits, before, strict=True):
            setattr(module, name, value)


def read_pillow(path: Path) -> Picture:
    """PNG, JPEG, GIF and BMP, upright as their EXIF orientation says.

    Raises:
        UserError: several frames, or a form that is read wrongly by the library.
    """
    from PIL import Image

    with large_files(), Image.open(path) as image:
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
    """Load a Pillow image as if its pixels were stored in the mode ``raw``."""
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
    """A TIFF, its pages (the slices of a volume) on the first axis where there are several.

    Raises:
        UserError: images of different size or kind, channels that are no colour, or a compression
            that cannot be read.
    """
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
        except (ValueError, NotImplementedError, ImportError) as error:
            if "imagecodecs" not in str(error) and not isinstance(error, ImportError):
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
        with large_files(), Image.open(path) as image:
            pages = []
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                if number == 0 or not image.tag_v2.get(SUBFILE_TYPE, 0) & 1:
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
