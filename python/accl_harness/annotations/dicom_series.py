"""DICOM series as volumes: slices by position, grey values as the scanner means them.

What comes out is voxels, an affine and a name made of hashes of UIDs, and nothing of a patient's
identity.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..versions import need

PLACE = 0.1
"""Slices lie evenly if no step differs from the usual one by more than this share of it."""

_NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "AU", "DOC")


@dataclass
class Slice:
    """One plane of pixels and where it lies, before its pixels are read."""

    path: Path
    frame: int
    """Of the file."""
    header: Any
    """The file's data set; pixels are read from the file again."""
    uid: str
    """SOP instance."""
    position: np.ndarray | None
    """mm, of the centre of the first pixel."""
    orientation: np.ndarray | None
    """The directions along a row and down a column."""
    spacing: tuple[float, float] | None
    """mm between rows and between columns."""
    rescale: tuple[float, float]
    window: tuple[float, float] | None
    """Centre and width."""


@dataclass
class Series:
    """Slices that make a volume, in order."""

    name: str
    uid: str
    frame_of_reference: str
    slices: list[Slice]
    affine: np.ndarray
    """Column, row and slice number to mm of the patient (to the left, back and head)."""
    uids: set[str] = field(default_factory=set)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and slices."""
        header = self.slices[0].header
        return int(header.Columns), int(header.Rows), len(self.slices)


def has_dicom(folder: Path) -> bool:
    """Whether a file or folder holds DICOM: the four letters behind 128 bytes, in any file."""
    return any(_is_dicom(path) for path in _files(folder))


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.name != "DICOMDIR" and path.name[0] != ".":
            yield path


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def read_headers(source: Path) -> list[tuple[Path, Any]]:
    """The DICOM files under a folder, pixels left out.

    Raises:
        UserError: pydicom is not installed, or a file is broken.
    """
    need("pydicom", f"{source}: a folder of DICOM", "dicom")
    import pydicom

    found = []
    for path in filter(_is_dicom, _files(source)):
        try:
            found.append((path, pydicom.dcmread(path, stop_before_pixels=True)))
        except Exception as error:  # pydicom has many kinds
            raise UserError(f"{path}: cannot be read as DICOM ({error})") from error
    return found


def find_series(headers: Sequence[tuple[Path, Any]]) -> list[Series]:
    """The volumes among DICOM files.

    Slices of one series that differ in size, direction, spacing, echo or time are volumes of their
    own.

    Raises:
        UserError: a series with a gap, or slices that lie on each other.
    """
    images = [
        (path, header)
        for path, header in headers
        if "Rows" in header and header.get("Modality", "") not in _NO_IMAGES
    ]
    patients = _patients([header for _, header in images])
    groups: dict[tuple, list[Slice]] = defaultdict(list)
    for path, header in images:
        for one in _slices(path, header):
            groups[(header.SeriesInstanceUID, *_kind(one))].append(one)
    numbers: dict[str, int] = defaultdict(int)
    found = []
    for key, slices in sorted(groups.items(), key=lambda item: (item[0][0], str(item[0][1:]))):
        for part in _apart(slices):
            numbers[key[0]] += 1
            header = part[0].header
            modality = "".join(filter(str.isalnum, str(header.get("Modality", "")))).lower()
            patient = patients[header.StudyInstanceUID]
            name = f"patient_{patient}_{modality or 'image'}_{_hash(key[0])}"
            name += f"_{numbers[key[0]]}" if numbers[key[0]] > 1 else ""
            found.append(_volume(name, key[0], part))
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _patients(headers: Sequence[Any]) -> dict[str, str]:
    """Study -> a name of its patient.

    Made of the UID of one of the patient's studies, since a hash of an ID can be undone by trying.
    """
    studies: dict[tuple, set[str]] = defaultdict(set)
    for header in headers:
        who = str(header.get("PatientID", "")) or header.StudyInstanceUID
        studies[who, str(header.get("IssuerOfPatientID", ""))].add(header.StudyInstanceUID)
    return {study: _hash(min(uids)) for uids in studies.values() for study in uids}


def _kind(one: Slice) -> tuple:
    """What the slices of a volume have in common."""
    header = one.header
    place = None if one.orientation is None else tuple(np.round(one.orientation.ravel(), 3))
    spacing = None if one.spacing is None else tuple(np.round(one.spacing, 4))
    times = tuple(
        str(header.get(key, "")) for key in ("EchoTime", "TemporalPositionIdentifier", "ImageType")
    )
    return header.Rows, header.Columns, place, spacing, times


def _slices(path: Path, header: Any) -> Iterator[Slice]:
    shared = header.get("SharedFunctionalGroupsSequence", [None])[0]
    frames = header.get("PerFrameFunctionalGroupsSequence")
    for index in range(int(header.get("NumberOfFrames", 1) or 1)):
        own = frames[index] if frames is not None else None
        position, orientation, spacing, slope, offset, window, width = (
            _value(header, shared, own, *where)
            for where in (
                ("PlanePositionSequence", "ImagePositionPatient"),
                ("PlaneOrientationSequence", "ImageOrientationPatient"),
                ("PixelMeasuresSequence", "PixelSpacing"),
                ("PixelValueTransformationSequence", "RescaleSlope"),
                ("PixelValueTransformationSequence", "RescaleIntercept"),
                ("FrameVOILUTSequence", "WindowCenter"),
                ("FrameVOILUTSequence", "WindowWidth"),
            )
        )
        spacing = spacing or header.get("ImagerPixelSpacing")
        yield Slice(
            path,
            index,
            header,
            header.SOPInstanceUID,
            None if position is None else np.array(position, float),
            None if orientation is None else np.array(orientation, float).reshape(2, 3),
            None if spacing is None else (float(spacing[0]), float(spacing[1])),
            (1.0 if slope is None else float(slope), 0.0 if offset is None else float(offset)),
            None if window is None or width is None else (_first(window), _first(width)),
        )


def _value(header: Any, shared: Any, own: Any, group: str, name: str) -> Any:
    """A number of a frame, from its own group, the shared one, or the file."""
    for place in (own, shared):
        if place is not None and group in place and name in place[group].value[0]:
            return place[group].value[0][name].value
    return header.get(name)


def _first(value: Any) -> float:
    return float(value if isinstance(value, int | float | str) else value[0])


def _apart(slices: list[Slice]) -> list[list[Slice]]:
    """The volumes among slices of one kind.

    Slices without a place are each an image of their own. Where slices lie on each other, the
    acquisitions are volumes; elsewhere one volume may have several.
    """
    if any(one.position is None or one.orientation is None for one in slices):
        return [[one] for one in slices]
    if len({tuple(np.round(one.position, 3)) for one in slices}) == len(slices):
        return [slices]
    parts: dict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        parts[str(one.header.get("AcquisitionNumber", ""))].append(one)
    return list(parts.values())


def _volume(name: str, uid: str, slices: list[Slice]) -> Series:
    """The slices ordered along their normal.

    Raises:
        UserError: they lie on each other or leave a gap.
    """
    first = slices[0]
    row, column = first.orientation if first.orientation is not None else np.eye(3)[:2]
    normal = np.cross(row, column)
    depth = np.array([0.0 if one.position is None else one.position @ normal for one in slices])
    order = np.argsort(depth, kind="stable")
    slices, depth = [slices[i] for i in order], depth[order]
    first = slices[0]
    steps = np.diff(depth)
    step = float(np.median(steps)) if len(steps) else float(first.header.get("SliceThickness") or 1)
    if len(steps) and steps.min() < 1e-3:
        at = int(steps.argmin())
        raise UserError(
            f"{slices[at].path} and {slices[at + 1].path.name} lie on each other (series {name}): "
            "times or echoes that nothing tells apart; put them into folders of their own"
        )
    uneven = np.flatnonzero(np.abs(steps - step) > PLACE * step)
    if len(uneven):
        at = int(uneven[0])
        raise UserError(
            f"series {name} ({len(slices)} slices, every {step:g} mm) has a gap of "
            f"{steps[at]:g} mm between {slices[at].path} and {slices[at + 1].path.name}; add what "
            "is missing, or take away what lies apart"
        )
    between_rows, between_columns = first.spacing or (1.0, 1.0)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    affine[:3, 2] = normal * step
    if len(slices) > 1:  # the mean step; a tilted gantry moves the slices aside as well
        affine[:3, 2] = (slices[-1].position - first.position) / (len(slices) - 1)
    if slices[0].position is not None:
        affine[:3, 3] = slices[0].position
    reference = str(first.header.get("FrameOfReferenceUID", ""))
    return Series(name, uid, reference, slices, affine, {one.uid for one in slices})


def read_voxels(series: Series, window: str = "none") -> np.ndarray:
    """Grey values [columns, rows, slices] in the scanner's unit, or cut to a window.

    Args:
        series: of grey images.
        window: ``none``; ``file``, the one that each file names; or ``CENTRE,WIDTH``.

    Returns:
        int16 where it holds them exactly, else float32. A photometric inversion is undone: high
        values are bright.

    Raises:
        UserError: colour, a compression that needs a plug-in, or no window where the file's is
            wanted.
    """
    files: dict[Path, np.ndarray] = {}
    planes = [_plane(one, window, files) for one in series.slices]
    volume = np.stack(planes, -1).swapaxes(0, 1)
    whole = np.rint(volume)
    if np.array_equal(whole, volume) and np.abs(volume).max(initial=0) < 1 << 15:
        return whole.astype(np.int16)
    return volume.astype(np.float32)


def _plane(one: Slice, window: str, files: dict[Path, np.ndarray]) -> np.ndarray:
    stored = _pixels(one, files)
    slope, offset = one.rescale
    values = stored.astype(np.float64) * slope + offset
    wanted = one.window if window == "file" else _given(window)
    if window == "file" and wanted is None:
        raise UserError(f"{one.path}: names no window; give --window CENTRE,WIDTH, or none")
    low, high = _range(one.header, slope, offset)
    if wanted is not None:
        low, high = wanted[0] - wanted[1] / 2, wanted[0] + wanted[1] / 2
        values = np.clip(values, low, high)
    if one.header.get("PhotometricInterpretation") == "MONOCHROME1":
        values = low + high - values
    return values


def _range(header: Any, slope: float, offset: float) -> tuple[float, float]:
    """The values that the stored bits can have."""
    bits, signed = int(header.get("BitsStored", 16)), bool(header.get("PixelRepresentation", 0))
    low = -(1 << (bits - 1)) if signed else 0
    return low * slope + offset, (low + (1 << bits) - 1) * slope + offset


def _given(window: str) -> tuple[float, float] | None:
    if window in ("none", "file"):
        return None
    try:
        centre, width = (float(part) for part in window.split(","))
    except ValueError:
        centre, width = 0.0, 0.0
    if not width > 0:
        raise UserError(f"--window: wanted none, file or CENTRE,WIDTH (40,400), got {window}")
    return centre, width


def _pixels(one: Slice, files: dict[Path, np.ndarray]) -> np.ndarray:
    """What is stored of a slice; a file of several frames is decoded once."""
    import pydicom

    if int(one.header.get("SamplesPerPixel", 1)) != 1:
        raise UserError(
            f"{one.path}: is in colours ({one.header.PhotometricInterpretation}); save it as PNG"
        )
    if one.path not in files:
        files.clear()
        try:
            files[one.path] = pydicom.dcmread(one.path).pixel_array
        except Exception as error:  # of the many decoders
            syntax = one.header.file_meta.TransferSyntaxUID
            reason = " ".join(str(error).split())
            advice = (
                f"it is compressed ({syntax.name}), which needs a plug-in: pip install pylibjpeg "
                "pylibjpeg-libjpeg pylibjpeg-openjpeg"
                if syntax.is_compressed
                else f"({reason:.200})"
            )
            raise UserError(f"{one.path}: its pixels cannot be read: {advice}") from error
    stored = files[one.path]
    return stored[one.frame] if stored.ndim == 3 else stored
