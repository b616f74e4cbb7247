"""A folder of DICOM as images and labels: series, segmentations (SEG) and contours (RTSTRUCT)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .dicom_series import Series, find_series, read_headers, read_voxels
from .items import Item, Labels, Mark
from .shapes import fill

NEAR = 0.1
"""A plane belongs to a slice if it lies within this share of the distance between slices."""


def read_dicom(source: Path, workplace: Path, window: str) -> Labels:
    """Series become NIfTI files in ``workplace``, segmentations marks on them.

    Args:
        source: a folder, searched with all below it, or a file.
        workplace: for the images.
        window: see :func:`.dicom_series.read_voxels`.

    Raises:
        UserError: what :mod:`.dicom_series` refuses, or labels of a series that is not there.
    """
    import nibabel

    headers = read_headers(source)
    found = find_series(headers)
    if not found:
        raise UserError(f"{source}: holds DICOM, but no images")
    items = {}
    for series in found:
        path = workplace / f"{series.name}.nii.gz"
        # To the right and to the front, as NIfTI counts.
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ series.affine
        image = nibabel.Nifti1Image(read_voxels(series, window), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, path)
        items[series.name] = Item(source, image=path.name)
    declared: list[str] = []
    for path, header in headers:
        reader = {"SEG": _segments, "RTSTRUCT": _contours}.get(header.get("Modality", ""))
        if reader is not None:
            series, marks = reader(path, found)
            item = items[series.name]
            item.marks = [*(item.marks or []), *marks]
            declared += [mark.label for mark in marks]
    return Labels("DICOM", list(items.values()), list(dict.fromkeys(declared)))


def _segments(path: Path, found: Sequence[Series]) -> tuple[Series, list[Mark]]:
    """The segments of a DICOM segmentation, frame by frame in their slices."""
    import pydicom

    data = pydicom.dcmread(path)
    if data.get("SegmentationType", "BINARY") == "FRACTIONAL":
        raise UserError(f"{path}: is a fractional segmentation; save it as a binary one")
    series = _of(path, found, _named_series(data), data.get("FrameOfReferenceUID"))
    frames = data.pixel_array
    frames = frames[None] if frames.ndim == 2 else frames
    labelmap = data.get("SegmentationType") == "LABELMAP"
    shared = data.SharedFunctionalGroupsSequence[0]
    masks = {int(s.SegmentNumber): np.zeros(series.shape, bool) for s in data.SegmentSequence}
    for frame, own in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        place = own.get("PlaneOrientationSequence") or shared.get("PlaneOrientationSequence")
        orientation = np.array(place[0].ImageOrientationPatient, float).reshape(2, 3)
        same = np.allclose(orientation, series.slices[0].orientation, atol=1e-3)
        if frame.shape != (series.shape[1], series.shape[0]) or not same:
            raise UserError(
                f"{path}: its planes are {frame.shape[1]} x {frame.shape[0]}, or lie in another "
                f"direction, than those of series {series.name} ({series.shape[0]} x "
                f"{series.shape[1]})"
            )
        position = np.array(own.PlanePositionSequence[0].ImagePositionPatient, float)
        z = _slice(path, series, position, corner=True)
        if labelmap:
            for number, mask in masks.items():
                mask[..., z] |= np.equal(frame.T, number)
            continue
        number = int(own.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        masks[number][..., z] |= frame.T > 0
    names = {int(s.SegmentNumber): str(s.SegmentLabel) for s in data.SegmentSequence}
    if labelmap:
        masks.pop(0, None)
    return series, [Mark(names[k], mask, name=f"segment {k}") for k, mask in masks.items()]


def _contours(path: Path, found: Sequence[Series]) -> tuple[Series, list[Mark]]:
    """The closed contours of an RTSTRUCT; contours inside of each other are holes."""
    import pydicom

    data = pydicom.dcmread(path)
    names = {int(roi.ROINumber): str(roi.ROIName) for roi in data.StructureSetROISequence}
    series = _of(path, found, _named_series(data), _frame_of_reference(data))
    to_voxels = np.linalg.inv(series.affine)
    marks = []
    for roi in data.ROIContourSequence:
        name = names[int(roi.ReferencedROINumber)]
        rings: dict[int, list[np.ndarray]] = {}
        for contour in roi.get("ContourSequence") or ():
            if contour.ContourGeometricType != "CLOSED_PLANAR":
                raise UserError(f"{path}: '{name}' has a contour that is not closed in a plane")
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            z = _slice(path, series, points[0])
            places = (to_voxels @ np.c_[points, np.ones(len(points))].T).T
            rings.setdefault(z, []).append(places[:, :2] + 0.5)  # pixel centres lie at .5
        mask = np.zeros(series.shape, bool)
        for z, parts in rings.items():
            mask[..., z] = fill(parts, series.shape[1::-1]).T
        marks.append(Mark(name, mask, name=f"contours of '{name}'"))
    return series, marks


def _named_series(data: Any) -> set[str]:
    """The UIDs of series and images that a data set refers to, wherever it does."""
    named = set()
    for element in data.iterall():
        if element.keyword in ("SeriesInstanceUID", "ReferencedSOPInstanceUID"):
            named.add(str(element.value))
    return named - {str(data.SeriesInstanceUID)}


def _frame_of_reference(data: Any) -> str:
    frames = data.get("ReferencedFrameOfReferenceSequence")
    return (
        str(frames[0].FrameOfReferenceUID) if frames else str(data.get("FrameOfReferenceUID", ""))
    )


def _of(path: Path, found: Sequence[Series], named: set[str], frame: Any) -> Series:
    """The series that labels are of: the one they name, else the only one in their space.

    Raises:
        UserError: none, or several.
    """
    by_image = [series for series in found if series.uids & named]
    by_name = [series for series in found if series.uid in named]
    by_frame = [s for s in found if frame and s.frame_of_reference == str(frame)]
    for fitting in (by_image, by_name, by_frame):
        if len(fitting) == 1:
            return fitting[0]
    several = by_image or by_name or by_frame
    raise UserError(
        f"{path}: labels "
        + (
            f"could be of {', '.join(series.name for series in several)}; import one at a time"
            if several
            else "are of a series that is not in the folder; add its images"
        )
    )


def _slice(path: Path, series: Series, point: np.ndarray, corner: bool = False) -> int:
    """The slice that a point of the patient lies in.

    Args:
        path: for the message.
        series: the volume.
        point: in mm.
        corner: the point is the first pixel of a plane, so it must be the volume's as well.
    """
    column, row, z = (np.linalg.inv(series.affine) @ [*point, 1.0])[:3]
    off = corner and max(abs(column), abs(row)) > NEAR
    if abs(z - round(z)) > NEAR or not 0 <= round(z) < series.shape[2] or off:
        raise UserError(
            f"{path}: a plane at {', '.join(f'{part:g}' for part in point)} mm lies in no slice of "
            f"series {series.name}; labels are read on the images that they were drawn on"
        )
    return round(z)
