"""Arrays and volumes: NPY, HDF5, NIfTI, and NRRD and MetaImage through SimpleITK."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .geometry import Geometry, Layout, arrange, make_geometry
from .options import Slices

HDF5_KEYS = {
    "image": ("image",),
    "mask": ("mask", "label"),
    "weak": ("weak", "scribble", "mask", "label"),
}
_MILLIMETRES = {"meter": 1e3, "mm": 1.0, "micron": 1e-3}


def read_npy(path: Path) -> np.ndarray:
    """The array of an NPY file, which must not hold Python objects."""
    return np.load(path, allow_pickle=False)


def read_hdf5(path: Path, role: str) -> np.ndarray:
    """The dataset of an HDF5 file that is called as the role says, or the only one there is.

    Raises:
        UserError: no dataset, or several of other names.
    """
    import h5py

    with h5py.File(path, "r") as file:
        keys: list[str] = []
        file.visititems(lambda name, item: keys.append(name) if hasattr(item, "dtype") else None)
        wanted = [key for key in HDF5_KEYS[role] if key in keys]
        if not wanted and len(keys) != 1:
            names = " or ".join(f"'{key}'" for key in HDF5_KEYS[role])
            raise UserError(
                f"{path}: wanted a dataset {names}, or a single one; it holds {sorted(keys)}"
            )
        return np.asarray(file[wanted[0] if wanted else keys[0]][()])


def arrange_array(stored: np.ndarray, slices: Slices) -> tuple[np.ndarray, Layout]:
    """An array without geometry: single axes around it left out, the slices last."""
    shape = stored.shape
    array = stored
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    array, layout = arrange(array, slices=slices, usual="last", known=False)
    return array, replace(layout, shape=shape)


def read_nifti(path: Path, slices: Slices) -> dict[str, Any]:
    """Fields of an ``ImageFile``.

    Raises:
        UserError: more than three axes that are longer than 1.
    """
    import nibabel

    image = nibabel.load(path)
    header = image.header
    array = np.asarray(image.dataobj)
    shape = array.shape
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim > 3:
        raise UserError(
            f"{path}: has {array.ndim} axes {array.shape}; wanted an image [H, W] or a volume "
            "[H, W, D]: save the time or channel that is meant by itself"
        )
    if array.ndim < 2:
        return {"array": array}
    if array.dtype.names in (("R", "G", "B"), ("R", "G", "B", "A")):
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)
        return {"array": array}
    try:
        scale = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    except KeyError:  # a code that the standard does not have
        scale = 1.0
    zooms = tuple(float(zoom) * scale for zoom in header.get_zooms()[: array.ndim])
    array, layout = arrange(array, slices=slices, usual="last", spacing=zooms)
    row, column = (zooms[axis] for axis in layout.axes[:2])
    known = 0 < row < np.inf and 0 < column < np.inf
    geometry = _nifti_geometry(header, scale)
    return {
        "array": array,
        "spacing": (row, column) if known else None,
        "layout": replace(layout, shape=shape),
        "geometry": geometry and geometry.permuted(layout.axes),
        "native": (type(image), image.affine, header),
    }


def _nifti_geometry(header: Any, scale: float) -> Geometry | None:
    """sform and qform, in the header's unit and, should that be wrong, as they stand."""
    found = [
        np.asarray(form, float)
        for form, code in (header.get_sform(coded=True), header.get_qform(coded=True))
        if form is not None and code
    ]
    to_mm = np.diag([scale, scale, scale, 1.0])
    affines = [to_mm @ form for form in found] + (found if scale != 1 else [])
    return make_geometry(affines, "nifti", bool(found) and np.array_equal(found[0], np.eye(4)))


def write_nifti(path: Path, labels: np.ndarray, native: Any, key: str) -> None:
    """Write labels with the affine and header of the file behind ``native``, if there is one."""
    import nibabel

    if native is None:
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), path)
        return
    kind, affine, header = native
    header = header.copy()
    header.set_data_dtype(np.uint8)
    header["cal_min"] = header["cal_max"] = 0  # the grey window of the image
    nibabel.save(kind(labels, affine, header), path)


def write_npy(path: Path, labels: np.ndarray, native: Any, key: str) -> None:
    """Write labels as an NPY file."""
    with path.open("wb") as file:  # by its name, NumPy would make b.NPY to b.NPY.npy
        np.save(file, labels)


def write_hdf5(path: Path, labels: np.ndarray, native: Any, key: str) -> None:
    """Write labels as the dataset ``key`` of an HDF5 file."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=labels, compression="gzip")


def _itk(path: Path) -> Any:
    try:
        import SimpleITK
    except ImportError:
        raise UserError(
            f"{path}: NRRD and MetaImage are read with SimpleITK, which is not installed: "
            "pip install SimpleITK"
        ) from None
    return SimpleITK


def read_itk(path: Path, slices: Slices) -> dict[str, Any]:
    """Fields of an ``ImageFile``; rows run along y and columns along x, as in pictures.

    Raises:
        UserError: SimpleITK is not installed, or the file has more axes than a volume.
    """
    itk = _itk(path)
    image = itk.ReadImage(str(path))
    array = itk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        return {"array": array}
    size = image.GetDimension()
    if size not in (2, 3):
        raise UserError(
            f"{path}: has {size} axes; wanted an image or a volume: save the time or channel that "
            "is meant by itself"
        )
    spacing = tuple(image.GetSpacing())[::-1]
    array, layout = arrange(array, slices=slices, usual="first", spacing=spacing)
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(size, size)
    affine[:size, :size] = direction * np.array(image.GetSpacing())
    affine[:size, 3] = image.GetOrigin()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # left and posterior to right and anterior
    order = tuple(size - 1 - axis for axis in layout.axes)  # x, y, z to the array's axes
    default = np.array_equal(affine, np.diag([-1.0, -1.0, 1.0, 1.0]))
    geometry = make_geometry([affine], "itk", default)
    row, column = (spacing[axis] for axis in layout.axes[:2])
    return {
        "array": array,
        "spacing": (float(row), float(column)),
        "layout": layout,
        "geometry": geometry and geometry.permuted(order),
        "native": (image.GetSpacing(), image.GetOrigin(), image.GetDirection()),
    }


def write_itk(path: Path, labels: np.ndarray, native: Any, key: str) -> None:
    """Write labels [y, x] or [z, y, x] with the geometry of the image ``native``, if given."""
    itk = _itk(path)
    image = itk.GetImageFromArray(labels)
    if native is not None:
        spacing, origin, direction = native
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
    itk.WriteImage(image, str(path), useCompression=True)
