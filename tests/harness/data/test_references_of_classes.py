"""Reference masks of several classes: made by one move of the whole label map, read and written."""

import json

import numpy as np
import pytest
from accl_harness.data.dataset import load_split
from accl_harness.data.formats import read_image, write_labels
from accl_harness.data.mask_bank import make_masks
from accl_harness.data.options import MaskBankOptions
from accl_harness.data.references import make_bank, read_masks, write_references
from accl_harness.data.topology import count_parts
from accl_harness.errors import UserError

ROWS, COLUMNS = np.indices((64, 64))
RADIUS = np.hypot(ROWS - 32, COLUMNS - 26)
LABELS = np.where(RADIUS < 7, 3, np.where(RADIUS < 12, 2, 0)).astype(np.uint8)
LABELS[(np.hypot(ROWS - 32, COLUMNS - 40) < 10) & (LABELS == 0)] = 1
STILL = {"shift": 0.0, "flip": False, "scale_min": 1.0, "scale_max": 1.0, "rotation": 0, "warp": 0}


def shares(labels):
    return np.array([(labels == index).sum() for index in (1, 2, 3)])


def test_without_a_change_the_label_map_stays():
    (made,) = make_masks([LABELS], 1, 0, MaskBankOptions(**STILL), classes=4)
    assert np.array_equal(shares(made.mask), shares(LABELS))
    rows, columns = np.nonzero(made.mask)
    home = np.nonzero(LABELS)
    moved = made.mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert np.array_equal(
        moved,
        LABELS[home[0].min() : home[0].max() + 1, home[1].min() : home[1].max() + 1],
    )


def test_all_classes_take_the_same_scale():
    wide = MaskBankOptions(**STILL | {"scale_min": 1.4, "scale_max": 1.4})
    (made,) = make_masks([LABELS], 1, 0, wide, classes=4)
    assert shares(made.mask) / shares(LABELS) == pytest.approx(1.4**2, rel=0.1)


def test_the_object_as_a_whole_moves_as_a_binary_mask_does():
    for several, one in zip(
        make_masks([LABELS], 12, 5, classes=4), make_masks([LABELS > 0], 12, 5), strict=True
    ):
        if several.parameters == one.parameters:  # neither broke, so both drew the same
            assert np.array_equal(several.mask > 0, one.mask > 0)
            break
    else:
        pytest.fail("no move was the same")


def test_neighbours_stay_neighbours_and_no_class_breaks():
    for mask, parameters in make_masks([LABELS], 40, 3, classes=4):
        assert set(np.unique(mask)) == {0, 1, 2, 3}
        assert parameters["pixels"] == np.count_nonzero(mask)
        # No background opens between the disc and the ring around it.
        assert count_parts(np.isin(mask, (2, 3))) == (1, 0)
        assert count_parts(mask == 2) == (1, 1)
        # Nor does one class eat another.
        assert (shares(mask) / shares(mask).sum()) == pytest.approx(
            shares(LABELS) / shares(LABELS).sum(), abs=0.1
        )


def test_a_mask_that_lacks_a_class(tmp_path):
    without = np.where(LABELS == 1, 0, LABELS)
    made = make_masks([LABELS, without], 6, 1, classes=4)
    assert [1 in mask for mask, _ in made] == [True, False] * 3


def test_files_of_class_indices(tmp_path):
    for name in ("a", "b"):
        write_labels(tmp_path / f"painted/{name}.png", LABELS)
    report = write_references(tmp_path / "painted", tmp_path / "bank", n=5, classes=4)
    assert (report["count"], report["painted"]) == (5, 2)
    mask = read_image(tmp_path / "bank/reference_00003.png", "mask").array
    assert set(np.unique(mask)) == {0, 1, 2, 3}
    entry = json.loads((tmp_path / "bank/manifest.json").read_text())["masks"][3]
    assert entry["pixels"] == np.count_nonzero(mask)
    assert len(read_masks(tmp_path / "bank", classes=4)) == 5
    with pytest.raises(UserError, match="with --classes 3 a mask holds"):
        read_masks(tmp_path / "bank", classes=3)


@pytest.mark.parametrize("kind", ["folder", "augmented"])
def test_banks_of_several_classes(tmp_path, kind):
    for name in ("a", "b"):
        write_labels(tmp_path / f"train/images/{name}.png", LABELS * 60)
        write_labels(tmp_path / f"train/masks/{name}.png", LABELS)
        write_labels(tmp_path / f"train/references/{name}.png", LABELS)
    data = load_split(tmp_path, "train", size=32, classes=4)
    bank = make_bank(kind, data, painted=1, n=7)
    assert len(bank) == (2 if kind == "folder" else 7)
    assert bank.foregrounds == 3
    assert set(bank.masks.unique().tolist()) == {0, 1, 2, 3}
