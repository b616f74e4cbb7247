"""The learning rate of the paper's 200 epochs, and its form for other lengths."""

import pytest
from accl_harness.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (1, 2e-4),
        (100, 2e-4),
        (101, 2e-4 * 100 / 101),
        (150, 2e-4 * 51 / 101),
        (200, 2e-4 * 1 / 101),
    ],
)
def test_rate_of_the_paper(epoch, rate):
    assert learning_rate(epoch, 200, 2e-4) == pytest.approx(rate, rel=1e-12)


def test_odd_and_short_runs():
    assert [learning_rate(e, 3, 1.0) for e in (1, 2, 3)] == pytest.approx([1, 2 / 3, 1 / 3])
    assert learning_rate(1, 1, 1.0) == pytest.approx(0.5)
