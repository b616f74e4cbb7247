"""The second stage: its masks, its network, and one run folder of both."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accl_harness.data.options import ImageMoves, ReferenceOptions
from accl_harness.errors import UserError
from accl_harness.experiments.single import evaluate, run_training
from accl_harness.run import Run
from accl_harness.terms.data_term import DataTerm
from accl_harness.terms.gated_crf import CRFOptions
from accl_harness.training.inference import TrainedRun, load_run
from accl_harness.training.second_stage import SecondStage, agreed, second_config
from accl_harness.training.session import training_session
from small_runs import (
    phantom_folder,
    rows_without_seconds,
    small_classes,
    small_config,
    small_dataset,
    small_trainer,
)

OPTIONS = {"method": "accl_crf", "second_stage": True, "epochs": 2, "checkpoint_every": 1}


class Stop(Exception):
    """An interruption."""


def test_parts_over_the_threshold_count_if_they_touch_a_mark():
    shares = np.array([[0.5, 0.41, 0.39, 0.9, 0.0, 0.1]])
    marks = np.array([[255, 1, 255, 255, 255, 1]], np.uint8)
    found = agreed(np.stack([1 - shares, shares]), marks)
    assert found.tolist() == [[1, 1, 0, 0, 0, 1]]


def test_background_marks_split_a_part():
    shares = np.full((1, 5), 0.8)
    marks = np.array([[1, 255, 0, 255, 255]], np.uint8)
    assert agreed(np.stack([1 - shares, shares]), marks).tolist() == [[1, 1, 0, 0, 0]]


def test_of_several_classes_the_likeliest_wins_over_the_background():
    maps = np.array([[0.5, 0.5, 0.7, 0.1], [0.1, 0.4, 0.2, 0.3], [0.4, 0.1, 0.1, 0.6]])[:, None]
    marks = np.array([[2, 1, 255, 255]], np.uint8)
    assert agreed(maps, marks).tolist() == [[2, 1, 0, 0]]
    marks[0, 3] = 2
    assert agreed(maps, marks).tolist() == [[2, 1, 0, 2]]


def test_an_image_without_a_mark_teaches_nothing():
    found = agreed(np.full((2, 3, 3), 0.5), np.full((3, 3), 255, np.uint8))
    assert (found == 255).all()


def test_the_second_network_has_the_data_term_alone_and_the_same_start_and_moves():
    options = {"alpha": 0.2, "size_prior": 0.3, "entropy": 0.1, "prior": None}
    options |= {"image_moves": ImageMoves(shift=None, rotation=15.0)}
    first = small_trainer(method="accl_crf", second_stage=True, **options)
    config = second_config(first.config)
    config.check()
    weights = (config.accl_weight, config.weight("size_penalty"), config.weight("size_prior"))
    assert (*weights, config.weight("size_balance"), config.weight("consistency")) == (0,) * 5
    assert (config.weight("crf"), config.entropy) == (0, 0)
    assert not DataTerm.balances_classes(config)
    assert config.prior == first.config.prior
    assert config.image_moves == first.config.image_moves
    assert first.config.image_moves.shift is not None


def test_it_learns_whole_masks():
    data = small_dataset(6)
    config = small_config(**OPTIONS)
    first = small_trainer(data, **OPTIONS)
    stage = SecondStage(config, data, None, first.step.ops, first.fabric)
    labels = stage.labels(_as_run(first))
    second = stage.trainer(first, labels)
    assert set(labels.unique().tolist()) <= {0, 1}
    assert torch.equal(second.data.labels, labels)
    assert second.state.discriminator is None
    assert second.annotation_ratio == first.annotation_ratio < 0.05
    row = second.train_epoch(lambda: None)
    assert row["accl"] is row["crf"] is None


def _as_run(trainer):
    return TrainedRun(trainer.config, trainer.state.generator, torch.device("cpu"), 0)


def test_several_classes_with_scribbles_need_no_masks():
    data = small_classes()
    data.masks = None
    options = {**OPTIONS, "classes": 4, "size_prior": 0, "size_balance": 0, "consistency": 0}
    options |= {"alpha": 0, "crf": CRFOptions(weight=0.1)}
    first = small_trainer(data, **options)
    stage = SecondStage(small_config(**options), data, None, first.step.ops, first.fabric)
    labels = stage.labels(_as_run(first))
    marked = data.weak_labels != 255
    assert torch.equal(labels[marked], data.weak_labels[marked])
    assert stage.trainer(first, labels).train_epoch(lambda: None)["loss_g"] > 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of both stages, without a stop."""
    folder = tmp_path_factory.mktemp("stages")
    config = small_config(data=str(phantom_folder(folder)), out=str(folder / "whole"), **OPTIONS)
    run_training(config, quiet=True)
    return config


def test_one_run_has_both_results(whole):
    run = Run(whole.out)
    metrics = run.metrics()
    assert [int(row["epoch"]) for row in run.rows()] == [1, 2, 3, 4]
    assert [row["crf"] != "" for row in run.rows()] == [True, True, False, False]
    first = json.loads((run.folder / "first_stage" / "metrics.json").read_text())
    assert metrics["first_stage"] == {n: first[n] for n in ("dsc", "size_ratio", "seconds")}
    assert metrics["method"] == first["method"] == "accl_crf"
    assert first["seconds"] < metrics["seconds"]
    assert metrics["annotation_ratio"] == first["annotation_ratio"] < 0.2
    assert len(list((run.folder / "first_stage" / "predictions").iterdir())) == 2
    weights = load_run(run.folder).generator.state_dict()
    other = run.load_first_stage()["generator"]
    assert any(not torch.equal(weights[name], other[name]) for name in other)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_it_goes_on_exactly_in_either_stage(whole, tmp_path, stop):
    config = whole.replace(out=str(tmp_path / "parts"))

    def interrupt(row):
        if row["epoch"] == stop:
            raise Stop

    with pytest.raises(Stop):
        run_training(config, quiet=True, on_epoch=interrupt)
    run_training(config, resume=True, quiet=True)
    assert rows_without_seconds(config.out) == rows_without_seconds(whole.out)
    ends = [Run(path).load_checkpoint()["generator"] for path in (config.out, whole.out)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    found, wanted = (Run(path).metrics() for path in (config.out, whole.out))
    assert found["first_stage"]["dsc"] == wanted["first_stage"]["dsc"]


def test_a_lost_file_of_the_first_stage_is_told(whole, tmp_path):
    config = whole.replace(out=str(tmp_path / "parts"))

    def interrupt(row):
        if row["epoch"] == 3:
            raise Stop

    with pytest.raises(Stop):
        run_training(config, quiet=True, on_epoch=interrupt)
    Run(config.out).first_stage.unlink()
    with pytest.raises(UserError, match=r"first_stage.pt is missing, which the second stage"):
        run_training(config, resume=True, quiet=True)


def test_scores_on_other_data_have_no_first_stage(whole, tmp_path):
    """What stands in the run's own metrics.json is of the test images."""
    found = evaluate(Path(whole.out), split="train", out=tmp_path / "scores")
    assert "first_stage" not in found


def test_without_it_nothing_changes(whole, tmp_path):
    """The first stage is what a run without a second is."""
    config = whole.replace(out=str(tmp_path / "one"), second_stage=False)
    run_training(config, quiet=True)
    one = Run(config.out).load_checkpoint()["generator"]
    first = Run(whole.out).load_first_stage()["generator"]
    assert all(torch.equal(one[name], first[name]) for name in one)
    assert "first_stage" not in Run(config.out).metrics()


@pytest.mark.parametrize("method", ["fs_ce", "weak_ce", "walker"])
def test_methods_with_whole_masks_have_none(method):
    with pytest.raises(UserError, match=f"second_stage: wanted a method .* got {method}"):
        small_config(method=method, second_stage=True).check()


def test_marks_without_background_need_painted_masks(tmp_path):
    data = small_dataset()
    data.masks = None
    options = {**OPTIONS, "method": "partial_ce", "references": ReferenceOptions()}
    config = small_config(**options)
    trainer = small_trainer(data, **options)
    with pytest.raises(UserError, match="references unpaired: the training images have no masks"):
        SecondStage(config, data, None, trainer.step.ops, trainer.fabric)


def test_the_session_knows_no_first_network_before_the_second(whole, tmp_path):
    config = whole.replace(out=str(tmp_path / "new"))
    with training_session(config, resume=False, quiet=True) as session:
        assert session.first_stage() is None
