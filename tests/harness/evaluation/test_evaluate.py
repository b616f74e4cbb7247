"""From a network to metrics.json: a network that calls bright pixels the object, so that every
score is known beforehand."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accl_harness.config import TrainConfig
from accl_harness.data.dataset import load_split
from accl_harness.data.formats import ImageFile, read_image, write_labels
from accl_harness.errors import UserError
from accl_harness.evaluation.evaluate import load_test
from accl_harness.experiments.single import evaluate, evaluate_run
from accl_harness.training import TrainedRun
from known_networks import Brightness


def trained(folder, **options):
    config = TrainConfig(method="sccl", seed=3, out=str(folder), size=16, epochs=7, **options)
    return TrainedRun(config, Brightness(), torch.device("cpu"), 7)


def block(rows, columns, shape=(16, 16)):
    array = np.zeros(shape, dtype=np.uint8)
    array[rows, columns] = 255
    return array


@pytest.fixture
def root(tmp_path):
    """Three test images: half right, all right, and an empty mask with something found."""
    top, left = block(slice(0, 8), slice(0, 8)), block(slice(0, 8), slice(0, 16))
    pairs = {"a": (left, top), "b": (top, top), "c": (top, block(slice(0), slice(0)))}
    for name, (image, mask) in pairs.items():
        write_labels(tmp_path / "test" / "images" / f"{name}.png", image)
        write_labels(tmp_path / "test" / "masks" / f"{name}.png", mask)
    return tmp_path


def test_metrics_json_holds_what_the_specification_lists(root, tmp_path):
    dataset = load_split(root, "test", size=16, weak=None)
    out = tmp_path / "run"
    facts = {"seconds": 12.5, "annotation_ratio": 0.01, "bounds": [9.0, 80.0], "warnings": ["w"]}
    metrics = evaluate_run(trained(out), dataset, out=out, training=facts)
    assert json.loads((out / "metrics.json").read_text()) == metrics
    wanted = {
        "method": "sccl",
        "seed": 3,
        "backend": "fused",
        "device": "cpu",
        "epochs": 7,
        "seconds": 12.5,
        "annotation_ratio": 0.01,
        "bounds": [9.0, 80.0],
        "warnings": ["w"],
        "distance_unit": "pixels",
        "images": 3,
        "images_with_distances": 2,
        "dsc_3d": None,
        "dsc_3d_per_volume": None,
    }
    assert {key: metrics[key] for key in wanted} == wanted
    # a: 64 of 128 found pixels are right; b: all; c: 64 found, none there.
    assert metrics["dsc_per_image"] == {"a": pytest.approx(2 / 3), "b": 1.0, "c": 0.0}
    assert metrics["dsc"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics["precision"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert metrics["recall"] == pytest.approx(1.0)
    assert metrics["size_ratio"] == pytest.approx((128 + 64 + 64) / (64 + 64))
    assert {"torch", "monai", "accl_ext", "python"} <= set(metrics["versions"])


def test_per_image_table_leaves_undefined_cells_empty(root, tmp_path):
    dataset = load_split(root, "test", size=16, weak=None)
    evaluate_run(trained(tmp_path / "run"), dataset, out=tmp_path / "run")
    with (tmp_path / "run" / "per_image.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["a", "b", "c"]
    assert float(rows["a"]["size_ratio"]) == 2.0
    assert rows["c"]["hd95"] == rows["c"]["recall"] == rows["c"]["size_ratio"] == ""
    assert rows["c"]["predicted_pixels"] == "64"
    assert (tmp_path / "run" / "figures" / "worst.png").stat().st_size > 1000


def test_scores_are_taken_at_the_images_own_size(tmp_path):
    """Trained at 16, the image is 48 x 32: its mask and its scores stay 48 x 32."""
    image = block(slice(0, 24), slice(0, 32), (48, 32))
    write_labels(tmp_path / "test" / "images" / "wide.png", image)
    write_labels(tmp_path / "test" / "masks" / "wide.png", image)
    dataset = load_split(tmp_path, "test", size=16, weak=None)
    metrics = evaluate_run(trained(tmp_path), dataset, out=tmp_path / "out")
    assert metrics["dsc"] > 0.95
    mask = read_image(tmp_path / "out" / "predictions" / "wide.png", "mask").array
    assert mask.shape == (48, 32)
    assert set(np.unique(mask)) == {0, 255}


def nifti(array, spacing):
    """A file to write a mask like: so many mm by axis, origin off zero."""
    import nibabel

    image = nibabel.Nifti1Image(array, np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    native = (type(image), image.affine, image.header)
    return ImageFile(Path("like.nii.gz"), array, spacing[:2], native=native)


def write_volume(root, depth=3):
    """A volume of 16 x 16 x `depth`; the object is right in slice 0, missed in the last."""
    mask = np.zeros((16, 16, depth), dtype=np.uint8)
    mask[:8, :8] = 1
    image = 255 * mask
    image[..., depth - 1] = 0
    image[0, 15, depth - 1] = 255
    like = nifti(image, (2.0, 0.5, 8.0))
    write_labels(root / "test" / "images" / "patient1.nii.gz", image, like)
    write_labels(root / "test" / "masks" / "patient1.nii.gz", mask, like)


def test_volumes_are_scored_in_mm_by_slice_and_as_a_whole(tmp_path):
    write_volume(tmp_path)
    dataset = load_split(tmp_path, "test", size=16, weak=None)
    metrics = evaluate_run(trained(tmp_path), dataset, out=tmp_path / "out")
    assert metrics["distance_unit"] == "mm"
    assert metrics["dsc_per_image"]["patient1_z000"] == 1.0
    assert metrics["dsc_per_image"]["patient1_z002"] == 0.0
    # Two slices of 64 right, the third: 1 found beside 64 that are there.
    whole = 2 * 128 / (129 + 192)
    assert metrics["dsc_3d_per_volume"] == {"patient1.nii.gz": pytest.approx(whole)}
    assert metrics["dsc_3d"] == pytest.approx(whole)
    # The last slice's one pixel (0, 15) is 8 columns of 0.5 mm from the object.
    with (tmp_path / "out" / "per_image.csv").open(newline="") as file:
        hd95 = [float(row["hd95"]) for row in csv.DictReader(file)]
    assert hd95[:2] == [0.0, 0.0]
    assert 4.0 <= hd95[2] <= (14**2 + 7.5**2) ** 0.5


def test_single_slices_of_a_patient_make_a_volume(root):
    dataset = load_split(root, "test", size=16, weak=None)
    dataset.volumes = ["p1", "p1", "p2"]
    metrics = evaluate_run(trained(root / "none"), dataset)
    # p1: a and b together 128 right of 192 found, 128 there; p2: 0.
    assert metrics["dsc_3d_per_volume"] == {"p1": pytest.approx(256 / 320), "p2": 0.0}


def test_a_later_evaluation_keeps_the_trainings_facts(root, tmp_path, monkeypatch):
    run = tmp_path / "run"
    dataset = load_split(root, "test", size=16, weak=None)
    facts = {"seconds": 12.5, "annotation_ratio": 0.01, "bounds": [9.0, 80.0]}
    before = evaluate_run(trained(run, data=str(root)), dataset, out=run, training=facts)
    content = (run / "metrics.json").read_text()
    monkeypatch.setattr(
        "accl_harness.experiments.single.load_run", lambda _: trained(run, data=str(root))
    )
    from accl_harness.config_file import save_config

    save_config(trained(run, data=str(root)).config, run / "config.yaml")
    again = evaluate(run)
    assert again == before
    assert (run / "metrics.json").read_text() == content
    assert (run / "evaluation" / f"{root.name}-test" / "per_image.csv").is_file()
    with pytest.raises(UserError, match="is the run itself"):
        evaluate(run, out=run / "predictions" / "..")
    assert (run / "metrics.json").read_text() == content


def test_the_trainings_threshold_counts_on_its_own_data_alone(root, tmp_path, capsys):
    run = tmp_path / "run"
    config = trained(run, data=str(root), mask_threshold=254.0).config
    assert load_test(config).masks.sum() == 128
    binary = tmp_path / "binary"
    for name in "abc":
        image = read_image(root / "test" / "images" / f"{name}.png").array
        mask = read_image(root / "test" / "masks" / f"{name}.png", "mask").array
        write_labels(binary / "test" / "images" / f"{name}.png", image)
        write_labels(binary / "test" / "masks" / f"{name}.png", (mask > 0).astype(np.uint8))
    assert load_test(config, binary).masks.sum() == 128
    assert load_test(config, binary, mask_threshold=1).masks.sum() == 0


def test_a_set_without_any_object_is_told(root, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    config = trained(run, data=str(root)).config
    monkeypatch.setattr(
        "accl_harness.experiments.single.load_run", lambda _: trained(run, data=str(root))
    )
    from accl_harness.config_file import save_config

    run.mkdir()
    save_config(config, run / "config.yaml")
    evaluate(run)
    assert "no mask holds an object" not in capsys.readouterr().out
    evaluate(run, mask_threshold=255)
    assert "no mask holds an object" in capsys.readouterr().out


def test_scores_of_other_data_are_not_mixed(root, tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr("accl_harness.experiments.single.load_run", lambda _: trained(run))
    monkeypatch.setattr("accl_harness.run.load_config", lambda _: trained(run).config)
    first, second = tmp_path / "one" / "hearts", tmp_path / "two" / "hearts"
    for folder in (first, second):
        shutil.copytree(root / "test", folder / "test")
    evaluate(run, first)
    evaluate(run, second)  # the same files at another place
    write_labels(second / "test" / "masks" / "a.png", block(slice(0, 4), slice(0, 16)))
    with pytest.raises(UserError, match="hearts-test belongs to other images"):
        evaluate(run, second)
    evaluate(run, second, out=tmp_path / "elsewhere")


def test_one_mask_for_all_images_is_told(tmp_path, monkeypatch, capsys):
    same, masks = block(slice(4, 12), slice(4, 12)), (slice(0, 8), slice(4, 12), slice(8, 16))
    for i, rows in enumerate(masks):
        write_labels(tmp_path / "test" / "images" / f"{i}.png", same)
        write_labels(tmp_path / "test" / "masks" / f"{i}.png", block(rows, slice(4, 12)))
    dataset = load_split(tmp_path, "test", size=16, weak=None)
    out = tmp_path / "run"
    for _ in range(2):  # the second time metrics.json holds the warning already
        metrics = evaluate_run(trained(out), dataset, out=out)
    assert metrics["mean_pairwise_dsc"] == 1
    # Half overlaps between neighbours, none between the first and the last.
    assert metrics["mean_pairwise_dsc_of_masks"] == pytest.approx(1 / 3)
    assert [w.split(" (")[0] for w in metrics["warnings"]] == [
        "the predictions hardly differ from image to image"
    ]
    monkeypatch.setattr("accl_harness.experiments.single.load_run", lambda run: trained(out))
    monkeypatch.setattr("accl_harness.run.load_config", lambda path: trained(out).config)
    evaluate(out, tmp_path)
    assert "the predictions hardly differ" in capsys.readouterr().out


def test_images_without_masks_cannot_be_scored(root):
    dataset = load_split(root, "test", size=16, weak=None)
    dataset.masks = dataset.full_masks = None
    with pytest.raises(UserError, match="wanted images with masks"):
        evaluate_run(trained(root), dataset)
