"""Scores of a data set's predicted masks.

Of each class, their mean over the foreground classes, and in 3-D where images are slices of
volumes. Binary masks have the one foreground class 1, whose scores are then the mean as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.pixels import resize_mask
from .metrics import (
    ImageScores,
    bootstrap_interval,
    mean,
    mean_pairwise_dsc,
    score_image,
    spread,
    summarize,
    volume_dice,
)

AVERAGED = ("dsc", "hd95", "asd", "size_ratio", "size_correlation", "precision", "recall")
"""Scores of one class whose mean over the foreground classes is the data set's."""


@dataclass(frozen=True)
class DatasetScores:
    """Scores of a data set.

    Attributes:
        metrics: the part of metrics.json that the masks decide.
        per_image: foreground class -> the scores of each image, in the data set's order.
    """

    metrics: dict
    per_image: dict[int, list[ImageScores]]


def score_dataset(masks: Sequence[np.ndarray], dataset) -> DatasetScores:
    """Scores predicted full-size ``masks`` (uint8 class indices) against the data set's own.

    Distances are in mm only when every image has a spacing; otherwise all are in pixels. With
    classes ``dsc`` and its parts are of the volumes where the images are slices of any, else of the
    images; ``dsc_2d`` is of the images in both cases.

    Raises:
        ValueError: a predicted or true mask has another shape than its partner, or a class that
            the data set does not have.
    """
    foreground = range(1, dataset.classes or 2)
    truths = [np.asarray(dataset.full_mask(i)) for i in range(len(dataset.names))]
    for name, mask, truth in zip(dataset.names, masks, truths, strict=True):
        _check_indices(f"prediction of {name}", mask, len(foreground) + 1)
        _check_indices(f"truth of {name}", truth, len(foreground) + 1)
    in_mm = all(spacing is not None for spacing in dataset.spacings)
    per_image = {
        index: [
            score_image(mask == index, truth == index, spacing if in_mm else None)
            for mask, truth, spacing in zip(masks, truths, dataset.spacings, strict=True)
        ]
        for index in foreground
    }
    per_volume = {
        index: _volume_dsc(_volumes(dataset), index, masks, truths) for index in foreground
    }
    resized = [resize_mask(mask, dataset.size) for mask in masks]
    metrics = {
        **_over_classes(per_image),
        "distance_unit": "mm" if in_mm else "pixels",
        "dsc_per_image": dict(zip(dataset.names, _image_dsc(per_image), strict=True)),
        "mean_pairwise_dsc": _pairwise(resized, foreground),
        "mean_pairwise_dsc_of_masks": _pairwise(dataset.masks.numpy(), foreground),
        **_three_dimensional(per_volume),
    }
    if dataset.classes is not None:
        metrics |= _by_class(metrics, per_image, per_volume)
    return DatasetScores(metrics, per_image)


def _check_indices(argument: str, mask: np.ndarray, count: int) -> None:
    beyond = np.unique(mask)
    beyond = beyond[(beyond < 0) | (beyond >= count)]
    if beyond.size:
        raise ValueError(
            f"{argument}: wanted class indices 0 to {count - 1}, got {beyond[:5].tolist()}"
        )


def _over_classes(per_image: Mapping[int, Sequence[ImageScores]]) -> dict:
    """``summarize`` of one class; of several the mean over the classes in the place of each score.

    An image counts for ``images_with_distances`` if one of its classes has distances.
    """
    summaries = [summarize(scores) for scores in per_image.values()]
    dsc = _image_dsc(per_image)
    return {
        **summaries[0],
        **{key: mean(summary[key] for summary in summaries) for key in AVERAGED},
        "dsc_std": spread(dsc),
        "dsc_interval": bootstrap_interval(dsc),
        "images_with_distances": sum(
            any(score.hd95 is not None for score in scores)
            for scores in zip(*per_image.values(), strict=True)
        ),
    }


def _image_dsc(per_image: Mapping[int, Sequence[ImageScores]]) -> list[float]:
    """Each image's DSC, the mean over the classes."""
    return [mean(score.dsc for score in scores) for scores in zip(*per_image.values(), strict=True)]


def _pairwise(masks: Sequence[np.ndarray], foreground: range) -> float | None:
    return mean(mean_pairwise_dsc([mask == index for mask in masks]) for index in foreground)


def _volume_dsc(
    volumes: Mapping[str, Sequence[int]],
    index: int,
    masks: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
) -> dict[str, float]:
    """The DSC of one class in each volume."""
    return volume_dice(
        {name: [masks[i] == index for i in images] for name, images in volumes.items()},
        {name: [truths[i] == index for i in images] for name, images in volumes.items()},
    )


def _three_dimensional(per_volume: Mapping[int, Mapping[str, float]]) -> dict:
    """The mean over the classes of each volume, and over the volumes."""
    names = next(iter(per_volume.values()))
    dsc = {name: mean(scores[name] for scores in per_volume.values()) for name in names}
    return {"dsc_3d": mean(dsc.values()), "dsc_3d_per_volume": dsc or None}


def _by_class(
    metrics: Mapping,
    per_image: Mapping[int, Sequence[ImageScores]],
    per_volume: Mapping[int, Mapping[str, float]],
) -> dict:
    """What metrics.json has of each class, under its index as a string, and ``dsc`` of volumes."""
    summaries = {str(index): summarize(scores) for index, scores in per_image.items()}
    by_class = {
        f"{key}_per_class": {index: summary[key] for index, summary in summaries.items()}
        for key in (*AVERAGED, "images_with_distances")
    }
    by_class |= {
        "dsc_of": "images",
        "dsc_per_image_per_class": {
            name: {str(index): scores[i].dsc for index, scores in per_image.items()}
            for i, name in enumerate(metrics["dsc_per_image"])
        },
        "dsc_2d": metrics["dsc"],
        "dsc_2d_per_class": by_class["dsc_per_class"],
        "dsc_3d_per_class": None,
        "dsc_3d_per_volume_per_class": None,
    }
    volumes = metrics["dsc_3d_per_volume"]
    if volumes is None:
        return by_class
    of_volumes = {str(index): mean(dsc.values()) for index, dsc in per_volume.items()}
    return {
        **by_class,
        "dsc": metrics["dsc_3d"],
        "dsc_of": "volumes",
        "dsc_per_class": of_volumes,
        "dsc_std": spread(volumes.values()),
        "dsc_interval": bootstrap_interval(list(volumes.values())),
        "dsc_3d_per_class": of_volumes,
        "dsc_3d_per_volume_per_class": {
            name: {str(index): dsc[name] for index, dsc in per_volume.items()} for name in volumes
        },
    }


def _volumes(dataset) -> dict[str, list[int]]:
    """Volume -> its images; {} where every image is a volume of its own."""
    volumes: dict[str, list[int]] = {}
    for index, volume in enumerate(dataset.volumes):
        volumes.setdefault(volume, []).append(index)
    return volumes if any(len(indices) > 1 for indices in volumes.values()) else {}
