"""Reference masks made from a few painted ones: whole, varied, the same for the same seed."""

import numpy as np
import pytest
from accl_harness.data.mask_bank import MaskBankOptions, make_masks
from accl_harness.data.topology import count_parts
from accl_harness.errors import UserError
from shapes import disc, ring


def test_a_change_of_nothing_gives_the_mask_back():
    still = MaskBankOptions(shift=0, flip=False, scale_min=1, scale_max=1, rotation=0, warp=0)
    for mask in (disc(), ring()):
        (reference,) = make_masks([mask], 1, 0, still)
        assert np.array_equal(reference.mask, mask)
        assert reference.parameters["shift"] == [0, 0]


def test_each_parameter_does_what_it_says():
    still = {"shift": 0, "flip": False, "scale_min": 1, "scale_max": 1, "rotation": 0, "warp": 0}
    bar = np.zeros((48, 48), np.uint8)
    bar[22:26, 8:28] = 1

    def extent(mask):
        rows, columns = np.nonzero(mask)
        return np.ptp(rows) + 1, np.ptp(columns) + 1

    (double,) = make_masks(
        [disc()], 1, 0, MaskBankOptions(**still | {"scale_min": 1.5, "scale_max": 1.5})
    )
    assert double.mask.sum() == pytest.approx(1.5**2 * disc().sum(), rel=0.05)
    turned = make_masks([bar], 20, 1, MaskBankOptions(**still | {"rotation": 90}))
    for mask, parameters in turned:
        assert abs(parameters["rotation"]) <= 90
        assert int(mask.sum()) == pytest.approx(80, rel=0.15)
        if abs(parameters["rotation"]) > 80:
            assert extent(mask)[0] > extent(mask)[1]
    moved = make_masks([disc()], 60, 2, MaskBankOptions(**still | {"shift": 0.25}))
    assert all(mask.sum() == disc().sum() for mask, _ in moved)
    shifts = np.array([parameters["shift"] for _, parameters in moved])
    assert np.abs(shifts).max() <= 12
    assert shifts.std(axis=0).min() > 4
    for mask, parameters in moved:
        assert np.array_equal(mask, np.roll(disc(), parameters["shift"], axis=(0, 1)))
    hook = bar.copy()
    hook[14:22, 8:12] = 1  # its foot points up at the left end
    flipped = make_masks([hook], 40, 3, MaskBankOptions(**still | {"flip": True}))
    window = np.argwhere(hook)
    box = hook[window[:, 0].min() : window[:, 0].max() + 1, 8:28]
    for mask, parameters in flipped:
        rows, columns = np.nonzero(mask)
        got = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        expected = box[::-1] if parameters["flip_rows"] else box
        expected = expected[:, ::-1] if parameters["flip_columns"] else expected
        assert np.array_equal(got, expected)
    assert len({(p["flip_rows"], p["flip_columns"]) for _, p in flipped}) == 4
    warped = make_masks([disc()], 10, 4, MaskBankOptions(**still | {"warp": 0.08}))
    overlaps = [(mask & disc()).sum() / (mask | disc()).sum() for mask, _ in warped]
    assert min(overlaps) > 0.5
    assert max(overlaps) < 0.98


def test_objects_stay_whole_and_in_the_frame():
    painted = [disc(), ring(), disc(48, 20, (24, 24)), disc(48, 8, (4, 40))]
    wild = MaskBankOptions(shift=1.0, scale_min=0.5, scale_max=3.0, rotation=180, warp=0.06)
    parts = [(1, 0), (1, 1), (1, 0), (1, 0)]
    for i, (mask, parameters) in enumerate(make_masks(painted, 80, 7, wild)):
        assert parameters["source"] == i % 4
        assert parameters["pixels"] == mask.sum() > 0
        assert count_parts(mask) == parts[i % 4]
        assert mask.shape == (48, 48)
    assert all(mask.any() for mask, _ in make_masks([np.ones((20, 20))], 3))


def test_made_masks_repeat_by_seed_and_do_not_depend_on_n():
    some, more = make_masks([disc(), ring()], 4, seed=9), make_masks([disc(), ring()], 9, seed=9)
    for a, b in zip(some, more, strict=False):
        assert np.array_equal(a.mask, b.mask)
        assert a.parameters == b.parameters
    assert not np.array_equal(
        make_masks([disc()], 1, seed=1)[0].mask, make_masks([disc()], 1, seed=2)[0].mask
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], 3), "at least one painted"),
        (([disc()], 0), "got 0"),
        (([disc()], 3, -1), "seed: wanted 0 or more, got -1"),
        (([disc(), disc() * 0], 3), "painted mask 1 is empty"),
    ],
)
def test_make_masks_refuses(arguments, words):
    with pytest.raises(UserError, match=words):
        make_masks(*arguments)


def test_mask_bank_ranges_are_checked():
    with pytest.raises(UserError, match="scale_min"):
        MaskBankOptions(scale_min=2.0, scale_max=1.0)
    with pytest.raises(UserError, match="warp"):
        MaskBankOptions(warp=-0.1)
