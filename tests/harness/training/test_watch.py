"""The warnings that an epoch gives reason for, and the advice in them."""

import pytest
from accl_harness.training.curves import Watch


@pytest.mark.parametrize(
    ("changes", "epoch", "word"),
    [
        ({"loss_d": 0.009}, 1, "discriminator's loss fell below"),
        ({"size_ratio": 3.5}, 5, "foreground floods"),
        ({"size_ratio": 0.0}, 5, "foreground vanishes"),
        ({"loss_g": float("nan")}, 1, "loss is not finite"),
    ],
)
def test_warnings_come_once_each(changes, epoch, word):
    row = {"epoch": epoch, "loss_g": 1.0, "loss_d": 0.5, "size_ratio": 1.0}
    watch = Watch(epochs=8)
    assert watch.check(row) == []
    (warning,) = watch.check({**row, **changes})
    assert word in warning
    assert watch.check({**row, **changes}) == []


@pytest.mark.parametrize(
    ("weights", "ratio", "advice"),
    [
        ({}, 4.0, "; lower prior"),
        ({"accl": True}, 4.0, "; lower prior, or raise alpha"),
        ({"accl": True, "size": True}, 4.0, "; lower prior, or raise alpha or the size weight"),
        ({"size": True}, 0.0, "; raise prior"),
        ({"accl": True}, 0.0, "; raise prior, or lower alpha"),
    ],
)
def test_advice_names_what_the_method_has(weights, ratio, advice):
    row = {"epoch": 8, "loss_g": 1.0, "loss_d": None, "size_ratio": ratio}
    (warning,) = Watch(epochs=8, **weights).check(row)
    assert warning.endswith(advice)


def test_foreground_is_not_judged_in_the_first_quarter():
    row = {"epoch": 2, "loss_g": 1.0, "loss_d": None, "size_ratio": 0.0}
    assert Watch(epochs=8).check(row) == []
