"""Class-index masks for images, and the scores of them: a network whose probabilities are known."""

import csv
import json
from functools import partial

import h5py
import nibabel
import numpy as np
import pytest
import torch
from accl_harness.cli import main
from accl_harness.config import TrainConfig
from accl_harness.data.dataset import Dataset, load_images, load_split
from accl_harness.data.formats import read_image, write_labels
from accl_harness.errors import UserError
from accl_harness.evaluation.evaluate import load_test
from accl_harness.evaluation.predict import (
    predict,
    predict_masks,
    read_prediction,
    write_predictions,
)
from accl_harness.experiments.single import evaluate_run
from accl_harness.report.overlays import OPACITY, RIGHT, class_colour
from accl_harness.report.single import draw_predictions
from accl_harness.training import TrainedRun
from matplotlib.colors import to_rgb
from PIL import Image
from torch import nn

GREY = np.array([0, 85, 170, 255], dtype=np.uint8)
"""The grey values of the four classes."""


class Bands(nn.Module):
    """The class whose grey value is nearest has the largest logit."""

    def __init__(self):
        super().__init__()
        self.middle = nn.Parameter(torch.tensor(GREY / 127.5 - 1, dtype=torch.float32))

    def forward(self, images):
        return -50 * (images - self.middle.view(1, 4, 1, 1)) ** 2


def trained(folder=None, network=None, **options):
    config = TrainConfig(method="fs_ce", size=16, classes=4, out=folder and str(folder), **options)
    return TrainedRun(config, network or Bands(), torch.device("cpu"), 1)


@pytest.fixture
def run(monkeypatch):
    result = trained()
    monkeypatch.setattr("accl_harness.evaluation.predict.load_run", lambda folder: result)
    return result


def quarters(height=16, width=16):
    """Class 0 above left, 1 above right, 2 below left, 3 below right."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[:, width // 2 :] = 1
    mask[height // 2 :] += 2
    return mask


def test_files_hold_the_class_indices_in_the_images_format(run, tmp_path):
    images, out, mask = tmp_path / "images", tmp_path / "masks", quarters()
    images.mkdir()
    Image.fromarray(GREY[mask]).save(images / "a.png")
    Image.fromarray(GREY[mask]).save(images / "b.tif")
    np.save(images / "c.npy", GREY[mask])
    affine = np.diag([1.5, 1.25, 8.0, 1.0])
    volume = np.stack([mask, mask[::-1], mask[:, ::-1]], axis=-1)
    nibabel.save(nibabel.Nifti1Image(GREY[volume], affine), images / "d.nii.gz")
    with h5py.File(images / "e.h5", "w") as file:
        file["image"] = GREY[mask]
    written = predict("run", images, out)
    assert [path.name for path in written] == ["a.png", "b.tif", "c.npy", "d.nii.gz", "e.h5"]
    with Image.open(out / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), mask)
    np.testing.assert_array_equal(np.load(out / "c.npy"), mask)
    nifti = nibabel.load(out / "d.nii.gz")
    np.testing.assert_array_equal(np.asarray(nifti.dataobj), volume)
    np.testing.assert_array_equal(nifti.affine, affine)
    assert nifti.get_data_dtype() == np.uint8
    with h5py.File(out / "e.h5") as file:
        np.testing.assert_array_equal(file["mask"][:], mask)
    np.testing.assert_array_equal(read_image(out / "b.tif", "mask").array, mask)


def test_written_masks_are_read_back_as_masks_of_that_many_classes(run, tmp_path):
    (tmp_path / "images").mkdir()
    volume = np.stack([quarters(), quarters()[::-1]], axis=-1)
    nibabel.save(nibabel.Nifti1Image(GREY[volume], np.eye(4)), tmp_path / "images" / "v.nii")
    dataset = load_images(tmp_path / "images", size=16)
    dataset.classes = 4
    masks = list(predict_masks(run, dataset))
    write_predictions(dataset, masks, tmp_path / "out")
    for index in range(2):
        found = read_prediction(dataset, index, tmp_path / "out")
        np.testing.assert_array_equal(found, volume[..., index])
    dataset.classes = 3
    with pytest.raises(UserError, match=r"class indices 0 .* to 2, this one holds"):
        read_prediction(dataset, 0, tmp_path / "out")


class Edge(nn.Module):
    """Class 0 with 0.9 on the left, class 1 with 0.55 on the right."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        left = torch.arange(images.shape[-1]).lt(images.shape[-1] // 2).expand(images[:, 0].shape)
        first = torch.where(left, 0.9, 0.45)
        return torch.stack([first, 1 - first], 1).log()


def test_probabilities_are_resized_before_the_class_is_decided():
    """Twice as wide: a quarter of a pixel right of the edge class 0 has still 0.25 * 0.9 + 0.75 *
    0.45 = 0.56; the decided mask made larger would change at the edge."""
    dataset = Dataset(images=torch.zeros(1, 1, 16, 16), names=["a"], full_shapes=[(32, 32)])
    (mask,) = predict_masks(trained(network=Edge()), dataset)
    np.testing.assert_array_equal(mask, np.repeat(np.arange(32)[None] > 16, 32, axis=0))


def test_classes_far_apart_leave_no_third_class_between_them(run, tmp_path):
    (tmp_path / "images").mkdir()
    mask = np.where(quarters() > 1, 3, 0)
    Image.fromarray(GREY[mask]).resize((48, 48), Image.NEAREST).save(tmp_path / "images" / "a.png")
    (path,) = predict("run", tmp_path / "images", tmp_path / "out")
    assert set(np.unique(np.asarray(Image.open(path)))) == {0, 3}


def write_slices(root, names):
    for name in names:
        mask = quarters()
        image = GREY[mask].copy()
        image[8:, 8:] = GREY[2]  # class 3 is called class 2
        write_labels(root / "test" / "images" / f"{name}.png", image)
        write_labels(root / "test" / "masks" / f"{name}.png", mask)


def test_scores_files_and_figures_of_a_run_with_classes(tmp_path):
    write_slices(tmp_path, ["p1_f1_s1", "p1_f1_s2", "p1_f2_s1"])
    run = trained(tmp_path / "run", volumes=r"p\d_f\d", data=str(tmp_path))
    metrics = evaluate_run(run, load_test(run.config), out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    # Class 1: all right; class 2: 64 of 128 found are right; class 3: none is found.
    assert metrics["dsc_per_class"] == pytest.approx({"1": 1, "2": 2 * 64 / 192, "3": 0})
    assert metrics["dsc"] == pytest.approx(5 / 9)
    assert list(metrics["dsc_3d_per_volume"]) == ["p1_f1", "p1_f2"]
    with (tmp_path / "run" / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["class"]) for row in rows[2:4]] == [
        ("p1_f1_s1", "3"),
        ("p1_f1_s2", "1"),
    ]
    assert rows[1]["size_ratio"] == "2.0"
    assert rows[2]["hd95"] == ""
    mask = np.asarray(Image.open(tmp_path / "run" / "predictions" / "p1_f1_s1.png"))
    assert set(np.unique(mask)) == {0, 1, 2}
    assert (tmp_path / "run" / "figures" / "worst.png").stat().st_size > 1000


def test_patterns_of_the_training_count_on_other_data_where_they_find_something(tmp_path):
    write_slices(tmp_path / "alike", ["p7_f1_s1", "p7_f1_s2"])
    write_slices(tmp_path / "other", ["scan1", "scan2"])
    config = trained(volumes=r"p\d_f\d", patients=r"p\d", data="nowhere").config
    dataset = load_test(config, tmp_path / "alike")
    assert (dataset.volumes, dataset.groups) == (["p7_f1"] * 2, ["p7"] * 2)
    assert load_test(config, tmp_path / "other").volumes == ["scan1", "scan2"]
    assert load_test(config, tmp_path / "other", volumes="scan").volumes == ["scan"] * 2


def test_masks_read_with_other_classes_than_the_runs_are_refused(tmp_path):
    write_slices(tmp_path, ["a"])
    dataset = load_split(tmp_path, "test", size=16, weak=None, classes=5)
    with pytest.raises(UserError, match=r"wanted masks read with classes 4, .* got classes 5"):
        evaluate_run(trained(tmp_path), dataset)


def test_pictures_show_each_class_in_its_colour(run, tmp_path):
    images, pictures = tmp_path / "images", tmp_path / "pictures"
    images.mkdir()
    Image.fromarray(GREY[quarters()]).save(images / "a.png")
    volume = np.stack([quarters(), quarters() * 0], axis=-1)
    nibabel.save(nibabel.Nifti1Image(GREY[volume], np.eye(4)), images / "v.nii")
    predict("run", images, tmp_path / "out", draw=partial(draw_predictions, pictures))
    assert sorted(path.name for path in pictures.iterdir()) == [
        "a.png",
        "v_z000.png",
        "v_z001.png",
    ]
    with Image.open(pictures / "a.png") as picture:
        shown = np.asarray(picture.convert("RGB")).astype(float)
    for index in (1, 2, 3):
        full = 255 * np.array(to_rgb(class_colour(index)))
        tint = OPACITY * full + (1 - OPACITY) * GREY[index]
        for colour, least in ((full, 50), (tint, 2000)):  # the legend's patch, the quarter
            assert (np.abs(shown - colour).max(axis=-1) < 2).sum() > least


def test_the_command_makes_pictures_of_one_object_too(tmp_path, monkeypatch, capsys):
    binary = TrainedRun(TrainConfig(size=16), nn.Identity(), torch.device("cpu"), 1)
    monkeypatch.setattr("accl_harness.evaluation.predict.load_run", lambda folder: binary)
    monkeypatch.setattr(
        "accl_harness.evaluation.predict.predict_probabilities",
        lambda run, images: (images > 0).float(),
    )
    Image.fromarray(GREY[quarters()]).save(tmp_path / "a.png")
    words = ["predict", "run", "--images", str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    words += ["--pictures", str(tmp_path / "pictures")]
    assert main(words) == 0
    with Image.open(tmp_path / "pictures" / "a.png") as picture:
        shown = np.asarray(picture.convert("RGB")).astype(float)
    assert (np.abs(shown - 255 * np.array(to_rgb(RIGHT))).max(axis=-1) < 2).sum() > 50
    assert main([*words[:5], str(tmp_path / "again"), *words[6:]]) == 2
    assert "pictures: exists already and is not empty" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_class_that_no_mask_holds_is_told_once(tmp_path, capsys):
    for name, last in (("a", 2), ("b", 3)):
        mask = np.minimum(quarters(), last)
        write_labels(tmp_path / name / "test" / "images" / "x.png", GREY[mask])
        write_labels(tmp_path / name / "test" / "masks" / "x.png", mask)
    run = trained(tmp_path / "run")
    (told,) = evaluate_run(run, load_test(run.config, tmp_path / "a"))["warnings"]
    assert told.startswith("no mask holds class 3: ")
    for data, warnings in (("a", ["w", told]), ("b", ["w"])):
        dataset = load_test(run.config, tmp_path / data)
        metrics = evaluate_run(run, dataset, training={"warnings": ["w", told]})
        assert metrics["warnings"] == warnings
