"""Masks for new images: format, size and geometry are the input's own."""

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
from PIL import Image
from torch import nn


class Brightness(nn.Module):
    """Logit 10 for white, -10 for black."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(10.0))

    def forward(self, images):
        return self.gain * images


@pytest.fixture
def run(monkeypatch):
    trained = TrainedRun(TrainConfig(size=16), Brightness(), torch.device("cpu"), 1)
    monkeypatch.setattr("accl_harness.training.inference.load_run", lambda folder: trained)
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
    written = predict("run", images, out)
    assert [path.name for path in written] == ["a.png", "b.tif", "c.png", "d.npy"]
    for path, shape in zip(written, [(16, 16), (40, 24), (32, 64), (20, 20)], strict=True):
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


def test_images_are_never_replaced_by_their_masks(run, tmp_path):
    Image.fromarray(picture(16, 16)).save(tmp_path / "a.png")
    for images in (tmp_path, tmp_path / "a.png"):
        with pytest.raises(UserError, match="exists already and is not empty"):
            predict("run", images, tmp_path / "x" / "..")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture(16, 16))
