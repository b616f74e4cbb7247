"""Masks for new images: format, size and geometry are the input's own."""

import warnings

import nibabel
import numpy as np
import pytest
import torch
from accl_harness.config import TrainConfig
from accl_harness.data.dataset import load_images
from accl_harness.data.formats import read_image
from accl_harness.errors import UserError
from accl_harness.evaluation.predict import (
    predict,
    predict_masks,
    read_prediction,
    write_predictions,
)
from accl_harness.training import TrainedRun
from known_networks import Brightness
from PIL import Image


@pytest.fixture
def run(monkeypatch):
    trained = TrainedRun(TrainConfig(size=16), Brightness(), torch.device("cpu"), 1)
    monkeypatch.setattr("accl_harness.evaluation.predict.load_run", lambda folder: trained)
    return trained


def picture(height, width):
    """Upper half white."""
    array = np.zeros((height, width), dtype=np.uint8)
    array[: height // 2] = 255
    return array


def test_each_mask_has_its_images_format_and_size(run, tmp_path):
    images, out = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    Image.fromarray(picture(16, 16)).save(images / "a.png")
    Image.fromarray(picture(40, 24)).save(images / "b.tif")
    Image.fromarray(picture(32, 64)).save(images / "c.jpg", quality=95)
    np.save(images / "d.npy", picture(20, 20))
    Image.fromarray(picture(20, 30)).save(images / "e.gif")
    Image.fromarray(picture(24, 24)).convert("P").save(images / "f.BMP")
    np.save(images / "g.npy", np.stack([picture(16, 18)] * 3, -1))  # colour
    names = ["a.png", "b.tif", "c.png", "d.npy", "e.png", "f.BMP", "g.npy"]
    shapes = [(16, 16), (40, 24), (32, 64), (20, 20), (20, 30), (24, 24), (16, 18)]
    written = predict("run", images, out)
    assert [path.name for path in written] == names
    for path, shape in zip(written, shapes, strict=True):
        mask = read_image(path, "mask").array > 0
        assert mask.shape == shape
        # Bilinear resizing moves the edge by less than one pixel of the working size.
        rows = shape[0] // 16 + 1
        assert mask[: shape[0] // 2 - rows].all()
        assert not mask[shape[0] // 2 + rows :].any()


def test_a_volume_comes_back_with_its_affine_and_header(run, tmp_path):
    images, out = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    volume = np.zeros((16, 16, 4), dtype=np.int16)
    volume[:8] = 900
    volume[..., 3] = 0
    affine = np.array([[-1.5, 0, 0, 90], [0, 1.25, 0, -126], [0, 0, 8.0, -72], [0, 0, 0, 1]])
    source = nibabel.Nifti1Image(volume, affine)
    source.header.set_xyzt_units("mm")
    source.header["descrip"] = b"cine MR"
    nibabel.save(source, images / "p.nii.gz")
    (path,) = predict("run", images, out)
    assert path.name == "p.nii.gz"
    mask = nibabel.load(path)
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, affine)
    assert mask.header["descrip"] == source.header["descrip"]
    assert mask.header.get_zooms() == nibabel.load(images / "p.nii.gz").header.get_zooms()
    np.testing.assert_array_equal(np.asarray(mask.dataobj), (volume > 0).astype(np.uint8))


def test_written_masks_are_read_back_by_image(run, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    volume = np.zeros((16, 16, 2), dtype=np.uint8)
    volume[:8, :, 1] = 255
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), images / "v.nii")
    Image.fromarray(picture(16, 16)).save(images / "z.png")
    dataset = load_images(images, size=16)
    masks = list(predict_masks(run, dataset))
    write_predictions(dataset, masks, tmp_path / "out")
    assert dataset.names == ["v_z000", "v_z001", "z"]
    assert [mask.sum() for mask in masks] == [0, 128, 128]
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(read_prediction(dataset, index, tmp_path / "out"), mask)


def test_a_turned_photograph_gets_an_upright_mask(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the first stored column is the top row
    stored = np.rot90(picture(32, 16))
    (tmp_path / "images").mkdir()
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "images/a.png", exif=exif)
    (path,) = predict("run", tmp_path / "images", tmp_path / "out")
    mask = read_image(path, "mask").array > 0
    assert mask.shape == (32, 16)
    assert mask[:14].all()
    assert not mask[18:].any()


@pytest.mark.parametrize("slices", [None, "first"])
def test_volumes_of_slices_first_come_back_so(run, tmp_path, slices):
    (tmp_path / "images").mkdir()
    volume = np.stack([picture(16, 20)] * 4 + [picture(16, 20) * 0]).astype(np.float32)
    np.save(tmp_path / "images/v.npy", volume)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if slices is None else "error")
        (path,) = predict("run", tmp_path / "images", tmp_path / "out", slices)
    assert np.array_equal(np.load(path), volume > 0)


def test_images_are_never_replaced_by_their_masks(run, tmp_path):
    Image.fromarray(picture(16, 16)).save(tmp_path / "a.png")
    for images in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(UserError, match="exists already and is not empty"):
            predict("run", images, tmp_path / "x" / "..")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture(16, 16))
