"""Weak labels of which a known share is wrong."""

import numpy as np
import pytest
from accl_harness.cli import main
from accl_harness.data.formats import read_image, write_mask
from accl_harness.data.options import WeakOptions
from accl_harness.data.weak import weaken
from accl_harness.data.wrong_marks import add_wrong_marks
from accl_harness.errors import UserError

ROWS, COLUMNS = np.ogrid[:48, :48]


def disc(row, column, radius):
    return (((ROWS - row) ** 2 + (COLUMNS - column) ** 2) <= radius**2).astype(np.uint8)


MASKS = [disc(20 + i % 3, 24, 6 + i % 5) for i in range(40)]


def wrong_of(labels, masks):
    """Labelled pixels that contradict their mask, and all labelled ones."""
    marked = [label != 255 for label in labels]
    pairs = zip(labels, masks, marked, strict=True)
    return sum((label[m] != mask[m]).sum() for label, mask, m in pairs), sum(
        m.sum() for m in marked
    )


@pytest.mark.parametrize("share", [0.03, 0.1, 0.5])
@pytest.mark.parametrize("strategy", ["erosion", "skeleton"])
def test_the_share_is_met_and_right_marks_stay(share, strategy):
    right = weaken(MASKS, WeakOptions(strategy))
    labels = weaken(MASKS, WeakOptions(strategy, wrong=share))
    wrong, marked = wrong_of(labels, MASKS)
    assert wrong / marked == pytest.approx(share, abs=0.5 / marked)
    for before, after in zip(right, labels, strict=True):
        assert (after[before != 255] == before[before != 255]).all()
    assert wrong_of(right, MASKS)[0] == 0


def test_slips_touch_the_object_and_stray_marks_lie_anywhere():
    masks = [disc(24, 24, 8)] * 60
    labels = weaken(masks, WeakOptions("centroid_disc", wrong=0.2))
    distances = []
    for label, mask in zip(labels, masks, strict=True):
        rows, columns = np.nonzero((label == 1) & (mask == 0))
        assert len(rows) in (3, 4)  # 13 pixels of the disc of radius 2, and a quarter of that
        distances.append(np.hypot(rows - 24, columns - 24).min())
    slips = sum(distance < 9.5 for distance in distances)
    assert 18 <= slips <= 45  # half of them, and the stray marks that happen to lie there


def test_each_class_can_be_wrong():
    masks = [disc(24, 24, 12) + disc(24, 24, 6)] * 30
    labels = weaken(masks, WeakOptions("skeleton", wrong=0.3), classes=3)
    pairs = zip(labels, masks, strict=True)
    kinds = np.unique(np.concatenate([x[(x != 255) & (x != m)] for x, m in pairs]))
    assert kinds.tolist() == [0, 1, 2]


def test_places_belong_to_the_seed_and_the_image():
    one, same, other = (
        weaken(MASKS, WeakOptions("erosion", wrong=0.1, seed=seed)) for seed in (1, 1, 2)
    )
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_nothing_to_add():
    labels = [np.full((4, 4), 255, np.uint8), np.ones((4, 4), np.uint8)]
    masks = [np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)]
    for before, after in zip(labels, add_wrong_marks(labels, masks, 0.5), strict=True):
        assert (before == after).all()


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match=r"weak\.wrong: wanted a share from 0, below 1, got"):
        WeakOptions(wrong=share)


def test_the_command(tmp_path, capsys):
    for i, mask in enumerate(MASKS):
        write_mask(tmp_path / "masks" / f"{i:02}.png", mask)
    words = ("weaken", tmp_path / "masks", tmp_path / "weak", "--ratio", "0.01", "--wrong", "0.1")
    assert main([str(word) for word in words]) == 0
    labels = [read_image(path, "weak").array for path in sorted((tmp_path / "weak").iterdir())]
    wrong, marked = wrong_of(labels, MASKS)
    assert wrong / marked == pytest.approx(0.1, abs=0.001)
