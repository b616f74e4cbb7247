"""3D Slicer's segmentations (``.seg.nrrd``): segments with names, in layers where they overlap."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..data.formats import ImageFile, read_image, suffix_of
from ..data.options import Slices
from ..data.pairing import read_partner
from ..errors import UserError
from ..versions import need
from .items import Mark

SUFFIX = ".seg.nrrd"

_OF_ITK = (".nii", ".nii.gz", ".nrrd", ".mha")


def segment_marks(path: Path, image: ImageFile | None, slices: Slices) -> list[Mark]:
    """A mark for each segment, on the image's grid.

    Slicer can save the part of the volume that holds something; it is put back in its place.

    Raises:
        UserError: no segments, or they lie elsewhere than the image.
    """
    need("SimpleITK", f"{path}: a segmentation of 3D Slicer", "import")
    import SimpleITK as itk

    stored = itk.ReadImage(str(path))
    segments = _segments(stored)
    if not segments:
        raise UserError(f"{path}: names no segments; a volume of labels is called .nrrd")
    layers: dict[int, np.ndarray] = {}
    marks = []
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, value, layer) in enumerate(segments):
            if layer not in layers:
                layers[layer] = _layer(itk, stored, layer, path, image, Path(folder), slices)
            marks.append(Mark(name, layers[layer] == value, name=f"segment {index} '{name}'"))
    return marks


def _segments(stored: Any) -> list[tuple[str, int, int]]:
    """Name, value and layer of each segment."""
    found = []
    keys = set(stored.GetMetaDataKeys())
    layered = stored.GetNumberOfComponentsPerPixel() > 1
    index = 0
    while f"Segment{index}_ID" in keys or f"Segment{index}_Name" in keys:
        # Versions before 4.11 gave each segment a layer of its own, in which it is 1.
        about = {"Name": "", "LabelValue": "1", "Layer": str(index if layered else 0)}
        for part in about:
            key = f"Segment{index}_{part}"
            about[part] = stored.GetMetaData(key) if key in keys else about[part]
        name = about["Name"] or f"segment {index}"
        found.append((name, int(about["LabelValue"]), int(about["Layer"])))
        index += 1
    return found


def _layer(
    itk: Any,
    stored: Any,
    layer: int,
    path: Path,
    image: ImageFile | None,
    folder: Path,
    slices: Slices,
) -> np.ndarray:
    single = stored
    if stored.GetNumberOfComponentsPerPixel() > 1:
        single = itk.VectorIndexSelectionCast(stored, layer)
    single = itk.Cast(single, itk.sitkInt32)
    if image is not None and suffix_of(image.path) in _OF_ITK:
        single = _in_place(itk, single, path, image.path)
    laid = folder / f"{path.name.removesuffix(SUFFIX)}_{layer}.nrrd"
    itk.WriteImage(single, str(laid))
    try:
        if image is None:
            return read_image(laid, "mask", slices).array
        return read_partner(laid, "mask", image, slices).array
    except UserError as error:
        raise UserError(str(error).replace(str(laid), str(path))) from error


def _in_place(itk: Any, part: Any, path: Path, image: Path) -> Any:
    """A part of the volume laid into the image's grid; unchanged where the grids are no parts."""
    grid = itk.ReadImage(str(image))
    if grid.GetDimension() != part.GetDimension() or part.GetSize() == grid.GetSize():
        return part
    same = np.allclose(grid.GetDirection(), part.GetDirection(), atol=1e-4) and np.allclose(
        grid.GetSpacing(), part.GetSpacing(), rtol=1e-4
    )
    if not same:
        return part
    laid = itk.Resample(
        part, grid.GetSize(), itk.Transform(), itk.sitkNearestNeighbor, grid.GetOrigin(),
        grid.GetSpacing(), grid.GetDirection(), 0, part.GetPixelID(),
    )  # fmt: skip
    before, after = (int(np.count_nonzero(itk.GetArrayViewFromImage(i))) for i in (part, laid))
    if before != after:
        raise UserError(
            f"{path}: {before - after} of {before} marked voxels lie outside of its image {image}"
        )
    return laid
