"""benchmarks/more_labels.py: data sets with more and more labels, all of them right."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from accl_harness.data.options import WeakOptions
from accl_harness.data.weak import weaken

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "more_labels.py"
ROWS, COLUMNS = np.ogrid[:64, :64]
MASKS = [
    ((ROWS - 28 - i % 5) ** 2 + (COLUMNS - 30) ** 2 <= (5 + i % 7) ** 2).astype(np.uint8)
    for i in range(30)
]


@pytest.fixture(scope="module")
def sets():
    module = runpy.run_path(str(SCRIPT))
    return dict(module["data_sets"](MASKS, weaken(MASKS, WeakOptions(ratio=0.002))))


def test_every_label_is_right(sets):
    for name, labels in sets.items():
        for label, mask in zip(labels, MASKS, strict=True):
            known = label != 255
            assert (label[known] == mask[known]).all(), name


def test_how_many_images_have_how_many_labels(sets):
    def count(name, condition):
        return sum(bool(condition(label)) for label in sets[name])

    def marked(label):
        return (label == 1).any()

    def whole(label):
        return (label != 255).all()

    assert [count(f"images_{n}", marked) for n in (25, 50)] == [10, 20]
    assert count("marks", marked) == 30
    assert [count(f"painted_{n}", whole) for n in (3, 10, "all")] == [3, 10, 30]
    assert [count(f"painted_{n}", marked) for n in (3, 10, "all")] == [30, 10, 30]
    sizes = sorted(int(m.sum()) for m, w in zip(MASKS, sets["painted_3"], strict=True) if whole(w))
    assert sizes[0] < np.median([m.sum() for m in MASKS]) < sizes[2]
    for label in sets["background_some"]:
        assert (label == 0).sum() == round(0.003 * 64 * 64)
    assert all((label == 0).mean() > 0.5 for label in sets["background_all"])


def test_more_holds_what_less_holds(sets):
    for less, more in (
        ("images_25", "images_50"),
        ("images_50", "marks"),
        ("marks", "background_some"),
        ("background_some", "background_all"),
        ("marks", "painted_3"),
        ("painted_3", "painted_all"),
    ):
        for a, b in zip(sets[less], sets[more], strict=True):
            assert (b[a != 255] == a[a != 255]).all(), (less, more)
