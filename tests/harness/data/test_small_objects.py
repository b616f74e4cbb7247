"""Objects smaller than a pixel of the working size: kept, and told before the training."""

import warnings

import numpy as np
import pytest
from accl_harness.data.dataset import load_split
from accl_harness.data.formats import write_labels, write_mask
from accl_harness.data.pixels import resize_mask
from accl_harness.data.small_objects import tell_small_objects
from accl_harness.errors import HarnessWarning


def test_a_class_that_sampling_misses_keeps_a_pixel():
    mask = np.zeros((64, 64), np.uint8)
    mask[0, 0] = 1  # the sample points of size 4 are 8, 24, 40, 56
    mask[33:36, 20:23] = 2
    small = resize_mask(mask, 4)
    assert small.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]
    assert (
        resize_mask(1 - mask.clip(0, 1), 4).tolist() == [[1, 1, 1, 1]] * 4
    )  # no class: background


@pytest.mark.parametrize(("side", "size"), [(1, 64), (2, 64), (3, 22), (5, 13)])
def test_the_size_that_shows_them(side, size):
    """Worked out by hand: 64 pixels over the side of the largest odd square, rounded up."""
    mask = np.zeros((64, 64), np.uint8)
    mask[9 : 9 + side, 9 : 9 + side] = 1
    with pytest.warns(HarnessWarning, match=rf"1 object of 1 masks is .* --size {size} or more"):
        tell_small_objects([mask], 4, "masks")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell_small_objects([mask], size, "masks")


def test_a_training_set_tells_it_and_scoring_does_not(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[8, 8] = 1  # between the sample points of size 32
    for split in ("train", "test"):
        write_labels(tmp_path / split / "images" / "a.png", mask * 90)
        write_mask(tmp_path / split / "masks" / "a.png", mask)
    with pytest.warns(HarnessWarning, match=r"1 object of 1 masks .* at --size 32, .* --size 64"):
        train = load_split(tmp_path, "train", size=32)
    assert train.masks.sum() == 1
    assert (train.weak_labels == 1).sum() == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_split(tmp_path, "test", size=32, weak=None).masks.sum() == 1
