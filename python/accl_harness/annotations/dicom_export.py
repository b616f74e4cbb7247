"""``accl export``: predicted masks as DICOM segmentations (DICOM-SEG) of the series they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..data.class_names import read_class_names
from ..data.formats import read_image, refuse_full
from ..errors import UserError
from ..versions import need
from .dicom_series import Series, find_series, read_headers


def export_segmentations(source: str | Path, masks: str | Path, out: str | Path) -> list[Path]:
    """Write a segmentation for each series of a DICOM folder that has a mask.

    The series are imported by ``accl import --to images`` before, and the masks predicted from
    these; their names tell which is which. The files hold the patient's data of the series, as the
    standard wants; their names do not.

    Args:
        source: the folder of DICOM.
        masks: what ``accl predict`` wrote; ``classes.yaml`` in it names the segments.
        out: folder for the segmentations, absent or empty.

    Returns:
        The files written.

    Raises:
        UserError: highdicom is not installed, no series has a mask, or one does not fit.
    """
    source, masks, out = Path(source), Path(masks), Path(out)
    need("highdicom", "accl export", "dicom")
    if not masks.is_dir():
        raise UserError(f"{masks}: no such folder of masks")
    refuse_full(out)
    found = find_series(read_headers(source))
    having = [series for series in found if (masks / f"{series.name}.nii.gz").is_file()]
    if not having:
        raise UserError(
            f"{masks}: holds no mask of a series in {source}, such as {found[0].name}.nii.gz"
            if found
            else f"{source}: holds no DICOM images"
        )
    names = read_class_names(masks) or ()
    written = [(series, _segmentation(series, masks, names)) for series in having]
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for series, segmentation in written:
        paths.append(out / f"{series.name}.dcm")
        segmentation.save_as(paths[-1])
    return paths


def _segmentation(series: Series, masks: Path, names: tuple[str, ...]) -> Any:
    """A DICOM segmentation of a series, a segment for each class."""
    import highdicom as hd
    import pydicom

    array = _mask(series, masks)
    count = max(len(names) - 1, int(array.max()), 1)
    titles = [names[k] if k < len(names) else f"class {k}" for k in range(1, count + 1)]
    files = list(dict.fromkeys(one.path for one in series.slices))
    if len(files) not in (1, len(series.slices)):
        raise UserError(f"{series.name}: a series of several files of frames is not exported")
    planes = array.T  # slice, row, column
    if len(files) == 1:  # in the order of the frames
        planes = planes[np.argsort([one.frame for one in series.slices])]
    algorithm = hd.AlgorithmIdentificationSequence(
        name="accl_ext",
        family=pydicom.sr.codedict.codes.DCM.ArtificialIntelligence,
        version="1",
    )
    kind = hd.sr.CodedConcept("91723000", "SCT", "Anatomical structure")
    about = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=title,
            segmented_property_category=kind,
            segmented_property_type=kind,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, title in enumerate(titles, 1)
    ]
    return hd.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in files],
        pixel_array=np.stack([planes == k for k in range(1, count + 1)], -1).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=about,
        series_instance_uid=hd.UID(),
        series_number=100,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="accl_ext",
        manufacturer_model_name="accl_ext",
        software_versions="1",
        device_serial_number="0",
    )


def _mask(series: Series, masks: Path) -> np.ndarray:
    """The mask of a series, [columns, rows, slices] of class indices."""
    path = masks / f"{series.name}.nii.gz"
    file = read_image(path, "mask")
    array = file.layout.restore(file.array)
    if array.shape != series.shape:
        wanted, got = (" x ".join(map(str, shape)) for shape in (series.shape, array.shape))
        raise UserError(f"{path}: is {got}, its series is {wanted}")
    return array
