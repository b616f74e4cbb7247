"""Scores of a trained run on a data set; nothing here draws, and only :meth:`write` writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from ..data.options import Slices
from ..data.pixels import resize_mask
from ..errors import UserError
from ..run import ScoreFolder
from ..versions import versions
from .metrics import (
    ImageScores,
    mean,
    mean_pairwise_dsc,
    score_image,
    summarize,
    volume_dice,
)
from .predict import predict_masks, write_predictions

SAME_MASK = "the predictions hardly differ from image to image"


@dataclass(frozen=True)
class Evaluation:
    """What a network gave on a data set.

    Attributes:
        metrics: content of metrics.json.
        per_image: image name -> its scores.
        masks: predicted masks at each image's own size, uint8 {0, 1}, in the data set's order.
    """

    metrics: dict
    per_image: dict[str, ImageScores]
    masks: list[np.ndarray]

    def write(self, folder: ScoreFolder, dataset, draw: Callable[[], None]) -> None:
        """Write predictions, per_image.csv and, last, metrics.json, which marks a run as finished.

        Args:
            folder: where to.
            dataset: what was scored.
            draw: called before the end is marked; it makes the figures.
        """
        write_predictions(dataset, self.masks, folder.predictions)
        columns = ["name", *(field.name for field in fields(ImageScores))]
        rows = ({"name": name, **asdict(scores)} for name, scores in self.per_image.items())
        folder.save_per_image(columns, rows)
        draw()
        folder.save_metrics(self.metrics)


def score_run(trained, dataset, facts: Mapping) -> Evaluation:
    """Scores a `training.TrainedRun` on `dataset` at each image's own size (threshold 0.5).

    Args:
        trained: network and options.
        dataset: `data.Dataset` with masks.
        facts: what only the training knows: `seconds`, `annotation_ratio` (fraction of the training
            pixels that are labelled), `bounds` ([a, b] in pixels or None), `warnings`, and anything
            else worth keeping.

    Returns:
        Scores whose `metrics` are SPEC's metrics.json plus `size_correlation`, `dsc_std`,
        `dsc_interval` (bootstrap, 95 %, over images), `images`, `images_with_distances`,
        `mean_pairwise_dsc` and `mean_pairwise_dsc_of_masks` (between the predictions or masks of
        different images), `dsc_3d` and `dsc_3d_per_volume` (where images are slices of volumes).
        Scores 0 to 1, undefined values None.

    Raises:
        UserError: the data set has no masks.
    """
    if dataset.masks is None:
        raise UserError("evaluate: wanted images with masks, the data set has none")
    config = trained.config
    masks = list(predict_masks(trained, dataset))
    metrics = {
        "method": config.method,
        "seed": config.seed,
        "backend": config.backend,
        "device": str(trained.device),
        "epochs": config.epochs,
        "seconds": None,
        "annotation_ratio": None,
        "bounds": None,
        "warnings": [],
        **facts,
        **score_dataset(masks, dataset),
        "versions": versions(),
    }
    per_image = metrics.pop("per_image")
    metrics["warnings"] = [w for w in metrics["warnings"] if not w.startswith(SAME_MASK)]
    metrics["warnings"] += same_mask_warning(metrics)
    return Evaluation(metrics, per_image, masks)


def same_mask_warning(metrics: Mapping) -> list[str]:
    """A warning where the predictions are more like the same mask than like the true ones."""
    found, masks = metrics["mean_pairwise_dsc"], metrics["mean_pairwise_dsc_of_masks"]
    if found is None or masks is None or found <= (1 + masks) / 2:
        return []
    return [
        f"{SAME_MASK} (mean Mean pairwise DSC {found:.2f}, between their masks {masks:.2f}): "
        "the network goes by the place rather than by the image; try --image-moves.shift 0.25"
    ]


def score_dataset(masks: list[np.ndarray], dataset) -> dict:
    """Scores predicted full-size `masks` (uint8 {0, 1}) against the data set's own.

    Distances are in mm only when every image has a spacing; otherwise all are in pixels.
    """
    truths = [np.asarray(dataset.full_mask(i)) for i in range(len(dataset.names))]
    in_mm = all(spacing is not None for spacing in dataset.spacings)
    scores = [
        score_image(mask, truth, spacing if in_mm else None)
        for mask, truth, spacing in zip(masks, truths, dataset.spacings, strict=True)
    ]
    volumes = _volumes(dataset)
    per_volume = volume_dice(
        {name: [masks[i] for i in indices] for name, indices in volumes.items()},
        {name: [truths[i] for i in indices] for name, indices in volumes.items()},
    )
    return {
        **summarize(scores),
        "distance_unit": "mm" if in_mm else "pixels",
        "dsc_per_image": dict(zip(dataset.names, (score.dsc for score in scores), strict=True)),
        "mean_pairwise_dsc": mean_pairwise_dsc([resize_mask(mask, dataset.size) for mask in masks]),
        "mean_pairwise_dsc_of_masks": mean_pairwise_dsc(dataset.masks.numpy()),
        "dsc_3d": mean(per_volume.values()),
        "dsc_3d_per_volume": per_volume or None,
        "per_image": dict(zip(dataset.names, scores, strict=True)),
    }


def load_test(
    config,
    data: Path | None = None,
    *,
    split: str = "test",
    masks: str | None = None,
    mask_threshold: float | None = None,
    mask_value: int | None = None,
    mask_suffix: str | None = None,
    slices: Slices | None = None,
):
    """The data set that a run of `config` is scored on, without weak labels.

    The options stand in for the training's own. Which value of a mask is the object, and the
    pattern that tells patients apart, count on the training's data alone.
    """
    from ..data.dataset import load_split

    if data is None and mask_threshold is None and mask_value is None:
        mask_threshold, mask_value = config.mask_threshold, config.mask_value
    return load_split(
        data if data is not None else config.data,
        split,
        masks=masks or config.masks,
        size=config.size,
        weak=None,
        mask_threshold=mask_threshold,
        mask_value=mask_value,
        mask_suffix=config.mask_suffix if mask_suffix is None else mask_suffix,
        slices=slices or config.slices,
        patients=config.patients if data is None else None,
    )


def _volumes(dataset) -> dict[str, list[int]]:
    """Volume (or patient, where the images are single slices) -> its images; {} without any."""
    volumes: dict[str, list[int]] = {}
    for index, (source, group) in enumerate(zip(dataset.sources, dataset.groups, strict=True)):
        in_volume = source is not None and source.slice_index is not None
        volumes.setdefault(source.path.name if in_volume else group, []).append(index)
    return volumes if any(len(indices) > 1 for indices in volumes.values()) else {}
