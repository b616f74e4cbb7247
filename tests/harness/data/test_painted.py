"""Painted masks of training images are their labels too."""

import numpy as np
import pytest
import torch
from accl_harness.data.formats import write_labels
from accl_harness.data.options import ReferenceOptions, WeakOptions
from accl_harness.data.painted import with_painted_labels
from accl_harness.errors import HarnessWarning
from accl_harness.training.session import training_session
from PIL import Image
from small_runs import small_config, small_dataset


def test_a_mask_is_the_label_of_the_image_of_its_name():
    data = small_dataset(4)
    masks = {name: data.full_mask(i) for i, name in enumerate(data.names)}
    before = data.weak_labels.clone()
    given = {"square_2": masks["square_2"], "elsewhere": masks["square_0"]}
    found, taken = with_painted_labels(data, given)
    assert taken == ["square_2"]
    assert torch.equal(found.weak_labels[2], data.masks[2])
    for i in (0, 1, 3):
        assert torch.equal(found.weak_labels[i], before[i])
    assert torch.equal(data.weak_labels, before)


@pytest.mark.parametrize("wrong", ["size", "place"])
def test_a_mask_of_another_image_is_left_out(wrong):
    data = small_dataset(4)
    mask = np.zeros((64, 64) if wrong == "size" else (32, 32), np.uint8)
    mask[0, 0] = 1
    with pytest.warns(HarnessWarning, match="do not fit .square_1."):
        found, taken = with_painted_labels(data, {"square_1": mask})
    assert taken == []
    assert torch.equal(found.weak_labels, data.weak_labels)


def test_an_image_without_a_mark_can_be_painted():
    data = small_dataset(2)
    data.weak_labels[0] = 255
    found, taken = with_painted_labels(data, {"square_0": data.full_mask(0)})
    assert taken == ["square_0"]
    assert torch.equal(found.weak_labels[0], data.masks[0])


@pytest.fixture
def folder(tmp_path):
    """Four images with marks in weak/, the masks of two of them in references/."""
    data = small_dataset(4)
    for kind in ("images", "weak", "references"):
        (tmp_path / "data" / "train" / kind).mkdir(parents=True)
    train = tmp_path / "data" / "train"
    for i, name in enumerate(data.names):
        grey = ((data.images[i, 0] + 1) * 127.5).to(torch.uint8).numpy()
        Image.fromarray(grey).save(train / "images" / f"{name}.png")
        write_labels(train / "weak" / f"{name}.png", data.weak_labels[i].numpy())
        if i < 2:
            write_labels(train / "references" / f"{name}.png", data.masks[i].numpy())
    return tmp_path / "data"


def whole(folder, tmp_path, **options):
    """How many images a training sees labelled throughout."""
    config = small_config(data=str(folder), out=str(tmp_path / "run"), **options)
    with training_session(config, resume=False, quiet=True) as session:
        return int((session.trainer.data.labels != 255).flatten(1).all(1).sum())


def test_a_training_takes_them(folder, tmp_path):
    assert whole(folder, tmp_path, method="accl_crf") == 2


def test_a_named_folder_counts_as_well(folder, tmp_path):
    folder.joinpath("train", "references").rename(tmp_path / "painted")
    named = ReferenceOptions(folder=str(tmp_path / "painted"))
    assert whole(folder, tmp_path, method="accl_crf", references=named) == 2


def test_the_papers_methods_and_made_marks_stay_as_they_are(folder, tmp_path):
    assert whole(folder, tmp_path / "paper", method="unpaired_accl") == 0
    folder.joinpath("train", "references").rename(folder / "train" / "masks")
    for i in (2, 3):  # every image needs its mask
        mask = small_dataset(4).masks[i].numpy()
        write_labels(folder / "train" / "masks" / f"square_{i}.png", mask)
    named = ReferenceOptions(folder=str(folder / "train" / "masks"))
    made = WeakOptions(strategy="erosion")
    assert whole(folder, tmp_path / "made", method="accl_crf", references=named, weak=made) == 0
