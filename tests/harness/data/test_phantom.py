"""Phantoms: repeatable to the byte, of the promised sizes, not solvable by grey value."""

import json

import numpy as np
import pytest
from accl_harness.data.dataset import load_split
from accl_harness.data.phantom import AREA, generate, write_phantom
from accl_harness.data.topology import count_parts
from accl_harness.errors import UserError
from scipy import ndimage


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_writing_repeats_to_the_byte(tmp_path):
    for name in ("a", "b"):
        write_phantom(tmp_path / name, n_train=3, n_test=2, size=48, seed=5)
    write_phantom(tmp_path / "c", n_train=3, n_test=2, size=48, seed=6)
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert len(a) == 11
    assert a == b
    assert all(a[path] != c[path] for path in a)
    with pytest.raises(UserError, match="not empty"):
        write_phantom(tmp_path / "a")


@pytest.mark.parametrize("shape", ["disc", "ring"])
def test_written_phantoms_are_a_data_set(tmp_path, shape):
    write_phantom(tmp_path / "out", n_train=4, n_test=2, shape=shape, size=64, seed=1)
    train, test = (load_split(tmp_path / "out", split, size=64) for split in ("train", "test"))
    assert (len(train), len(test)) == (4, 2)
    assert not set(train.names) & set(test.names)
    images, masks = generate(6, shape=shape, size=64, seed=1)
    assert np.array_equal(train.masks.numpy(), masks[:4])
    assert np.allclose(test.images[:, 0].numpy(), images[4:] / 127.5 - 1, atol=1e-6)
    assert all(count > 0 for count in train.annotation()["per_image"].values())


@pytest.mark.parametrize(("shape", "parts"), [("disc", (1, 0)), ("ring", (1, 1))])
def test_one_object_of_varying_size_in_the_frame(shape, parts):
    _, masks = generate(60, shape=shape, size=96, seed=2)
    assert set(np.unique(masks)) == {0, 1}
    assert all(count_parts(mask) == parts for mask in masks)
    assert not masks[:, [0, -1], :].any()
    assert not masks[:, :, [0, -1]].any()
    share = masks.mean((1, 2))
    assert AREA[0] * 0.7 < share.min()
    assert share.max() < AREA[1] * 1.2
    assert share.max() / share.min() > 4
    centres = np.array([np.argwhere(mask).mean(0) for mask in masks])
    assert centres.std(0).min() > 0.04 * 96


def test_images_vary_and_are_independent_of_n():
    few, _ = generate(2, size=64, seed=3)
    many, _ = generate(5, size=64, seed=3)
    assert np.array_equal(few, many[:2])
    assert many.dtype == np.uint8
    assert 0.2 * 255 < many.mean() + many.std() < 255
    assert np.corrcoef(many.reshape(5, -1))[np.triu_indices(5, 1)].max() < 0.95


@pytest.mark.parametrize("shape", ["disc", "ring"])
def test_no_window_of_grey_values_finds_the_object(shape):
    images, masks = generate(24, shape=shape, size=64, seed=4)
    objects = masks.astype(bool)
    best = 0.0
    for low in range(0, 250, 10):
        for high in range(low + 10, 261, 10):
            found = (images >= low) & (images < high)
            overlap = 2 * (found & objects).sum((1, 2))
            best = max(best, (overlap / (found.sum((1, 2)) + objects.sum((1, 2)))).mean())
    assert 0.2 < best < 0.7


def test_the_object_is_brighter_than_what_surrounds_it():
    from scipy import ndimage

    images, masks = generate(20, size=96, seed=5)
    for image, mask in zip(images.astype(float), masks.astype(bool), strict=True):
        around = ndimage.binary_dilation(mask, iterations=3) & ~mask
        assert image[mask].mean() > image[around].mean() + 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "at least 1 image"),
        ({"n": 1, "size": 8}, "at least 32, got 8"),
        ({"n": 1, "shape": "cube"}, "disc, ring, got 'cube'"),
        ({"n": 1, "seed": -1}, "seed"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(UserError, match=words):
        generate(**arguments)


def test_empty_splits_are_refused(tmp_path):
    with pytest.raises(UserError, match="5 and 0"):
        write_phantom(tmp_path / "x", n_train=5, n_test=0)


def test_several_classes_touch_and_lie_in_the_frame():
    images, masks = generate(12, size=96, classes=4)
    assert (images.dtype, masks.dtype, masks.shape) == (np.uint8, np.uint8, (12, 96, 96))
    for mask in masks:
        assert set(np.unique(mask)) == {0, 1, 2, 3}
        assert count_parts(mask == 3) == (1, 0)
        assert count_parts(mask == 2) == (1, 1)
        assert count_parts(mask == 1) == (1, 0)
        # Nothing but the ring around the disc; the crescent leans on the ring.
        edge = ndimage.binary_dilation(mask == 3) & (mask != 3)
        assert set(mask[edge]) == {2}
        assert (ndimage.binary_dilation(mask == 2) & (mask == 1)).any()
        frame = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert (frame == 0).all()
    again, _ = generate(3, size=96, classes=4)
    assert np.array_equal(again, images[:3])


def test_grey_value_alone_does_not_tell_the_classes_apart():
    images, masks = generate(20, size=96, classes=4)
    values = images.astype(float)
    disc, crescent = (
        np.array([v[m == k].mean() for v, m in zip(values, masks, strict=True)]) for k in (3, 1)
    )
    assert np.abs(disc - crescent).mean() < 15


def test_a_folder_of_several_classes(tmp_path):
    made = write_phantom(tmp_path / "out", n_train=3, n_test=2, size=64, classes=4)
    train = load_split(made, "train", size=64, classes=4)
    assert train.masks.unique().tolist() == [0, 1, 2, 3]
    assert train.weak_labels.unique().tolist() == [0, 1, 2, 3, 255]
    marked = train.weak_labels != 255
    assert (train.weak_labels == train.masks)[marked].all()
    assert 0.005 < train.annotation()["ratio"] < 0.06
    assert load_split(made, "test", size=64, classes=4, weak=None).weak_labels is None
    assert json.loads((made / "phantom.json").read_text())["classes"] == 4
    with pytest.raises(UserError, match="phantom classes: wanted 4, or none"):
        generate(1, classes=3)
    with pytest.raises(UserError, match="phantom shape: ring is of one object; leave out shape"):
        generate(1, classes=4, shape="ring")
