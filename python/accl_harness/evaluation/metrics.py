"""Segmentation scores of one image and of a set of images, computed by MONAI.

Empty masks, where the formulas say 0/0:

| prediction | truth | DSC | HD95, ASD | precision | recall | size ratio |
|---|---|---|---|---|---|---|
| empty | empty | 1 | undefined | undefined | undefined | undefined |
| empty | filled | 0 | undefined | undefined | 0 | 0 |
| filled | empty | 0 | undefined | 0 | undefined | undefined |

An undefined value is None here, null in JSON and an empty cell in CSV; means are taken over the
images where the value is defined, and the number of those is reported beside the distances.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import bootstrap, spearmanr

BOOTSTRAP_SAMPLES = 2000
MOST_PAIRED = 200


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image; distances in mm where a spacing was given, else in pixels."""

    dsc: float
    hd95: float | None
    asd: float | None
    precision: float | None
    recall: float | None
    size_ratio: float | None
    predicted_pixels: int
    true_pixels: int


def _defined(value: torch.Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _one_hot(mask: np.ndarray, argument: str) -> torch.Tensor:
    mask = np.asarray(mask)
    if not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"{argument}: wanted a mask of 0 and 1, got values {np.unique(mask)[:5].tolist()}"
        )
    return torch.from_numpy(mask.astype(np.float32))[None, None]


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice similarity coefficient 2|A n B| / (|A| + |B|) of two {0, 1} masks of any rank.

    Both empty: 1.

    Raises:
        ValueError: the shapes differ, or a value is not 0 or 1.
    """
    if np.shape(prediction) != np.shape(truth):
        raise ValueError(
            f"prediction: wanted the truth's shape {np.shape(truth)}, got {np.shape(prediction)}"
        )
    from monai import metrics as monai  # late: it takes seconds, and most commands score nothing

    pair = _one_hot(prediction, "prediction"), _one_hot(truth, "truth")
    return float(monai.compute_dice(*pair, ignore_empty=False))


def score_image(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None
) -> ImageScores:
    """Scores of one predicted mask against the true one.

    Args:
        prediction: [H, W] (or [H, W, D]) of 0 and 1.
        truth: the same shape, 0 and 1.
        spacing: pixel size in mm by axis; None measures the distances in pixels.

    Raises:
        ValueError: the shapes differ, or a mask holds another value than 0 and 1.
    """
    from monai import metrics as monai

    dsc = dice(prediction, truth)
    pair = _one_hot(prediction, "prediction"), _one_hot(truth, "truth")
    predicted_pixels, true_pixels = (int(mask.sum()) for mask in pair)
    confusion = monai.get_confusion_matrix(*pair)
    hd95 = asd = None
    if predicted_pixels and true_pixels:
        steps = None if spacing is None else [float(step) for step in spacing]
        surfaces = {"include_background": True, "spacing": steps}
        with warnings.catch_warnings():  # MONAI 1.5 and 1.6 warn about a call of their own
            warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)
            hd95 = _defined(monai.compute_hausdorff_distance(*pair, percentile=95, **surfaces))
            asd = _defined(
                monai.compute_average_surface_distance(*pair, symmetric=True, **surfaces)
            )
    return ImageScores(
        dsc=dsc,
        hd95=hd95,
        asd=asd,
        precision=_defined(monai.compute_confusion_matrix_metric("precision", confusion)),
        recall=_defined(monai.compute_confusion_matrix_metric("recall", confusion)),
        size_ratio=predicted_pixels / true_pixels if true_pixels else None,
        predicted_pixels=predicted_pixels,
        true_pixels=true_pixels,
    )


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the defined values; None where there is none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def spread(values: Iterable[float | None]) -> float | None:
    """Sample standard deviation (n - 1) of the defined values; None for fewer than two."""
    defined = [value for value in values if value is not None]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else None


def bootstrap_interval(
    values: Sequence[float], *, seed: int = 0, samples: int = BOOTSTRAP_SAMPLES
) -> list[float] | None:
    """95 % percentile interval of the mean when the images are drawn again with replacement.

    None for fewer than two values. The same seed gives the same interval.
    """
    if len(values) < 2:
        return None
    found = bootstrap(
        (np.asarray(values, dtype=np.float64),),
        np.mean,
        n_resamples=samples,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return [float(bound) for bound in found.confidence_interval]


def volume_dice(
    predictions: Mapping[str, Sequence[np.ndarray]], truths: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, float]:
    """DSC of each volume over all of its slices together (not the mean of the slices' DSC).

    Args:
        predictions: volume name -> its slices, each [H, W] of 0 and 1; slices may differ in size.
        truths: the same names and slices.
    """
    return {
        name: dice(
            np.concatenate([np.ravel(slice_) for slice_ in predictions[name]]),
            np.concatenate([np.ravel(slice_) for slice_ in truths[name]]),
        )
        for name in truths
    }


def summarize(scores: Sequence[ImageScores], *, seed: int = 0) -> dict:
    """Scores of a set of images, as metrics.json names them (0 to 1; undefined: None).

    ``size_ratio`` is the sum of predicted over the sum of true foreground pixels: above 1 the
    foreground expands, below 1 it is suppressed. ``size_correlation`` is Spearman's correlation of
    predicted and true foreground pixels over the images: a method can meet the mean size and
    still know nothing of the single image's.

    Raises:
        ValueError: no image.
    """
    if not scores:
        raise ValueError("scores: wanted at least one image, got none")
    true_pixels = sum(score.true_pixels for score in scores)
    predicted_pixels = sum(score.predicted_pixels for score in scores)
    dsc = [score.dsc for score in scores]
    return {
        "dsc": mean(dsc),
        "dsc_std": spread(dsc),
        "dsc_interval": bootstrap_interval(dsc, seed=seed),
        "hd95": mean(score.hd95 for score in scores),
        "asd": mean(score.asd for score in scores),
        "images": len(scores),
        "images_with_distances": sum(score.hd95 is not None for score in scores),
        "size_ratio": predicted_pixels / true_pixels if true_pixels else None,
        "size_correlation": rank_correlation(
            [score.predicted_pixels for score in scores], [score.true_pixels for score in scores]
        ),
        "precision": mean(score.precision for score in scores),
        "recall": mean(score.recall for score in scores),
    }


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's, -1 to 1; None where it is undefined: one of the two does not vary."""
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(spearmanr(a, b).statistic)


def mean_pairwise_dsc(masks: Sequence[np.ndarray]) -> float | None:
    """Mean DSC between the masks of different images, all [size, size] of 0 and 1.

    1: the same mask for every image. Empty masks do not count; None for fewer than two others.
    Beyond 200 masks every n-th counts.
    """
    filled = [np.ravel(mask) for mask in masks if np.any(mask)]
    filled = filled[:: max(1, math.ceil(len(filled) / MOST_PAIRED))]
    if len(filled) < 2:
        return None
    pixels = np.stack(filled).astype(np.float32)
    sizes = pixels.sum(1)
    pairs = 2 * (pixels @ pixels.T) / (sizes[:, None] + sizes)
    return float((pairs.sum() - len(pairs)) / (len(pairs) * (len(pairs) - 1)))
