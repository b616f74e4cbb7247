"""Scribbles made from masks, beside what they should look like and how many experts draw."""

from pathlib import Path

import numpy as np
import pytest
from accl_harness.data.dataset import load_split
from accl_harness.data.formats import read_image, write_labels
from accl_harness.data.options import WeakOptions
from accl_harness.data.phantom import generate
from accl_harness.data.strokes import scribble
from accl_harness.data.topology import FULL, count_parts, thin
from accl_harness.data.weak import weaken, write_weak_labels
from accl_harness.errors import UserError
from scipy import ndimage

STILL = WeakOptions("skeleton", stroke=1.0, jitter=0.0)
ROWS, COLUMNS = np.indices((64, 64))
RADIUS = np.hypot(ROWS - 32, COLUMNS - 30)
HEART = np.where(RADIUS < 8, 3, np.where(RADIUS < 13, 2, 0)).astype(np.uint8)
HEART[26:40, 10:16] = 1


def lines_of(labels, kind):
    return count_parts(labels == kind)


def test_thinning_keeps_ends_where_it_is_asked_to():
    bar = np.zeros((7, 30), bool)
    bar[2:5, 3:27] = True
    depth = ndimage.distance_transform_edt(bar)
    assert thin(bar, depth, 0).sum() == 1
    line = thin(bar, depth, 0, ends=depth >= 2)
    assert line.sum() >= 20
    assert line[3].sum() == line.sum()  # the middle row


def test_every_class_has_a_line_inside_it():
    for index in range(20):
        labels = scribble(HEART, WeakOptions("skeleton"), index, 4)
        for kind in range(4):
            marked = labels == kind
            assert marked.any()
            assert (HEART[marked] == kind).all()
        assert set(np.unique(labels)) == {0, 1, 2, 3, 255}


def test_a_ring_gets_a_closed_line_and_a_disc_one_as_well():
    labels = scribble(HEART, STILL, 0, 4)
    assert lines_of(labels, 2) == (1, 1)
    # A disc's skeleton is a point: the outline of its inner half is drawn.
    assert lines_of(labels, 3) == (1, 1)
    assert np.abs(RADIUS[labels == 3] - 4).max() < 1.5
    assert np.abs(RADIUS[labels == 2] - 10.5).max() < 2
    # The bar's line runs along it.
    rows, columns = np.nonzero(labels == 1)
    assert np.ptp(rows) >= 6
    assert np.ptp(columns) <= 3


def test_the_background_is_drawn_around_the_objects():
    labels = scribble(HEART, STILL, 0, 4)
    assert lines_of(labels, 0) == (1, 1)
    distance = ndimage.distance_transform_edt(HEART == 0)[labels == 0]
    assert 0.03 * 64 - 1.5 <= distance.min() <= distance.max() <= 0.1 * 64 + 1.5


def test_an_image_without_objects_gets_background_alone():
    labels = scribble(np.zeros((40, 60), np.uint8), WeakOptions("skeleton"), 0, 4)
    assert set(np.unique(labels)) == {0, 255}
    assert 20 < (labels == 0).sum() < 400


def test_a_stroke_is_a_part_and_hangs_together():
    whole = scribble(HEART, STILL, 0, 4)
    for index in range(10):
        half = scribble(HEART, WeakOptions("skeleton", stroke=0.5, jitter=0.0), index, 4)
        for kind in (2, 3):
            assert lines_of(half, kind) == (1, 0)
            share = (half == kind).sum() / (whole == kind).sum()
            assert 0.35 < share < 0.75


def test_jitter_bends_the_line():
    straight = scribble(HEART, STILL, 0, 4) == 2
    off = [
        np.abs(RADIUS[scribble(HEART, WeakOptions("skeleton", jitter=0.9), i, 4) == 2] - 10.5).max()
        for i in range(10)
    ]
    assert max(off) > np.abs(RADIUS[straight] - 10.5).max() + 0.5


def test_seed_and_place_decide():
    options = WeakOptions("skeleton")
    first, second = weaken([HEART, HEART], options, classes=4)
    assert not np.array_equal(first, second)
    assert np.array_equal(weaken([HEART], options, first=1, classes=4)[0], second)
    other = WeakOptions("skeleton", seed=1)
    assert not np.array_equal(weaken([HEART], other, classes=4)[0], first)


def test_each_component_has_its_own_line_and_a_pixel_is_enough():
    mask = np.zeros((30, 30), np.uint8)
    mask[3:12, 3:12] = mask[20, 20] = 1
    labels = weaken([mask], WeakOptions("skeleton", jitter=0.0))[0]
    assert labels[20, 20] == 1
    assert ndimage.label(labels == 1, structure=FULL)[1] == 2
    full = weaken([np.ones((20, 20), np.uint8)], WeakOptions("skeleton"))[0]
    assert set(np.unique(full)) == {1, 255}


def test_one_object_and_its_background():
    _, masks = generate(4, size=96)
    for labels, mask in zip(weaken(list(masks), WeakOptions("skeleton")), masks, strict=True):
        assert set(np.unique(labels)) == {0, 1, 255}
        assert (mask[labels == 1] == 1).all()
        assert (mask[labels == 0] == 0).all()
        assert 0.003 < (labels != 255).mean() < 0.03


def test_phantoms_get_about_as_much_as_experts_draw():
    """The experts' scribbles of ACDC take 0.9 to 2.4 % of the pixels."""
    _, masks = generate(6, size=256, classes=4)
    drawn = weaken(list(masks), WeakOptions("skeleton"), classes=4)
    assert 0.009 < np.mean([labels != 255 for labels in drawn]) < 0.024
    for labels, mask in zip(drawn, masks, strict=True):
        counts = [(labels == kind).sum() for kind in range(4)]
        areas = [(mask == kind).sum() for kind in range(4)]
        assert (labels == mask)[labels != 255].all()
        assert min(counts) >= 10
        # A line grows with its object's length, not with its area.
        assert all(count < 6 * area**0.5 for count, area in zip(counts, areas, strict=True))


def test_files_and_training_take_them(tmp_path):
    for split in ("train", "test"):
        write_labels(tmp_path / split / "images/a.png", HEART * 60)
        write_labels(tmp_path / split / "masks/a.png", HEART)
    options = WeakOptions("skeleton")
    report = write_weak_labels(tmp_path / "train/masks", tmp_path / "out", options, classes=4)
    written = read_image(tmp_path / "out/a.png", "weak").array
    assert np.array_equal(written, scribble(HEART, options, 0, 4))
    assert report["pixels"] == (written != 255).sum()
    of_class = {str(kind): (written == kind).sum() for kind in range(5)}
    assert report["per_class"] == {kind: of_class[kind] for kind in "0123"}
    data = load_split(tmp_path, "train", size=64, classes=4, weak=options)
    assert np.array_equal(data.weak_labels[0], written)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stroke": 0.0}, "weak.stroke: wanted a share above 0"),
        ({"jitter": 1.5}, "weak.jitter: wanted 0 to 1"),
        ({"ratio": 0.01}, "weak.ratio: lines are one pixel wide"),
    ],
)
def test_options_of_no_line(options, words):
    with pytest.raises(UserError, match=words):
        WeakOptions("skeleton", **options)


@pytest.mark.slow
def test_as_many_pixels_as_experts_draw(real_data: Path):
    """ACDC's scribbles by experts: about 1 % of the pixels."""
    folder = real_data / "acdc_scribbles/train"
    if not folder.is_dir():
        pytest.skip("the scribbles of ACDC are not here")
    paths = sorted((folder / "masks").glob("*.png"))[::20]
    masks = [read_image(path, "mask").array for path in paths]
    experts = [read_image(folder / "weak" / path.name, "weak").array for path in paths]
    drawn = weaken(masks, WeakOptions("skeleton"), classes=4)
    ratios = [
        sum((labels != 255).sum() for labels in kind) / sum(labels.size for labels in kind)
        for kind in (drawn, experts)
    ]
    assert 0.009 <= ratios[0] <= 0.024
    assert ratios[0] == pytest.approx(ratios[1], rel=0.15)
    for kind in range(4):  # no class with a fraction of what experts give it
        counts = [sum((labels == kind).sum() for labels in which) for which in (drawn, experts)]
        assert 0.5 < counts[0] / counts[1] < 2
