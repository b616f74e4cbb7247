"""Reading and writing of the image formats, each through its own well-kept library.

A file is a flat image ``[H, W]`` or a volume ``[H, W, D]`` that is sliced along its last axis.
The libraries are imported when a file of their format is met, so that the command line starts fast.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import UserError
from . import volumes
from .decode import read_pillow, read_tiff
from .geometry import Geometry, Layout, arrange
from .options import Slices
from .pictures import Picture, graded_readings, grey_values, label_readings

Role = Literal["image", "mask", "weak"]

_AS_PNG = (".jpg", ".jpeg", ".gif")
"""Formats whose labels are written as PNG: JPEG blurs them, GIF renumbers them."""


@dataclass(frozen=True)
class ImageFile:
    """One file as it lies on disk, upright, its slices on the last axis."""

    path: Path
    array: np.ndarray
    """[H, W], or [H, W, D] for a volume, in the file's own number type: grey values (colour as
    luminance), or the usual one of the ``readings`` of a label file."""
    spacing: tuple[float, float] | None = None
    """Row and column spacing in mm, where the format tells it."""
    role: Role = "image"
    readings: dict[str, np.ndarray] = field(default_factory=dict)
    """The class indices that a label file may mean, by the way of reading; the usual one first."""
    picture: Picture | None = None
    """The pixels of a picture of labels, nothing dropped."""
    layout: Layout | None = None
    """How the array lies in the file."""
    geometry: Geometry | None = None
    """Where the voxels lie in the world, where the format tells it."""
    turned: bool = False
    """Rows and columns have been exchanged, as the orientation in EXIF says."""
    native: Any = None
    """What the format's library needs to write a result in the file's space."""

    @property
    def is_volume(self) -> bool:
        """Whether it holds more than one slice."""
        return self.array.ndim == 3

    def __post_init__(self) -> None:
        if not self.readings:
            object.__setattr__(self, "readings", {"values": self.array})

    @property
    def graded(self) -> dict[str, np.ndarray]:
        """What a threshold on a label file is compared with."""
        return {"values": self.array} if self.picture is None else graded_readings(self.picture)


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The suffix as in :data:`SUFFIXES` (``.nii.gz`` is one suffix), or ``""`` if not readable."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def stem_of(path: str | os.PathLike[str]) -> str:
    """File name without its suffix: what an image and its mask have in common."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path))] if suffix_of(path) else Path(path).stem


def refuse_full(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder to write to that is a file or holds something: nothing is overwritten.

    Raises:
        UserError: naming the folder.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already and is not empty; name another folder")


def read_image(
    path: str | os.PathLike[str], role: Role = "image", slices: Slices = "auto"
) -> ImageFile:
    """Read one file of any format.

    In NPY and HDF5 an 8-bit image with a last axis of length 3 or 4 is colour, unless ``slices``
    says that it is a volume.

    Args:
        path: the file.
        role: decides what is taken where a file offers several things: the dataset of an HDF5 file
            (``image``; ``mask`` or ``label``; ``weak`` or ``scribble``; else the only one there
            is), and for pictures the brightness (image) or the integers that are meant (mask,
            weak; see :mod:`.labels`).
        slices: the axis of a volume's slices in the file.

    Raises:
        UserError: missing, unreadable, empty or of a shape that is neither image nor volume.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if not suffix:
        raise UserError(f"{path}: not a format that can be read ({', '.join(SUFFIXES)})")
    if not path.is_file():
        broken = f"; it is a link to {os.readlink(path)}" if path.is_symlink() else ""
        raise UserError(f"{path}: no such file{broken}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: cannot be read (0 bytes); write it again from its source")
    try:
        file = _FORMATS[suffix].read(path, role, slices)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # each library has its own exceptions for a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not the file's
            raise UserError(f"{path}: cannot be opened ({reason}); {_advice(error)}") from error
        raise UserError(
            f"{path}: cannot be read ({reason}); the file is damaged or not what its name says: "
            "write it again from its source"
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
        file = replace(file, array=array.astype(array.dtype.newbyteorder("=")), readings={})
    return file


def _advice(error: OSError) -> str:
    """What to do where the system refuses a file that may be sound."""
    if isinstance(error, PermissionError):
        return "give this user the right to read it"
    if isinstance(error, BlockingIOError):
        return (
            "another program has it open: close it there, or set HDF5_USE_FILE_LOCKING=FALSE if "
            "its disk knows no locks"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many files are open: raise the limit (ulimit -n)"
    return "see that the disk is there, and try again"


def _of_picture(path: Path, role: Role, picture: Picture, layout: Layout | None) -> ImageFile:
    about = {"role": role, "layout": layout, "turned": picture.turned}
    if role == "image":
        return ImageFile(path, grey_values(picture, path), **about)
    readings = label_readings(picture)
    usual = next(iter(readings.values()))
    return ImageFile(path, usual, readings=readings, picture=picture, **about)


def _read_pillow(path: Path, role: Role, slices: Slices) -> ImageFile:
    return _of_picture(path, role, read_pillow(path), None)


def _read_tiff(path: Path, role: Role, slices: Slices) -> ImageFile:
    picture = read_tiff(path)
    planes = picture.samples[..., 0]
    _, layout = arrange(planes, slices=slices, usual="first")
    if planes.ndim == 3:
        picture = picture.map(lambda p: p.transpose(*layout.axes, *range(3, p.ndim)))
    return _of_picture(path, role, picture, layout)


def _of_array(path: Path, role: Role, stored: np.ndarray, slices: Slices) -> ImageFile:
    colour = stored.ndim == 3 and stored.shape[-1] in (3, 4) and stored.dtype == np.uint8
    if colour and role == "image" and slices == "auto":
        return _of_colours(path, role, stored)
    array, layout = volumes.arrange_array(stored, slices)
    return ImageFile(path, array, role=role, layout=layout)


def _of_colours(path: Path, role: Role, stored: np.ndarray) -> ImageFile:
    if stored.shape[-1] not in (3, 4) or stored.dtype.kind != "u":
        raise UserError(f"{path}: holds {stored.shape[-1]} channels; save the one that is meant")
    alpha = stored[..., 3] if stored.shape[-1] == 4 else None
    return _of_picture(path, role, Picture(stored[..., :3], alpha), None)


def _read_npy(path: Path, role: Role, slices: Slices) -> ImageFile:
    return _of_array(path, role, volumes.read_npy(path), slices)


def _read_hdf5(path: Path, role: Role, slices: Slices) -> ImageFile:
    return _of_array(path, role, volumes.read_hdf5(path, role), slices)


def _read_volume(path: Path, role: Role, slices: Slices) -> ImageFile:
    read = volumes.read_nifti if suffix_of(path).startswith(".nii") else volumes.read_itk
    fields = read(path, slices)
    if fields.keys() == {"array"} and fields["array"].ndim > 2:
        return _of_colours(path, role, fields["array"])
    return ImageFile(path, role=role, **fields)


def output_path(folder: str | os.PathLike[str], source: str | os.PathLike[str]) -> Path:
    """Where the mask of ``source`` goes: same name and format, but PNG for JPEG and GIF."""
    name = Path(source).name
    if suffix_of(name) in _AS_PNG:
        name = stem_of(name) + ".png"
    return Path(folder) / name


def write_mask(
    path: str | os.PathLike[str], mask: np.ndarray, like: ImageFile | None = None
) -> Path:
    """Write a mask ``{0, 1}``: as 0/255 where people look at it (pictures), else as 0/1.

    Args:
        path: the file.
        mask: [H, W] or [H, W, D].
        like: the image's file; the mask takes its order of axes and, in formats that have them,
            its affine and header (only the number type and the window of grey values change).

    Returns:
        The path.

    Raises:
        UserError: a format that loses labels, or a volume in a format of flat images.
    """
    values = (np.asarray(mask) != 0).astype(np.uint8)
    form = _FORMATS.get(suffix_of(path))
    if form is not None and form.picture:
        values *= 255
    return write_labels(path, values, like)


def write_labels(
    path: str | os.PathLike[str],
    labels: np.ndarray,
    like: ImageFile | None = None,
    *,
    key: str = "mask",
) -> Path:
    """Write uint8 values as they are; ``key`` names the dataset of an HDF5 file.

    Raises:
        UserError: a format that loses labels, or a volume in a format of flat images.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix == "" or suffix in _AS_PNG:
        readable = ", ".join(s for s in SUFFIXES if s not in _AS_PNG)
        raise UserError(f"{path}: labels need a lossless format, one of {readable}")
    labels = np.ascontiguousarray(labels, dtype=np.uint8)
    if suffix in (".png", ".bmp") and labels.ndim != 2:
        raise UserError(f"{path}: {suffix[1:].upper()} holds flat images, got {labels.shape}")
    form = _FORMATS[suffix]
    same = like is not None and _FORMATS[suffix_of(like.path)] is form
    if same and like.layout is not None:
        labels = like.layout.restore(labels)
    elif form.slices_first and labels.ndim == 3:
        labels = np.ascontiguousarray(np.moveaxis(labels, -1, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    form.write(path, labels, like.native if same else None, key)
    return path


def _write_picture(path: Path, labels: np.ndarray, native: Any, key: str) -> None:
    from PIL import Image

    Image.fromarray(labels).save(path)


def _write_tiff(path: Path, labels: np.ndarray, native: Any, key: str) -> None:
    import tifffile

    tifffile.imwrite(path, labels, photometric="minisblack", compression="zlib")


@dataclass(frozen=True)
class _Format:
    """How the files of one library are read and written."""

    suffixes: tuple[str, ...]
    read: Callable[[Path, Role, Slices], ImageFile]
    write: Callable[[Path, np.ndarray, Any, str], None]
    """Path, uint8 array as it shall be stored, ``native`` or None, name of the dataset."""
    slices_first: bool = False
    picture: bool = False
    """People look at it, so a mask is written as 0 and 255."""


_FORMATS = {
    suffix: form
    for form in (
        _Format(
            (".png", ".jpg", ".jpeg", ".gif", ".bmp"), _read_pillow, _write_picture, picture=True
        ),
        _Format((".tif", ".tiff"), _read_tiff, _write_tiff, slices_first=True, picture=True),
        _Format((".npy",), _read_npy, volumes.write_npy),
        _Format((".nii.gz", ".nii"), _read_volume, volumes.write_nifti),
        _Format((".h5", ".hdf5"), _read_hdf5, volumes.write_hdf5),
        _Format((".nrrd", ".mha"), _read_volume, volumes.write_itk, slices_first=True),
    )
    for suffix in form.suffixes
}

SUFFIXES = tuple(_FORMATS)
"""What can be read; case does not matter."""
