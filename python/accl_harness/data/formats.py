"""Reading and writing of the image formats, each through its own well-kept library.

A file is a flat image ``[H, W]`` or a volume ``[H, W, D]`` that is sliced along its last axis.
The libraries are imported when a file of their format is met, so that the command line starts fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import UserError

Role = Literal["image", "mask", "weak"]

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npy", ".nii.gz", ".nii", ".h5", ".hdf5")
"""What can be read; case does not matter."""

_SIDE_FILES = (".txt", ".md", ".csv", ".json", ".yaml", ".yml", ".db", ".ini")
_HDF5_KEYS = {
    "image": ("image",),
    "mask": ("mask", "label"),
    "weak": ("weak", "scribble", "mask", "label"),
}
_MILLIMETRES = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}


@dataclass(frozen=True)
class ImageFile:
    """One file as it lies on disk, colour already turned to luminance."""

    path: Path
    array: np.ndarray
    """[H, W], or [H, W, D] for a volume; the file's own number type."""
    spacing: tuple[float, float] | None = None
    """Row and column spacing in mm, where the format tells it (NIfTI)."""
    nifti: Any = None
    """Class, affine and header of a NIfTI file, for writing a result in its space."""

    @property
    def is_volume(self) -> bool:
        return self.array.ndim == 3


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The suffix as in :data:`SUFFIXES` (``.nii.gz`` is one suffix), or ``""`` if not readable."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def stem_of(path: str | os.PathLike[str]) -> str:
    """File name without its suffix: what an image and its mask have in common."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path))] if suffix_of(path) else Path(path).stem


def list_files(folder: str | os.PathLike[str], what: str = "images") -> dict[str, Path]:
    """Readable files of ``folder`` as stem -> path, sorted by stem.

    Hidden files and side files (text, JSON, ...) are passed over; any other file, two files of one
    stem, a missing or an empty folder is a :class:`UserError`.
    """
    folder = Path(folder)
    readable = ", ".join(SUFFIXES)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; it should hold the {what} ({readable})")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir() or path.suffix.lower() in _SIDE_FILES:
            continue
        if not suffix_of(path):
            raise UserError(f"{path}: not a readable format ({readable}); convert or move it")
        stem = stem_of(path)
        if stem in found:
            raise UserError(f"{path} and {found[stem].name} have the same name; keep one of them")
        found[stem] = path
    if not found:
        raise UserError(f"{folder}: holds no {what}; wanted files in one of {readable}")
    return dict(sorted(found.items()))


def refuse_full(folder: str | os.PathLike[str]) -> None:
    """UserError if ``folder`` is a file or holds something: nothing is overwritten unasked."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already and is not empty; name another folder")


def read_image(path: str | os.PathLike[str], role: Role = "image") -> ImageFile:
    """Reads one file of any format.

    ``role`` decides what is taken where a file offers several things: the dataset of an HDF5 file
    (``image``; ``mask`` or ``label``; ``weak`` or ``scribble``; else the only one there is), and
    for palette images the colours (image) or the indices (mask, weak). In NPY and HDF5 an 8-bit
    image with a last axis of length 3 or 4 is colour.

    Raises:
        UserError: missing, unreadable, empty or of a shape that is neither image nor volume.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if not suffix:
        raise UserError(f"{path}: not a format that can be read ({', '.join(SUFFIXES)})")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        file = _READERS[suffix](path, role)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # each library has its own exceptions for a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: cannot be read ({reason}); the file is damaged or not what its name says: "
            "replace or remove it"
        ) from error
    array = file.array
    if array.ndim not in (2, 3) or array.size == 0:
        raise UserError(f"{path}: wanted an image [H, W] or a volume [H, W, D], got {array.shape}")
    if array.dtype.kind not in "buif":
        raise UserError(f"{path}: wanted real numbers, got {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int(np.count_nonzero(~np.isfinite(array)))
        raise UserError(f"{path}: {count} values are NaN or infinite; replace them by numbers")
    if not array.dtype.isnative:
        file = replace(file, array=array.astype(array.dtype.newbyteorder("=")))
    return file


def output_path(folder: str | os.PathLike[str], source: str | os.PathLike[str]) -> Path:
    """Where the mask of ``source`` goes: same name and format, but PNG for JPEG (lossy)."""
    name = Path(source).name
    if suffix_of(name) in (".jpg", ".jpeg"):
        name = stem_of(name) + ".png"
    return Path(folder) / name


def write_mask(
    path: str | os.PathLike[str], mask: np.ndarray, like: ImageFile | None = None
) -> Path:
    """Writes a mask ``{0, 1}``: as 0/255 where people look at it (PNG, TIFF), else as 0/1.

    ``mask``: [H, W] or [H, W, D]. ``like``: the image's file; a NIfTI mask takes its affine and
    header (only the number type changes). Returns the path.
    """
    values = (np.asarray(mask) != 0).astype(np.uint8)
    if suffix_of(path) in (".png", ".tif", ".tiff"):
        values *= 255
    return write_labels(path, values, like)


def write_labels(
    path: str | os.PathLike[str],
    labels: np.ndarray,
    like: ImageFile | None = None,
    *,
    key: str = "mask",
) -> Path:
    """Writes uint8 values as they are; ``key`` names the dataset of an HDF5 file."""
    path = Path(path)
    suffix = suffix_of(path)
    if suffix in ("", ".jpg", ".jpeg"):
        raise UserError(f"{path}: labels need a lossless format, one of {', '.join(_WRITERS)}")
    labels = np.ascontiguousarray(labels, dtype=np.uint8)
    if suffix == ".png" and labels.ndim != 2:
        raise UserError(f"{path}: PNG holds flat images only, got shape {labels.shape}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[suffix](path, labels, like, key)
    return path


def _luminance(array: np.ndarray) -> np.ndarray:
    """[..., 3 or 4] to [...] with the weights of ITU-R 601-2, as Pillow does; alpha is dropped."""
    red, green, blue = (array[..., channel] for channel in range(3))
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        wide = [channel.astype(np.uint64) for channel in (red, green, blue)]
        grey = (19595 * wide[0] + 38470 * wide[1] + 7471 * wide[2] + 32768) >> np.uint64(16)
        return grey.astype(array.dtype)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _flatten_colour(array: np.ndarray, role: Role) -> np.ndarray:
    colour = role == "image" and array.dtype == np.uint8
    colour = colour and array.ndim == 3 and array.shape[-1] in (3, 4)
    return _luminance(array) if colour else array


def _read_pillow(path: Path, role: Role) -> ImageFile:
    from PIL import Image

    with Image.open(path) as image:
        return ImageFile(path, _grey(image, role))


def _grey(image: Any, role: Role) -> np.ndarray:
    """Pixels of a Pillow image: luminance, or the palette's indices in a label file."""
    image.load()
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode == "P" and role != "image":
        pass
    elif image.mode not in ("L", "F", "I") and not image.mode.startswith("I;16"):
        image = image.convert("RGB").convert("L")
    return np.array(image)


def _read_tiff(path: Path, role: Role) -> ImageFile:
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise UserError(
                f"{path}: holds {len(file.series)} images of different size or kind; save the one "
                "that is meant by itself"
            )
        series, page = file.series[0], file.series[0].keyframe
        inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        if inverted and role != "image":
            raise UserError(
                f"{path}: stores white as 0 (MinIsWhite), which leaves open what the object is; "
                "save it with the object above a background of 0 (MinIsBlack)"
            )
        try:
            array, axes = series.asarray(), series.axes
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _read_tiff_pages(path, role)
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and role == "image":
            array, axes = np.moveaxis(page.colormap[:, array], 0, -1), axes + "S"
    if inverted:
        array = array ^ array.dtype.type((1 << page.bitspersample) - 1)
    if "S" in axes:
        array = np.moveaxis(array, axes.index("S"), -1)
        array = _luminance(array) if array.shape[-1] >= 3 else array[..., 0]
    if array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    return ImageFile(path, array)


def _read_tiff_pages(path: Path, role: Role) -> ImageFile:
    """LZW or JPEG inside a TIFF: Pillow brings the codecs that tifffile leaves to others."""
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        pages = [_grey(page, role) for page in ImageSequence.Iterator(image)]
    return ImageFile(path, pages[0] if len(pages) == 1 else np.stack(pages, axis=-1))


def _read_npy(path: Path, role: Role) -> ImageFile:
    return ImageFile(path, _flatten_colour(np.load(path, allow_pickle=False), role))


def _read_hdf5(path: Path, role: Role) -> ImageFile:
    import h5py

    with h5py.File(path, "r") as file:
        keys: list[str] = []
        file.visititems(lambda name, item: keys.append(name) if hasattr(item, "dtype") else None)
        wanted = [key for key in _HDF5_KEYS[role] if key in keys]
        if not wanted and len(keys) != 1:
            names = " or ".join(f"'{key}'" for key in _HDF5_KEYS[role])
            raise UserError(
                f"{path}: wanted a dataset {names}, or a single one; it holds {sorted(keys)}"
            )
        return ImageFile(path, _flatten_colour(file[wanted[0] if wanted else keys[0]][()], role))


def _read_nifti(path: Path, role: Role) -> ImageFile:
    import nibabel

    image = nibabel.load(path)
    array = np.asarray(image.dataobj)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    scale = _MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
    row, column = (float(zoom) * scale for zoom in image.header.get_zooms()[:2])
    spacing = (row, column) if row > 0 and column > 0 else None
    return ImageFile(path, array, spacing, (type(image), image.affine, image.header))


def _write_png(path: Path, labels: np.ndarray, like: ImageFile | None, key: str) -> None:
    from PIL import Image

    Image.fromarray(labels).save(path)


def _write_tiff(path: Path, labels: np.ndarray, like: ImageFile | None, key: str) -> None:
    import tifffile

    pages = labels if labels.ndim == 2 else np.moveaxis(labels, -1, 0)
    tifffile.imwrite(path, pages, photometric="minisblack", compression="zlib")


def _write_npy(path: Path, labels: np.ndarray, like: ImageFile | None, key: str) -> None:
    with path.open("wb") as file:  # by its name, NumPy would make b.NPY to b.NPY.npy
        np.save(file, labels)


def _write_hdf5(path: Path, labels: np.ndarray, like: ImageFile | None, key: str) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=labels, compression="gzip")


def _write_nifti(path: Path, labels: np.ndarray, like: ImageFile | None, key: str) -> None:
    import nibabel

    if like is None or like.nifti is None:
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), path)
        return
    kind, affine, header = like.nifti
    header = header.copy()
    header.set_data_dtype(np.uint8)
    nibabel.save(kind(labels.reshape(header.get_data_shape()), affine, header), path)


_READERS: dict[str, Callable[[Path, Role], ImageFile]] = {
    ".png": _read_pillow,
    ".jpg": _read_pillow,
    ".jpeg": _read_pillow,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".npy": _read_npy,
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
}
_WRITERS: dict[str, Callable[[Path, np.ndarray, ImageFile | None, str], None]] = {
    ".png": _write_png,
    ".tif": _write_tiff,
    ".tiff": _write_tiff,
    ".npy": _write_npy,
    ".nii": _write_nifti,
    ".nii.gz": _write_nifti,
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
}
