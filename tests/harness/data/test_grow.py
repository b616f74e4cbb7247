"""Masks grown from marks: a random walker, and what painted masks say of size."""

import numpy as np
import pytest
import torch
from accl_harness.data.dataset import load_split
from accl_harness.data.grow import grow_masks, walk
from accl_harness.data.options import WeakOptions
from accl_harness.data.phantom import write_phantom
from accl_harness.errors import UserError

ROWS, COLUMNS = np.ogrid[:64, :64]


def disc(row, column, radius):
    return np.hypot(ROWS - row, COLUMNS - column) <= radius


def dsc(first, second):
    return 2 * np.sum(first & second) / (first.sum() + second.sum())


def marked(*pixels, shape=(64, 64), index=1):
    labels = np.full(shape, 255, np.uint8)
    for pixel in pixels:
        labels[pixel] = index
    return labels


def noisy(image, seed=0):
    return image + np.random.default_rng(seed).normal(0, 0.05, image.shape)


def test_without_edges_the_chance_falls_in_a_straight_line():
    """A symmetric walk on a line reaches the far end first with its share of the way."""
    seeds = np.full((3, 5), 255, np.uint8)
    seeds[:, 0], seeds[:, 4] = 0, 1
    found = walk(np.full((3, 5), 0.3), seeds)
    np.testing.assert_allclose(found[1], [[0, 0.25, 0.5, 0.75, 1]] * 3, atol=2e-3)
    np.testing.assert_allclose(found.sum(0), 1, atol=4e-3)


def test_the_walker_stops_at_an_edge():
    image = noisy((COLUMNS > 40) * np.ones((64, 1)))
    labels = marked((32, 2), index=0)
    labels[32, 60] = 1
    (found,) = grow_masks(image[None], labels[None], None)
    np.testing.assert_array_equal(found, np.broadcast_to(COLUMNS > 40, (64, 64)))


def test_three_classes_and_one_that_is_not_marked():
    image = noisy(np.where(COLUMNS < 20, 0.0, np.where(COLUMNS < 40, 0.5, 1.0)) * np.ones((64, 1)))
    labels = marked((32, 5), index=0)
    labels[32, 30], labels[32, 55] = 1, 3
    (found,) = grow_masks(image[None], labels[None], None, foregrounds=3)
    wanted = np.where(COLUMNS < 20, 0, np.where(COLUMNS < 40, 1, 3)) * np.ones((64, 1))
    assert (found == wanted).mean() > 0.99
    assert found[32, 55] == 3
    assert 2 not in found


def test_the_mean_size_is_that_of_the_painted_masks():
    """Where the images show no edge, painted masks say how large the objects are."""
    images = np.zeros((2, 64, 64))
    labels = np.stack([marked((20, 20)), marked((40, 30))])
    for radius in (5, 9):
        painted = disc(32, 32, radius)[None].astype(np.uint8)
        found = grow_masks(images, labels, painted)
        assert found.sum() == pytest.approx(2 * painted.sum(), rel=0.05)
        for mask, centre in zip(found, ((20, 20), (40, 30)), strict=True):
            assert dsc(mask == 1, disc(*centre, radius)) > 0.85


def test_images_decide_which_object_is_the_larger():
    truth = np.stack([disc(30, 30, 6), disc(30, 30, 12)])
    images = np.stack([noisy(mask.astype(float), i) for i, mask in enumerate(truth)])
    labels = np.stack([marked((30, 30))] * 2)
    found = grow_masks(images, labels, truth.astype(np.uint8))
    assert [dsc(mask == 1, true) > 0.95 for mask, true in zip(found, truth, strict=True)] == [1, 1]


def test_the_hole_of_a_ring_is_background():
    truth = disc(32, 32, 20) & ~disc(32, 32, 12)
    line = disc(32, 32, 16.5) & ~disc(32, 32, 15.5)
    labels = np.where(line, np.uint8(1), np.uint8(255))
    (found,) = grow_masks(noisy(truth * 0.2)[None], labels[None], truth[None].astype(np.uint8))
    assert found[32, 32] == 0
    assert dsc(found == 1, truth) > 0.9


@pytest.mark.parametrize("radius", [28, 31])
def test_an_object_that_fills_the_frame_leaves_some_background(radius):
    truth = disc(31, 31, radius)
    labels = marked((31, 31))
    (found,) = grow_masks(noisy(truth * 1.0)[None], labels[None], truth[None].astype(np.uint8))
    assert found[0, 0] == 0
    assert dsc(found == 1, truth) > 0.95


def test_of_many_objects_each_part_counts():
    """An image of two cells and one of nine: as many pixels as there are marks for."""
    centres = [(r, c) for r in (10, 32, 54) for c in (10, 32, 54)]
    truth = []
    for chosen in (centres[:2], centres):
        truth.append(np.any([disc(*centre, 4) for centre in chosen], 0))
    images = np.stack([noisy(mask.astype(float)) for mask in truth])
    labels = np.stack([marked(*centres[:2]), marked(*centres)])
    found = grow_masks(images, labels, np.stack(truth).astype(np.uint8))
    assert [dsc(mask == 1, true) > 0.95 for mask, true in zip(found, truth, strict=True)] == [1, 1]


def test_an_image_without_a_mark_stays_unlabelled_and_marks_stay_as_they_are():
    painted = disc(32, 32, 5)[None].astype(np.uint8)
    labels = np.stack([marked((10, 10), (50, 50)), marked()])
    found = grow_masks(np.zeros((2, 64, 64)), labels, painted)
    assert (found[0, 10, 10], found[0, 50, 50]) == (1, 1)
    assert set(np.unique(found[0])) == {0, 1}
    assert set(np.unique(found[1])) == {255}


def test_only_classes_that_painted_masks_show_can_do_without_background():
    labels = marked((10, 10), index=2)[None]
    with pytest.raises(UserError, match="no painted mask shows class 2"):
        grow_masks(np.zeros((1, 64, 64)), labels, np.eye(64, dtype=np.uint8)[None], 2)
    with pytest.raises(UserError, match="no painted mask shows class 1"):
        grow_masks(np.zeros((1, 64, 64)), np.minimum(labels, 1), None)


@pytest.mark.parametrize("shape", ["disc", "ring"])
def test_grown_masks_of_phantoms(tmp_path, shape):
    data = write_phantom(tmp_path / "data", 12, 1, shape, 128)
    weak = WeakOptions(ratio=0.012, keep_topology=True)
    found = load_split(data, "train", size=64, weak=weak)
    images, labels, masks = found.images[:, 0], found.weak_labels, found.masks
    grown = grow_masks(images.numpy(), labels.numpy(), masks[:3].numpy())
    assert np.mean([dsc(a == 1, b == 1) for a, b in zip(grown, masks.numpy(), strict=True)]) > 0.8
    wrong = (torch.from_numpy(grown) == 0) & (labels == 1)
    assert not wrong.any()
    assert set(np.unique(grown)) == {0, 1}
