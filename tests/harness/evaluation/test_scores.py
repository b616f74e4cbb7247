"""Scores of several classes, each number worked out by hand."""

import numpy as np
import pytest
import torch
from accl_harness.data.dataset import Dataset
from accl_harness.evaluation.scores import score_dataset

# Three classes, 0 the background; rows of the images, a digit a pixel.
TRUTHS = {
    "a": ("111100", "220000", "000000", "000000"),
    "b": ("000000", "000000", "000000", "000002"),
    "c": ("100000", "000000", "000000", "000000"),
}
PREDICTIONS = {
    "a": ("112200", "220000", "000000", "000000"),
    "b": ("000000", "000000", "000000", "000000"),
    "c": ("110000", "000000", "000000", "000022"),
}
DSC = {1: {"a": 2 * 2 / (2 + 4), "b": 1, "c": 2 / 3}, 2: {"a": 2 * 2 / (4 + 2), "b": 0, "c": 0}}


def mask(rows):
    return np.array([[int(digit) for digit in row] for row in rows], dtype=np.uint8)


def dataset(truths=TRUTHS, **options):
    masks = torch.from_numpy(np.stack([mask(rows) for rows in truths.values()]))
    images = torch.zeros(len(masks), 1, *masks.shape[1:])
    return Dataset(images=images, names=list(truths), masks=masks, **{"classes": 3, **options})


def predictions(rows=PREDICTIONS):
    return [mask(row) for row in rows.values()]


def test_scores_of_each_class_and_their_mean():
    scores = score_dataset(predictions(), dataset())
    metrics = scores.metrics
    assert [scores.per_image[1][i].dsc for i in range(3)] == pytest.approx(list(DSC[1].values()))
    assert [scores.per_image[2][i].dsc for i in range(3)] == pytest.approx(list(DSC[2].values()))
    first, second = (2 / 3 + 1 + 2 / 3) / 3, 2 / 3 / 3
    assert metrics["dsc_per_class"] == {"1": pytest.approx(first), "2": pytest.approx(second)}
    assert metrics["dsc"] == pytest.approx((first + second) / 2)
    by_image = {"a": 2 / 3, "b": 1 / 2, "c": 1 / 3}
    assert metrics["dsc_per_image"] == pytest.approx(by_image)
    assert metrics["dsc_std"] == pytest.approx(np.std(list(by_image.values()), ddof=1))
    # Three times c or three times a, each 1 of 27 draws.
    assert metrics["dsc_interval"] == pytest.approx([1 / 3, 2 / 3])
    # Class 1: 2 + 0 + 2 found of 4 + 0 + 1; class 2: 4 + 0 + 2 found of 2 + 1 + 0.
    assert metrics["size_ratio_per_class"] == {"1": 4 / 5, "2": 6 / 3}
    assert metrics["size_ratio"] == pytest.approx((4 / 5 + 2) / 2)
    # Class 1: 2 of 2, nothing found, 1 of 2; class 2: 2 of 4, nothing found, 0 of 2.
    assert metrics["precision_per_class"] == {"1": 0.75, "2": 0.25}
    # Class 1: 2 of 4, nothing there, 1 of 1; class 2: 2 of 2, 0 of 1, nothing there.
    assert metrics["recall_per_class"] == {"1": 0.75, "2": 0.5}
    assert (metrics["precision"], metrics["recall"]) == (0.5, 0.625)
    # Ranks of found and true pixels. Class 1: 2.5, 1, 2.5 and 3, 1, 2.
    # Class 2: 3, 1, 2 and 3, 2, 1.
    assert metrics["size_correlation_per_class"] == pytest.approx({"1": 0.75**0.5, "2": 0.5})
    assert metrics["size_correlation"] == pytest.approx((0.75**0.5 + 0.5) / 2)


def test_distances_of_each_class_and_where_they_are_defined():
    metrics = score_dataset(predictions(), dataset()).metrics
    # Class 1, a: columns 2 and 3 are 1 and 2 from the found ones; c: column 1 is 1 from the true.
    assert metrics["asd_per_class"]["1"] == pytest.approx(((1 + 2) / 6 + 1 / 3) / 2)
    # Class 2, a: (0, 2) and (0, 3) are sqrt 2 and sqrt 5 from (1, 1).
    assert metrics["asd_per_class"]["2"] == pytest.approx((2**0.5 + 5**0.5) / 6)
    # The 95th percentile of {0, 0, 1, 2}, of {0, 1} and of {0, 0, sqrt 2, sqrt 5}.
    of_a, of_c = 1 + 0.85, 0.95
    assert metrics["hd95_per_class"]["1"] == pytest.approx((of_a + of_c) / 2)
    of_second = 2**0.5 + 0.85 * (5**0.5 - 2**0.5)
    assert metrics["hd95_per_class"]["2"] == pytest.approx(of_second)
    assert metrics["hd95"] == pytest.approx(((of_a + of_c) / 2 + of_second) / 2)
    assert metrics["images_with_distances_per_class"] == {"1": 2, "2": 1}
    assert metrics["images_with_distances"] == 2  # a and c have at least one class with a distance


def test_images_alone_have_no_volumes():
    metrics = score_dataset(predictions(), dataset()).metrics
    assert metrics["dsc_of"] == "images"
    assert metrics["dsc_2d"] == metrics["dsc"]
    assert metrics["dsc_2d_per_class"] == metrics["dsc_per_class"]
    for key in ("dsc_3d", "dsc_3d_per_volume", "dsc_3d_per_class", "dsc_3d_per_volume_per_class"):
        assert metrics[key] is None


def test_slices_of_volumes_are_scored_by_volume():
    metrics = score_dataset(predictions(), dataset(groups=["v", "v", "w"])).metrics
    # v, class 1: 2 right of 2 found and 4 true; class 2: 2 right of 4 found and 2 + 1 true.
    # w, class 1: 1 right of 2 and 1; class 2: 2 found where there is none.
    v, w = {"1": 4 / 6, "2": 4 / 7}, {"1": 2 / 3, "2": 0.0}
    assert metrics["dsc_3d_per_volume_per_class"] == {"v": pytest.approx(v), "w": pytest.approx(w)}
    assert metrics["dsc_3d_per_volume"] == pytest.approx({"v": 13 / 21, "w": 1 / 3})
    by_class = {"1": (4 / 6 + 2 / 3) / 2, "2": (4 / 7) / 2}
    assert metrics["dsc_3d_per_class"] == pytest.approx(by_class)
    assert metrics["dsc_per_class"] == metrics["dsc_3d_per_class"]
    assert metrics["dsc"] == metrics["dsc_3d"] == pytest.approx(sum(by_class.values()) / 2)
    assert metrics["dsc_of"] == "volumes"
    assert metrics["dsc_std"] == pytest.approx(abs(13 / 21 - 1 / 3) / 2**0.5)
    assert metrics["dsc_interval"] == pytest.approx([1 / 3, 13 / 21])
    # The images' own mean stays beside it; an empty slice counts 1 there and nothing here.
    assert metrics["dsc_2d_per_class"] == pytest.approx({"1": 7 / 9, "2": 2 / 9})


def test_a_class_that_a_volume_lacks_counts_one_where_nothing_is_found():
    truths = {"a": ("100", "000"), "b": ("100", "000"), "c": ("120", "000"), "d": ("000", "000")}
    metrics = score_dataset(
        predictions(truths), dataset(truths, groups=["v", "v", "w", "w"])
    ).metrics
    assert metrics["dsc_3d_per_volume_per_class"]["v"] == {"1": 1.0, "2": 1.0}
    assert metrics["dsc"] == 1.0
    empty = dict.fromkeys(truths, ("000", "000"))
    metrics = score_dataset(predictions(empty), dataset(empty)).metrics
    assert metrics["dsc_per_class"] == {"1": 1.0, "2": 1.0}
    assert metrics["size_ratio_per_class"] == {"1": None, "2": None}
    assert metrics["size_ratio"] is metrics["hd95"] is metrics["size_correlation"] is None


def test_a_class_that_no_mask_holds_is_scored_and_leaves_undefined_scores_to_the_others():
    metrics = score_dataset(predictions(), dataset(classes=4)).metrics
    assert metrics["dsc_per_class"]["3"] == 1.0
    assert metrics["size_ratio_per_class"]["3"] is None
    assert metrics["hd95_per_class"]["3"] is None
    assert metrics["size_ratio"] == pytest.approx((4 / 5 + 2) / 2)
    assert metrics["images_with_distances_per_class"]["3"] == 0


def test_likeness_of_predictions_is_taken_within_each_class():
    truths = {"a": ("1100", "2200"), "b": ("1000", "0220")}
    metrics = score_dataset(predictions(truths), dataset(truths)).metrics
    of_classes = 2 * 1 / (2 + 1), 2 * 1 / (2 + 2)
    assert metrics["mean_pairwise_dsc"] == pytest.approx(sum(of_classes) / 2)
    assert metrics["mean_pairwise_dsc_of_masks"] == metrics["mean_pairwise_dsc"]


@pytest.mark.parametrize("classes", [None, 2])
def test_one_foreground_class_is_scored_alike_with_and_without_classes(classes):
    truths = {"a": ("1100", "0000"), "b": ("1000", "0000")}
    found = {"a": ("1110", "0000"), "b": ("1000", "1000")}
    metrics = score_dataset(predictions(found), dataset(truths, classes=classes)).metrics
    assert metrics["dsc"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert metrics["size_ratio"] == pytest.approx(5 / 3)
    assert ("dsc_per_class" in metrics) == (classes is not None)
    if classes is None:
        assert not [key for key in metrics if "class" in key or key in ("dsc_of", "dsc_2d")]


@pytest.mark.parametrize(("classes", "last"), [(3, 2), (None, 1)])
def test_a_class_beyond_the_last_is_refused(classes, last):
    truths = {"a": ("0100", "0000")}
    wrong = {"a": ("0100", f"000{last + 1}")}
    with pytest.raises(ValueError, match=rf"prediction of a: .* 0 to {last}, got \[{last + 1}\]"):
        score_dataset(predictions(wrong), dataset(truths, classes=classes))
    with pytest.raises(ValueError, match=rf"truth of a: .* 0 to {last}, got \[{last + 1}\]"):
        score_dataset(predictions(truths), dataset(wrong, classes=classes))
