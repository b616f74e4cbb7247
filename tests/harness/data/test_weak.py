"""Weak labels: literal results on small masks, the published recipe, and the ratio mode."""

import numpy as np
import pytest
from accl_harness.data.dataset import load_split
from accl_harness.data.formats import read_image, write_mask
from accl_harness.data.topology import count_parts, thin
from accl_harness.data.weak import WeakOptions, weak_labels, weaken, write_weak_labels
from accl_harness.errors import UserError
from scipy import ndimage


def draw(text):
    return np.array([[c == "#" for c in line] for line in text.split()], np.uint8)


def show(labels):
    assert set(np.unique(labels)) <= {1, 255}
    return [("".join("#" if v == 1 else "." for v in row)) for row in labels]


HOUSE = draw("""
    ...........
    ....#......
    ..######...
    ..######...
    ..######...
    ..#######..
    ..######...
    ...........
""")

RING = draw("""
    #######
    #######
    ##...##
    ##...##
    ##...##
    #######
    #######
""")


def test_erosion_of_a_drawn_mask_by_hand():
    assert show(weak_labels(HOUSE, WeakOptions(iterations=1))) == [
        "...........",
        "...........",
        "...........",
        "...####....",
        "...####....",
        "...####....",
        "...........",
        "...........",
    ]
    two = [
        "...........",
        "...........",
        "...........",
        "...........",
        "....##.....",
        "...........",
        "...........",
        "...........",
    ]
    assert show(weak_labels(HOUSE, WeakOptions(iterations=2))) == two
    assert show(weak_labels(HOUSE)) == two  # 10 iterations count down to 2


def test_whole_mask_where_one_erosion_leaves_nothing_and_nothing_for_an_empty_mask():
    thin_line = draw("..... .###. .....")
    assert show(weak_labels(thin_line)) == [".....", ".###.", "....."]
    assert show(weak_labels(np.zeros((2, 3), np.uint8))) == ["...", "..."]
    assert show(weak_labels(HOUSE, WeakOptions(iterations=0))) == show(np.where(HOUSE, 1, 255))


def test_erosion_equals_scipy_on_rough_masks():
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = ndimage.gaussian_filter(rng.standard_normal((60, 50)), 4) > 0.02
        for iterations in (1, 3, 10):
            expected, n = np.zeros_like(mask), iterations
            while n and not expected.any():
                expected = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=n)
                n -= 1
            expected = expected if expected.any() else mask
            labels = weak_labels(mask, WeakOptions(iterations=iterations))
            assert np.array_equal(labels == 1, expected)


def test_count_parts_and_thinning():
    assert count_parts(RING) == (1, 1)
    assert count_parts(HOUSE) == (1, 0)
    assert count_parts(draw("#.# ... #.#")) == (4, 0)
    assert count_parts(draw(".#. #.# .#.")) == (1, 1)  # the corners touch, the hole does not leak
    depth = ndimage.distance_transform_edt(np.pad(RING, 1))[1:-1, 1:-1]
    line = thin(RING, depth, 0)
    assert count_parts(line) == (1, 1)
    assert 12 <= line.sum() <= 16  # a closed line about a hole of 3 x 3
    assert thin(HOUSE, ndimage.distance_transform_edt(HOUSE), 0).sum() == 1
    assert thin(RING, depth, 30).sum() == 30


def test_keep_topology_stops_before_the_ring_breaks():
    # A ring 5 wide on three sides and 3 wide on one: two erosions would open it there.
    mask = np.zeros((25, 25), np.uint8)
    mask[2:21, 2:23] = 1
    mask[7:18, 7:18] = 0
    broken = weak_labels(mask, WeakOptions(iterations=2)) == 1
    whole = weak_labels(mask, WeakOptions(iterations=2, keep_topology=True)) == 1
    assert count_parts(broken) == (1, 0)
    assert count_parts(whole) == (1, 1)
    assert np.array_equal(whole, ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=1))


def test_discs_and_box():
    disc = weak_labels(HOUSE, WeakOptions(strategy="centroid_disc", radius=1))
    assert show(disc)[3:6] == [".....#.....", "....###....", ".....#....."]
    assert (disc == 1).sum() == 5
    for index in range(20):
        options = WeakOptions(strategy="disc", radius=1.5, seed=4)
        random = weak_labels(HOUSE, options, index)
        assert np.array_equal(random, weak_labels(HOUSE, options, index))
        assert 1 <= (random == 1).sum() <= 9
        assert not ((random == 1) & (HOUSE == 0)).any()
    assert len({weak_labels(HOUSE, options, i).tobytes() for i in range(20)}) > 5
    box = weak_labels(HOUSE, WeakOptions(strategy="box"))
    assert (box == 1).sum() == 6 * 7
    assert (box[1:7, 2:9] == 1).all()
    assert (weak_labels(HOUSE, WeakOptions(strategy="box", margin=9)) == 1).all()
    hollow = weak_labels(RING, WeakOptions(strategy="centroid_disc", radius=1))
    assert np.array_equal(hollow == 1, RING == 1)  # the centroid lies in the hole: whole mask


def _discs(radii, side=64):
    y, x = np.ogrid[:side, :side]
    return [((y - 30) ** 2 + (x - 33) ** 2 <= r * r).astype(np.uint8) for r in radii]


@pytest.mark.parametrize("strategy", ["erosion", "disc", "centroid_disc"])
def test_ratio_is_met_exactly_over_the_whole_set(strategy):
    masks = [*_discs((2, 5, 9, 20)), np.zeros((64, 64), np.uint8)]
    labels = weaken(masks, WeakOptions(strategy=strategy, ratio=0.01))
    counts = [int((label == 1).sum()) for label in labels]
    assert sum(counts) == round(0.01 * 5 * 64 * 64) == 205
    assert counts[4] == 0
    areas = [int(mask.sum()) for mask in masks]  # 13, 81, 253, 1257
    assert all(abs(c - 205 * a / sum(areas)) < 1 for c, a in zip(counts, areas, strict=True))
    assert all(not ((label == 1) & (m == 0)).any() for label, m in zip(labels, masks, strict=True))


def test_ratio_takes_the_deepest_pixels_and_one_an_object_at_least():
    labels = weaken(_discs((1, 20)), WeakOptions(ratio=20 / (2 * 64 * 64)))
    assert [(label == 1).sum() for label in labels] == [1, 19]
    assert labels[0][30, 33] == 1
    y, x = np.nonzero(labels[1] == 1)
    assert np.hypot(y - 30, x - 33).max() < 3


def test_ratio_keeps_rings_whole_when_asked():
    outer, inner = _discs((20, 14))
    uneven = outer - np.roll(inner, 3, axis=1)
    ratio = 150 / 64**2
    plain = weaken([uneven], WeakOptions(ratio=ratio))[0] == 1
    kept = weaken([uneven], WeakOptions(ratio=ratio, keep_topology=True))[0] == 1
    assert plain.sum() == kept.sum() == 150
    assert count_parts(plain)[1] == 0
    assert count_parts(kept) == (1, 1)
    # What a thin ring cannot give up, the others do without.
    labels = weaken([uneven, outer], WeakOptions(ratio=120 / (2 * 64**2), keep_topology=True))
    counts = [(label == 1).sum() for label in labels]
    assert sum(counts) == 120
    assert count_parts(labels[0] == 1) == (1, 1)
    assert counts[0] > 120 * uneven.sum() / (uneven.sum() + outer.sum())
    with pytest.raises(UserError, match="too little to keep the topology"):
        weaken([uneven], WeakOptions(ratio=20 / 64**2, keep_topology=True))


@pytest.mark.parametrize("ratio", [0.9, 1e-4])
def test_a_ratio_the_masks_cannot_give(ratio):
    with pytest.raises(UserError, match="ratio"):
        weaken(_discs((5, 9, 12)), WeakOptions(ratio=ratio))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strategy": "scribbles"}, "strategy.*scribbles"),
        ({"iterations": -1}, "iterations"),
        ({"seed": -1}, "seed"),
        ({"ratio": 0.0}, "ratio"),
        ({"ratio": 1.2}, "ratio.*1.2"),
        ({"ratio": 0.1, "strategy": "box"}, "box"),
        ({"keep_topology": True, "strategy": "disc"}, "keep_topology"),
        ({"foreground": 255}, "foreground"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(UserError, match=words):
        WeakOptions(**options)


def test_scribbles_cannot_be_made():
    with pytest.raises(UserError, match="scribbles are read"):
        weak_labels(HOUSE, WeakOptions(strategy="scribble"))


def test_write_weak_labels(tmp_path):
    write_mask(tmp_path / "masks" / "a.png", HOUSE)
    volume = np.dstack([HOUSE, np.zeros_like(HOUSE), HOUSE])
    write_mask(tmp_path / "masks" / "b.nii.gz", volume)
    report = write_weak_labels(tmp_path / "masks", tmp_path / "weak", WeakOptions(iterations=1))
    assert report == {
        "pixels": 36,
        "ratio": 36 / (4 * HOUSE.size),
        "per_image": {"a": 12, "b": 24},
    }
    flat = read_image(tmp_path / "weak" / "a.png", "weak").array
    assert show(flat)[3] == "...####...."
    deep = read_image(tmp_path / "weak" / "b.nii.gz", "weak").array
    assert deep.shape == volume.shape
    assert np.array_equal(deep[..., 2], flat)
    assert (deep[..., 1] == 255).all()
    with pytest.raises(UserError, match="not empty"):
        write_weak_labels(tmp_path / "masks", tmp_path / "weak")


@pytest.mark.parametrize(
    ("folder", "split", "masks", "options", "percent"),
    [
        ("acdc_lv", "train", "masks", WeakOptions(), 0.175),
        ("acdc_lv", "test", "masks", WeakOptions(), 0.056),
        ("drishti", "train", "masks_cup", WeakOptions(), 2.36),
        ("drishti", "train", "masks_disc", WeakOptions(), 0.04),
        ("drishti", "train", "masks_disc", WeakOptions(iterations=4), 1.5),
        ("acdc_lv", "train", "masks", WeakOptions(ratio=0.0012), 0.12),
    ],
)
def test_ratios_of_real_images(real_data, folder, split, masks, options, percent):
    dataset = load_split(real_data / folder, split, masks=masks, weak=options)
    annotation = dataset.annotation()
    digits = len(str(percent).split(".")[1])
    assert round(100 * annotation["ratio"], digits) == percent
    assert min(annotation["per_image"].values()) >= 1
