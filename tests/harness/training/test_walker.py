"""Method walker: full supervision on masks grown from the marks; and ``accl grow``."""

import dataclasses

import numpy as np
import pytest
import torch
from accl_harness.config import refuse_idle_options
from accl_harness.data.formats import read_image, write_labels
from accl_harness.data.options import ReferenceOptions
from accl_harness.errors import UserError
from accl_harness.evaluation.grow import grow
from accl_harness.experiments.single import run_training
from accl_harness.run import Run
from PIL import Image
from small_runs import phantom_folder, small_classes, small_config, small_dataset, small_trainer


def test_it_learns_the_grown_masks_and_counts_the_marks():
    data = small_dataset(8)
    marks = data.weak_labels.clone()
    trainer = small_trainer(data, method="walker")
    labels = trainer.data.labels
    assert set(labels.unique().tolist()) == {0, 1}
    overlap = 2 * (labels & data.masks).sum() / (labels.sum() + data.masks.sum())
    assert overlap > 0.9
    assert trainer.annotation_ratio == pytest.approx(16 / 32**2)
    assert torch.equal(data.weak_labels, marks)


def test_it_takes_painted_masks_as_they_are():
    """Moved and scaled ones would say less of the sizes."""
    data = small_dataset(8)
    options = ReferenceOptions(kind="augmented", painted=3)
    config = small_config(method="walker", references=options)
    refuse_idle_options(config)
    trainer = small_trainer(data, method="walker", references=options, prior=None)
    painted = sorted(data.masks.sum((1, 2)).tolist())
    chosen = [painted[(2 * i + 1) * 8 // 6] for i in range(3)]
    assert trainer.config.prior == pytest.approx(np.mean(chosen) / 32**2)


def test_marks_of_every_class_need_no_masks():
    data = small_classes()
    data.masks = None
    trainer = small_trainer(data, method="walker", classes=4)
    assert set(trainer.data.labels.unique().tolist()) == {0, 1, 2, 3}
    marked = data.weak_labels != 255
    assert torch.equal(trainer.data.labels[marked], data.weak_labels[marked])


def test_marks_of_objects_alone_need_painted_masks():
    data = small_dataset()
    data.masks = None
    with pytest.raises(UserError, match="references unpaired: the training images have no masks"):
        small_trainer(data, method="walker")


def test_a_run_goes_on_where_it_stopped(tmp_path):
    data = str(phantom_folder(tmp_path))
    config = small_config(method="walker", data=data, epochs=2, out=str(tmp_path / "whole"))
    run_training(config, quiet=True)
    parts = config.replace(out=str(tmp_path / "parts"), checkpoint_every=1)

    class Stop(Exception):
        pass

    def stop(row):
        raise Stop

    with pytest.raises(Stop):
        run_training(parts, quiet=True, on_epoch=stop)
    run_training(parts, resume=True, quiet=True)
    wanted, found = Run(config.out).metrics(), Run(parts.out).metrics()
    assert found["dsc"] == wanted["dsc"]
    assert Run(parts.out).rows()[-1]["loss_g"] == Run(config.out).rows()[-1]["loss_g"]


# accl grow


@pytest.fixture
def marks(tmp_path):
    """Two bright squares of 16 pixels, of 40 x 60, with a mark of 2 x 2 each; a third, unmarked."""
    for kind in ("images", "marks", "painted"):
        (tmp_path / kind).mkdir()
    for i in range(3):
        image = np.full((40, 60), 40, np.uint8)
        image[10:26, 10 + 10 * i : 26 + 10 * i] = 200
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray((image > 100).view(np.uint8)).save(tmp_path / "painted" / f"{i}.png")
        labels = np.full((40, 60), 255, np.uint8)
        if i < 2:
            labels[17:19, 17 + 10 * i : 19 + 10 * i] = 1
        write_labels(tmp_path / "marks" / f"{i}.png", labels)
    return tmp_path


def test_masks_are_written_at_the_images_size(marks):
    painted = marks / "painted"
    report = grow(marks / "marks", marks / "out", marks / "images", painted, size=64)
    assert report == {"count": 2, "unmarked": ["2"]}
    for i in range(2):
        found = read_image(marks / "out" / f"{i}.png").array
        wanted = read_image(painted / f"{i}.png").array
        assert found.shape == (40, 60)
        assert set(np.unique(found)) == {0, 255}
        both = ((found == 255) & (wanted == 1)).sum()
        assert 2 * both / ((found == 255).sum() + wanted.sum()) > 0.93
    assert not (marks / "out" / "2.png").exists()


def test_what_is_missing_is_told(marks):
    folders = (marks / "marks", marks / "out", marks / "images")
    with pytest.raises(UserError, match="references: some marks hold no background"):
        grow(*folders)
    with pytest.raises(UserError, match="size: wanted 1 or more, got 0"):
        grow(*folders, marks / "painted", size=0)
    with pytest.raises(UserError, match="no such folder"):
        grow(marks / "nowhere", *folders[1:], marks / "painted")
    write_labels(marks / "marks" / "0.png", np.full((40, 60), 255, np.uint8))
    write_labels(marks / "marks" / "1.png", np.full((40, 60), 255, np.uint8))
    with pytest.raises(UserError, match="no image has a mark"):
        grow(*folders, marks / "painted")
    assert not (marks / "out").exists()


def test_classes_keep_their_indices(marks):
    for i in range(3):
        labels = np.full((40, 60), 255, np.uint8)
        labels[17:19, 17 + 10 * i : 19 + 10 * i] = 2
        labels[1, 1], labels[35, 50] = 0, 1
        write_labels(marks / "marks" / f"{i}.png", labels)
    grow(marks / "marks", marks / "out", marks / "images", size=64, classes=3)
    found = read_image(marks / "out" / "1.png").array
    assert (found[18, 28], found[1, 1], found[35, 50]) == (2, 0, 1)


def test_no_option_of_the_crf_reaches_it_in_a_comparison(tmp_path):
    from accl_harness.experiments.compare import plan

    base = small_config(data="data", out=str(tmp_path), size_prior=0.3)
    (walker,) = plan(base, ["accl_crf", "walker"], [0])[1:]
    assert walker.weight("size_prior") == 0
    assert dataclasses.replace(walker, method="fs_ce").uses_references is False
