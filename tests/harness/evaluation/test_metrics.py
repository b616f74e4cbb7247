"""Scores of images and sets, each number worked out by hand."""

import numpy as np
import pytest
from accl_harness.evaluation.metrics import (
    ImageScores,
    bootstrap_interval,
    dice,
    mean,
    mean_pairwise_dsc,
    rank_correlation,
    score_image,
    spread,
    summarize,
    volume_dice,
)

EMPTY = np.zeros((6, 8), dtype=np.uint8)


def mask(*points, shape=(6, 8)):
    image = np.zeros(shape, dtype=np.uint8)
    for point in points:
        image[point] = 1
    return image


def test_overlap_scores_by_hand():
    # Truth: 4 pixels; prediction: 3, of which 2 are right.
    truth = mask((1, 1), (1, 2), (2, 1), (2, 2))
    prediction = mask((1, 1), (1, 2), (0, 2))
    scores = score_image(prediction, truth)
    assert scores.dsc == pytest.approx(2 * 2 / (3 + 4))
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.recall == pytest.approx(2 / 4)
    assert scores.size_ratio == pytest.approx(3 / 4)
    assert (scores.predicted_pixels, scores.true_pixels) == (3, 4)


def test_distances_by_hand_in_pixels():
    scores = score_image(mask((1, 1)), mask((1, 5)))
    assert scores.hd95 == pytest.approx(4.0)
    assert scores.asd == pytest.approx(4.0)
    assert scores.dsc == 0.0


def test_spacing_counts_rows_and_columns_in_mm():
    rows = score_image(mask((1, 1)), mask((4, 1)), spacing=(2.0, 0.5))
    columns = score_image(mask((1, 1)), mask((1, 5)), spacing=(2.0, 0.5))
    assert rows.hd95 == pytest.approx(3 * 2.0)
    assert columns.hd95 == pytest.approx(4 * 0.5)
    assert columns.asd == pytest.approx(2.0)


def test_asd_is_symmetric_and_hd95_takes_the_worse_side():
    # To the truth: pixel (1, 1) is 0 away, pixel (1, 7) is 6 away. Back: 0.
    near_and_far, single = mask((1, 1), (1, 7)), mask((1, 1))
    there = score_image(near_and_far, single)
    back = score_image(single, near_and_far)
    assert there.asd == back.asd == pytest.approx((0 + 6 + 0) / 3)
    # The 95th percentile of {0, 6} by linear interpolation; the other side's is 0.
    assert there.hd95 == back.hd95 == pytest.approx(0.95 * 6)


def test_perfect_prediction():
    truth = mask((1, 1), (1, 2), (2, 1))
    assert score_image(truth, truth) == ImageScores(1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 3, 3)


def test_both_empty():
    assert score_image(EMPTY, EMPTY) == ImageScores(1.0, None, None, None, None, None, 0, 0)


def test_empty_prediction():
    scores = score_image(EMPTY, mask((1, 1), (1, 2)))
    assert scores == ImageScores(0.0, None, None, None, 0.0, 0.0, 0, 2)


def test_empty_truth():
    scores = score_image(mask((1, 1), (1, 2)), EMPTY)
    assert scores == ImageScores(0.0, None, None, 0.0, None, None, 2, 0)


def test_mean_and_spread_skip_undefined_values():
    assert mean([1.0, None, 4.0]) == 2.5
    assert spread([1.0, None, 4.0]) == pytest.approx(4.5**0.5)
    assert mean([None]) is None
    assert spread([3.0, None]) is None


def test_summary_pools_sizes_and_counts_defined_distances():
    scores = [
        score_image(mask((1, 1), (1, 2)), mask((1, 1))),  # DSC 2/3
        score_image(EMPTY, mask((1, 1), (2, 1), (3, 1))),  # DSC 0
        score_image(EMPTY, EMPTY),  # DSC 1
    ]
    summary = summarize(scores)
    assert summary["dsc"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert summary["dsc_std"] == pytest.approx(np.std([2 / 3, 0, 1], ddof=1))
    assert summary["size_ratio"] == pytest.approx(2 / 4)
    assert summary["size_correlation"] == pytest.approx(0)  # ranks 3, 1.5, 1.5 against 2, 3, 1
    assert summary["precision"] == pytest.approx(0.5)
    assert summary["recall"] == pytest.approx((1 + 0) / 2)
    assert (summary["images"], summary["images_with_distances"]) == (3, 1)
    low, high = summary["dsc_interval"]
    assert 0 <= low < summary["dsc"] < high <= 1


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3, 100], [2, 1, 3, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank_correlation([7, 7, 7], [1, 2, 3]) is None
    assert rank_correlation([7], [1]) is None


def test_mean_pairwise_dsc_by_hand():
    row = [np.array([[1, 1, 0, 0]]), np.array([[0, 1, 1, 0]]), np.array([[0, 0, 1, 0]])]
    # Overlaps 1, 0 and 1 of sizes 2 + 2, 2 + 1 and 2 + 1.
    assert mean_pairwise_dsc(row) == pytest.approx((2 / 4 + 0 + 2 / 3) / 3)
    assert mean_pairwise_dsc([*row, np.zeros((1, 4))]) == mean_pairwise_dsc(row)
    assert mean_pairwise_dsc([row[0]] * 5) == pytest.approx(1)
    assert mean_pairwise_dsc(row[:1]) is None
    # 400 masks of which every second counts: all of those alike.
    assert mean_pairwise_dsc([row[0], row[2]] * 200) == pytest.approx(1)


def test_bootstrap_is_seeded_and_matches_the_normal_interval():
    values = np.random.default_rng(3).normal(0.6, 0.2, 100).tolist()
    low, high = bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values, seed=5) == [low, high]
    assert bootstrap_interval(values, seed=6) != [low, high]
    half_width = 1.96 * np.std(values, ddof=1) / 10
    assert low == pytest.approx(np.mean(values) - half_width, abs=0.01)
    assert high == pytest.approx(np.mean(values) + half_width, abs=0.01)
    assert bootstrap_interval([0.5]) is None
    assert bootstrap_interval([0.5] * 4) == [0.5, 0.5]


def test_bootstrap_of_two_values_by_hand():
    """The mean of two draws is one of 0, 0.5 and 1, the outer two with probability 1/4 each; of
    0, 0, 0, 1 it is 1 with 1/256, below 2.5 %, and 3/4 or more with 13/256, above 2.5 %."""
    assert bootstrap_interval([0.0, 1.0]) == [0.0, 1.0]
    assert bootstrap_interval([0.0, 0.0, 0.0, 1.0]) == [0.0, 0.75]


def test_volume_dice_pools_the_slices():
    # Slice 1: 1 of 1 right; slice 2: prediction 3, truth 1, none right; another size: empty.
    predictions = [mask((0, 0)), mask((1, 1), (1, 2), (1, 3)), mask(shape=(2, 2))]
    truths = [mask((0, 0)), mask((4, 4)), mask(shape=(2, 2))]
    assert volume_dice({"v": predictions}, {"v": truths}) == {"v": pytest.approx(2 / 6)}
    assert dice(predictions[0], truths[0]) == 1.0


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"prediction: wanted the truth's shape \(6, 8\)"):
        score_image(np.zeros((3, 3)), EMPTY)
    with pytest.raises(ValueError, match=r"truth: wanted a mask of 0 and 1, got values"):
        score_image(EMPTY, EMPTY + 255)
    with pytest.raises(ValueError, match="at least one image"):
        summarize([])
