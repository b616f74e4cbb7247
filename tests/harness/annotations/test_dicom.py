"""Folders of DICOM, written by pydicom and highdicom, as volumes and masks."""

import nibabel
import numpy as np
import pytest
from accl_harness.annotations.dicom_export import export_segmentations
from accl_harness.annotations.importing import import_labels
from accl_harness.annotations.options import ImportOptions
from accl_harness.cli import main
from accl_harness.data.class_names import read_class_names
from accl_harness.data.dataset import load_images, load_split
from accl_harness.errors import UserError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid  # noqa: E402

COLUMNS, ROWS, DEPTH = 9, 7, 5
STORED = np.arange(DEPTH * ROWS * COLUMNS, dtype=np.int16).reshape(DEPTH, ROWS, COLUMNS)
NAME = "Doe^Jane"


def write_slice(path, pixels, z, series, number=1, **changes):
    """One CT slice; rows run to the back, columns to the left, z to the head."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID, data.Modality = NAME, "4711", "CT"
    data.PatientBirthDate, data.PatientSex = "19700101", "F"
    data.StudyDate, data.StudyTime, data.AccessionNumber, data.StudyID = "20260101", "10", "1", "1"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", series
    data.FrameOfReferenceUID, data.InstanceNumber = "1.2.9", number
    data.SeriesNumber, data.Manufacturer = 1, "none"
    data.PositionReferenceIndicator = ""
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.RescaleSlope, data.RescaleIntercept = 2, -100
    data.WindowCenter, data.WindowWidth = 100, 200
    data.PixelSpacing, data.SliceThickness = [0.5, 0.75], 3
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient = [10, 20, float(z)]
    for key, value in changes.items():
        setattr(data, key, value)
    data.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return data


def write_series(folder, series="1.2.4", order=(3, 0, 4, 1, 2), **changes):
    """A series whose names, instance numbers and places are in different orders."""
    return [
        write_slice(folder / f"IM{n:04d}", STORED[z], 3 * z, series, DEPTH - z, **changes)
        for n, z in enumerate(order)
    ]


def take(tmp_path, **options):
    return import_labels(tmp_path / "dicom", tmp_path / "out", ImportOptions(**options))


def volume(tmp_path, kind="images"):
    (path,) = sorted((tmp_path / "out/train" / kind).iterdir())
    return nibabel.load(path)


def test_a_series_in_the_order_of_its_places(tmp_path):
    write_series(tmp_path / "dicom/DOE_JANE/deep")
    report = take(tmp_path, to="images")
    image = volume(tmp_path)
    assert np.array_equal(np.asarray(image.dataobj), STORED.T * 2 - 100)
    assert image.get_data_dtype() == np.int16
    # Columns are 0.75 mm apart to the left, rows 0.5 mm to the back, slices 3 mm to the head.
    wanted = [[-0.75, 0, 0, -10], [0, -0.5, 0, -20], [0, 0, 3, 0], [0, 0, 0, 1]]
    assert np.allclose(image.affine, wanted)
    assert report["tool"] == "DICOM"
    again = take(tmp_path, to="images")
    assert again["files"] == report["files"]


def test_nothing_of_the_patient_comes_along(tmp_path):
    write_series(tmp_path / "dicom/DOE_JANE")
    take(tmp_path, to="images")
    (path,) = (tmp_path / "out/train/images").iterdir()
    assert path.name.startswith("patient_")
    raw = volume(tmp_path).header.binaryblock + path.name.encode()
    for word in (b"Doe", b"DOE", b"Jane", b"4711", b"1970"):
        assert word not in raw


def test_an_inverted_series_and_a_window(tmp_path):
    write_series(tmp_path / "dicom", PhotometricInterpretation="MONOCHROME1", BitsStored=12)
    take(tmp_path, to="images", window="100,200")
    grey = np.clip(STORED.T * 2.0 - 100, 0, 200)
    assert np.array_equal(np.asarray(volume(tmp_path).dataobj), 200 - grey)
    with pytest.raises(UserError, match="--window: wanted none, file or CENTRE,WIDTH"):
        import_labels(tmp_path / "dicom", tmp_path / "b", ImportOptions(to="images", window="40"))
    import_labels(tmp_path / "dicom", tmp_path / "c", ImportOptions(to="images", window="file"))
    (path,) = (tmp_path / "c/train/images").iterdir()
    assert np.array_equal(np.asarray(nibabel.load(path).dataobj), 200 - grey)


def test_series_of_one_folder_and_stacks_of_one_series_are_told_apart(tmp_path):
    write_series(tmp_path / "dicom/a")
    write_series(tmp_path / "dicom/b", series="1.2.5")
    # A localizer of the other direction, and an echo of its own, in the first series.
    write_slice(
        tmp_path / "dicom/c", STORED[0], 0, "1.2.4", ImageOrientationPatient=[0, 1, 0, 0, 0, 1]
    )
    for z in range(2):
        write_slice(tmp_path / f"dicom/d{z}", STORED[z], 3 * z, "1.2.4", EchoTime=30)
    report = take(tmp_path, to="images")
    shapes = [nibabel.load(p).shape for p in sorted((tmp_path / "out/train/images").iterdir())]
    assert sorted(shapes) == [(9, 7, 1), (9, 7, 2), (9, 7, 5), (9, 7, 5)]
    assert len({name.split("_")[1] for name in report["files"]}) == 1  # one patient
    assert len(load_images(tmp_path / "out/train/images", size=16)) == 13


def test_a_series_with_a_gap(tmp_path):
    write_series(tmp_path / "dicom", order=(0, 1, 2, 4))
    words = (
        r"series patient_\w+ \(4 slices, every 3 mm\) has a gap of 6 mm between .*IM0002 and IM0003"
    )
    with pytest.raises(UserError, match=words):
        take(tmp_path, to="images")
    (tmp_path / "dicom/IM0003").unlink()
    write_slice(tmp_path / "dicom/x", STORED[0], 0, "1.2.4")
    with pytest.raises(UserError, match=r"lie on each other .*times or echoes that nothing tells"):
        take(tmp_path, to="images")


def test_pixels_that_nothing_here_decodes(tmp_path, monkeypatch):
    (data, *_) = write_series(tmp_path / "dicom")
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLossless
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "dicom/IM0000", enforce_file_format=True)
    with pytest.raises(
        UserError, match=r"IM0000: .*compressed \(JPEG Lossless.*pip install pylibjp"
    ):
        take(tmp_path, to="images")
    write_series(tmp_path / "dicom", SamplesPerPixel=3, PhotometricInterpretation="RGB")
    with pytest.raises(UserError, match=r"is in colours \(RGB\); save it as PNG"):
        take(tmp_path, to="images")
    monkeypatch.setattr("accl_harness.versions.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs pydicom.*the extra 'dicom'"):
        take(tmp_path, to="images")


def test_several_frames_in_one_file(tmp_path):
    """Enhanced CT: position and rescaling stand in functional groups."""
    plain = write_slice(tmp_path / "x", STORED[0], 0, "1.2.4")
    frames = []
    for z in (2, 0, 1):
        place, own = Dataset(), Dataset()
        place.ImagePositionPatient = [10, 20, 3.0 * z]
        own.PlanePositionSequence = Sequence([place])
        frames.append(own)
    turn, measure, shared = Dataset(), Dataset(), Dataset()
    turn.ImageOrientationPatient, measure.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.5, 0.75]
    shared.PlaneOrientationSequence = Sequence([turn])
    shared.PixelMeasuresSequence = Sequence([measure])
    plain.NumberOfFrames = 3
    plain.PerFrameFunctionalGroupsSequence = Sequence(frames)
    plain.SharedFunctionalGroupsSequence = Sequence([shared])
    plain.PixelData = STORED[[2, 0, 1]].tobytes()
    (tmp_path / "dicom").mkdir()
    plain.save_as(tmp_path / "dicom/a.dcm", enforce_file_format=True)
    take(tmp_path, to="images")
    assert np.array_equal(np.asarray(volume(tmp_path).dataobj), STORED[:3].T * 2 - 100)


def segmentation(sources, masks, names):
    """A DICOM segmentation by highdicom: masks [z, row, column, segment]."""
    hd = pytest.importorskip("highdicom")
    codes = hd.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
    about = [
        hd.seg.SegmentDescription(
            number, name, codes, codes, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number, name in enumerate(names, 1)
    ]
    return hd.seg.Segmentation(
        sources, masks, hd.seg.SegmentationTypeValues.BINARY, about,
        series_instance_uid=generate_uid(), series_number=2,
        sop_instance_uid=generate_uid(), instance_number=1, manufacturer="none",
        manufacturer_model_name="none", software_versions="1", device_serial_number="1",
    )  # fmt: skip


def test_a_segmentation(tmp_path):
    sources = write_series(tmp_path / "dicom/a")
    masks = np.zeros((DEPTH, ROWS, COLUMNS, 2), np.uint8)
    masks[0, 2:4, 1:5, 0] = 1  # of the first source, which is slice 3
    masks[1, 0, :, 1] = 1  # slice 0
    data = segmentation(sources, masks, ["tumour", "background"])
    data.save_as(tmp_path / "dicom/seg.dcm")
    report = take(tmp_path)
    wanted = np.full((COLUMNS, ROWS, DEPTH), 255)
    wanted[1:5, 2:4, 3], wanted[:, 0, 0] = 1, 0
    assert np.array_equal(np.asarray(volume(tmp_path, "weak").dataobj), wanted)
    assert read_class_names(tmp_path / "out") == ("background", "tumour")
    assert report["classes"]["tumour"]["pixels"] == 8
    assert len(load_split(tmp_path / "out", "train", size=16)) == DEPTH
    # Of a series that is not there.
    for path in (tmp_path / "dicom/a").iterdir():
        path.unlink()
    write_series(tmp_path / "dicom/a", series="1.2.7", FrameOfReferenceUID="1.2.8")
    with pytest.raises(UserError, match=r"seg\.dcm: labels are of a series that is not in the f"):
        take(tmp_path, replace=True)


def contours(sources, rings):
    """An RTSTRUCT: name -> closed contours [n, 3] in mm."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    storage = "1.2.840.10008.5.1.4.1.1.481.3"
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = storage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID = "RTSTRUCT", "1.2.99", "1.2.3"
    frame = Dataset()
    frame.FrameOfReferenceUID = sources[0].FrameOfReferenceUID
    data.ReferencedFrameOfReferenceSequence = Sequence([frame])
    names, parts = [], []
    for number, (name, lines) in enumerate(rings.items(), 1):
        roi, part = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        part.ReferencedROINumber = number
        closed = []
        for line in lines:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(line)
            contour.ContourData = [float(v) for point in line for v in point]
            closed.append(contour)
        part.ContourSequence = Sequence(closed)
        names.append(roi)
        parts.append(part)
    data.StructureSetROISequence, data.ROIContourSequence = Sequence(names), Sequence(parts)
    return data


def box(left, top, right, bottom, z):
    """A contour through pixel centres, in mm."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return [(10 + 0.75 * x, 20 + 0.5 * y, 3.0 * z) for x, y in corners]


def test_contours(tmp_path):
    sources = write_series(tmp_path / "dicom/a")
    outer, hole = box(0.5, 0.5, 6.5, 5.5, 2), box(2.5, 1.5, 4.5, 3.5, 2)
    data = contours(sources, {"liver": [outer, hole], "cyst": [box(2.5, 1.5, 4.5, 3.5, 2)]})
    data.save_as(tmp_path / "dicom/rt.dcm", enforce_file_format=True)
    take(tmp_path, to="masks")
    wanted = np.zeros((COLUMNS, ROWS, DEPTH))
    wanted[1:7, 1:6, 2] = 1
    wanted[3:5, 2:4, 2] = 2
    assert np.array_equal(np.asarray(volume(tmp_path, "masks").dataobj), wanted)
    assert read_class_names(tmp_path / "out") == ("background", "liver", "cyst")
    between = contours(sources, {"liver": [box(0.5, 0.5, 6.5, 5.5, 2.4)]})
    between.save_as(tmp_path / "dicom/rt.dcm", enforce_file_format=True)
    with pytest.raises(UserError, match=r"rt\.dcm: a plane at .* mm lies in no slice of series"):
        take(tmp_path, to="masks", replace=True)


def test_masks_go_back_as_segmentations(tmp_path):
    """Import, "predict", export, and import what was exported."""
    pytest.importorskip("highdicom")
    write_series(tmp_path / "dicom")
    (name,) = take(tmp_path, to="images")["files"]
    image = volume(tmp_path)
    masks = tmp_path / "masks"
    masks.mkdir()
    with pytest.raises(UserError, match=rf"holds no mask of a series in .*, such as {name}\.nii"):
        export_segmentations(tmp_path / "dicom", masks, tmp_path / "seg")
    labels = np.zeros((COLUMNS, ROWS, DEPTH), np.uint8)
    labels[1:5, 2:4, 3], labels[6:8, 0, 0] = 1, 2
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), masks / f"{name}.nii.gz")
    (masks / "classes.yaml").write_text("0: background\n1: liver\n2: cyst\n")
    words = ("export", str(tmp_path / "dicom"), str(masks), str(tmp_path / "dicom/seg"))
    assert main(words) == 0
    (path,) = (tmp_path / "dicom/seg").iterdir()
    assert path.name == f"{name}.dcm"
    import_labels(tmp_path / "dicom", tmp_path / "back", ImportOptions(to="masks"))
    (back,) = (tmp_path / "back/train/masks").iterdir()
    assert np.array_equal(np.asarray(nibabel.load(back).dataobj), labels)
    assert read_class_names(tmp_path / "back") == ("background", "liver", "cyst")


def test_series_without_labels(tmp_path):
    write_series(tmp_path / "dicom")
    with pytest.raises(
        UserError, match=r"no segmentation \(SEG, RTSTRUCT\); --to images takes the"
    ):
        take(tmp_path)
