"""Whole trainings: what a run folder holds, seeds, validation, and that they learn."""

import csv
import json

import numpy as np
import pytest
import torch
from accl_harness.data.dataset import load_split, split_validation
from accl_harness.data.formats import read_image, write_labels
from accl_harness.errors import UserError
from accl_harness.experiments.single import run_training
from accl_harness.training import load_run, predict_probabilities
from accl_harness.training.curves import COLUMNS
from accl_harness.training.loop import Trainer
from accl_harness.training.ops import load_ops
from accl_harness.training.runtime import launch
from small_runs import (
    SIZE,
    column,
    phantom_folder,
    rows_without_seconds,
    small_config,
    small_dataset,
    small_trainer,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(phantom_folder(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    config = small_config(data=data, out=str(out), method="unpaired_accl", tensorboard=True)
    return run_training(config, quiet=True)


def test_run_folder_holds_what_it_should(finished):
    names = {path.name for path in finished.iterdir()}
    assert {
        "config.yaml",
        "data.json",
        "metrics.csv",
        "metrics.json",
        "checkpoints",
        "figures",
        "predictions",
    } <= names
    assert len(list((finished / "predictions").iterdir())) == 2
    assert (finished / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert any((finished / "tensorboard").iterdir())
    with (finished / "metrics.csv").open() as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert column(finished, "epoch") == ["1", "2", "3"]
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["method"] == "unpaired_accl"
    assert metrics["backend"] == "reference"
    assert 0 < metrics["annotation_ratio"] < 1
    assert len(metrics["bounds"]) == 2
    assert metrics["measured"]["prior"] == 0.02
    assert metrics["measured"]["crf"] is None
    assert metrics["seconds"] > 0


def test_columns_without_a_meaning_are_empty(data, tmp_path):
    config = small_config(data=data, out=str(tmp_path / "run"), method="fs_ce", epochs=1)
    run = run_training(config, quiet=True)
    for name in ("accl", "loss_d", "d_real", "d_fake", "size_penalty"):
        assert column(run, name) == [""]
    assert float(column(run, "partial_ce")[0]) > 0
    assert json.loads((run / "metrics.json").read_text())["annotation_ratio"] == 1


def test_same_seed_same_run_another_seed_another(data, finished, tmp_path):
    config = small_config(data=data, out=str(tmp_path / "again"), method="unpaired_accl")
    assert rows_without_seconds(run_training(config, quiet=True)) == rows_without_seconds(finished)
    other = config.replace(out=str(tmp_path / "other"), seed=1)
    assert rows_without_seconds(run_training(other, quiet=True)) != rows_without_seconds(finished)


def test_trained_network_reads_back_and_predicts_each_image_alone(finished):
    run = load_run(finished)
    assert run.epoch == 3
    images = small_dataset(3).images
    together = predict_probabilities(run, images)
    assert together.shape == (3, 1, 32, 32)
    assert together.dtype == torch.float32
    for i in range(3):
        torch.testing.assert_close(predict_probabilities(run, images[i : i + 1])[0], together[i])


def test_validation_images_are_not_trained_on(data, tmp_path):
    config = small_config(data=data, out=str(tmp_path / "run"), method="fs_ce", validation=0.4)
    trainer = Trainer(
        config, *_split(small_dataset(5), config), load_ops("reference"), launch(config)
    )
    assert len(trainer.data) == 3
    row = trainer.train_epoch(lambda: None)
    assert 0 <= row["dsc"] <= 1


def _split(dataset, config):
    from accl_harness.data.dataset import split_validation

    return split_validation(dataset, config.validation, config.seed)


def test_training_learns_the_squares():
    trainer = small_trainer(method="fs_ce", width=4, epochs=20, lr=2e-3, prior=0.2)
    rows = [trainer.train_epoch(lambda: None) for _ in range(20)]
    assert rows[-1]["loss_g"] < 0.4 * rows[0]["loss_g"]
    assert rows[-1]["dsc"] > 0.7


def test_fused_ops_that_are_not_there_are_a_clear_error(monkeypatch):
    import accl_ext

    monkeypatch.setattr(accl_ext, "build_info", lambda: {"loaded": False, "reason": "not built"})
    with pytest.raises(UserError, match="not built\nOr give --backend reference"):
        load_ops("fused")


def test_no_labelled_pixel_is_a_warning(data):
    dataset = small_dataset()
    dataset.weak_labels.fill_(255)
    config = small_config(method="partial_ce")
    trainer = Trainer(config, dataset, None, load_ops("reference"), launch(config))
    assert trainer.data_warnings == ["no pixel is labelled: the data term is 0"]
    assert trainer.train_epoch(lambda: None)["partial_ce"] == 0


def test_images_without_a_label_are_told(data):
    dataset = small_dataset()
    dataset.weak_labels[1:] = 255
    trainer = Trainer(small_config(), dataset, None, load_ops("reference"), launch(small_config()))
    (warning,) = trainer.data_warnings
    assert warning.startswith(f"{len(dataset) - 1} of {len(dataset)} images have no label")


def test_a_validation_that_takes_every_labelled_image_is_refused(tmp_path):
    root = phantom_folder(tmp_path)
    train = root / "train"
    held_out = split_validation(load_split(root, "train", size=SIZE), 0.3, 0)[1].names
    for path in (train / "masks").iterdir():
        mask = read_image(path, "mask").array
        marked = path.stem in held_out
        write_labels(train / "weak" / path.name, np.where((mask > 0) & marked, 1, 255))
    config = small_config(data=str(root), out=str(tmp_path / "run"), validation=0.3)
    with pytest.raises(UserError, match=r"validation 0.3 with seed 0 sets aside every image"):
        run_training(config, quiet=True)
