"""Scores of a trained run on a data set; nothing here draws, and only :meth:`write` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..data.dataset import load_split
from ..data.options import Slices
from ..data.pairing import finds_in_all, list_images, split_folder
from ..errors import UserError
from ..run import ScoreFolder
from ..versions import versions
from .metrics import ImageScores
from .predict import predict_masks, write_predictions
from .scores import score_dataset

SAME_MASK = "the predictions hardly differ from image to image"
NO_CLASS = "no mask holds class"


@dataclass(frozen=True)
class Evaluation:
    """What a network gave on a data set.

    Attributes:
        metrics: content of metrics.json.
        per_image: foreground class -> the scores of each image, in the data set's order.
        masks: predicted masks at each image's own size, uint8 class indices, in the same order.
    """

    metrics: dict
    per_image: dict[int, list[ImageScores]]
    masks: list[np.ndarray]

    def write(self, folder: ScoreFolder, dataset, draw: Callable[[], None]) -> None:
        """Write predictions, per_image.csv and, last, metrics.json, which marks a run as finished.

        Args:
            folder: where to.
            dataset: what was scored.
            draw: called before the end is marked; it makes the figures.
        """
        write_predictions(dataset, self.masks, folder.predictions)
        rows = list(self._rows(dataset))
        folder.save_per_image(list(rows[0]), rows)
        draw()
        folder.save_metrics(self.metrics)

    def _rows(self, dataset) -> Iterator[dict]:
        """Of per_image.csv: one for each image and, with classes, class."""
        for position, name in enumerate(dataset.names):
            for index, scores in self.per_image.items():
                of_class = {} if dataset.classes is None else {"class": index}
                yield {"name": name, **of_class, **asdict(scores[position])}


def score_run(trained, dataset, facts: Mapping) -> Evaluation:
    """Scores a ``training.TrainedRun`` on ``dataset`` at each image's own size.

    Args:
        trained: network and options.
        dataset: ``data.Dataset`` with masks.
        facts: what only the training knows: ``seconds``, ``annotation_ratio`` (fraction of the
            training pixels that are labelled), ``bounds`` ([a, b] in pixels or None), ``warnings``,
            and anything else worth keeping.

    Returns:
        Scores whose ``metrics`` are SPEC's metrics.json plus ``size_correlation``, ``dsc_std``,
        ``dsc_interval`` (bootstrap, 95 %, over images), ``images``, ``images_with_distances``,
        ``mean_pairwise_dsc`` and ``mean_pairwise_dsc_of_masks`` (between the predictions or masks
        of different images), ``dsc_3d`` and ``dsc_3d_per_volume`` (where images are slices of
        volumes). With classes every score is the mean over the foreground classes and has its parts
        beside it, ``dsc_per_class`` and so on (see :func:`.scores.score_dataset`). Scores 0 to 1,
        undefined values None.

    Raises:
        UserError: the data set has no masks, or they hold other classes than the run's.
    """
    if dataset.masks is None:
        raise UserError("evaluate: wanted images with masks, the data set has none")
    config = trained.config
    if dataset.classes != config.classes:
        raise UserError(
            f"evaluate: wanted masks read with classes {config.classes}, which the run was trained "
            f"with, got classes {dataset.classes}"
        )
    masks = list(predict_masks(trained, dataset))
    scores = score_dataset(masks, dataset)
    metrics = {**of_training(trained, facts), **scores.metrics}
    if dataset.class_names:
        metrics["class_names"] = list(dataset.class_names)
    earlier = [w for w in metrics["warnings"] if not w.startswith((SAME_MASK, NO_CLASS))]
    metrics["warnings"] = earlier + score_warnings(metrics)
    return Evaluation(metrics, scores.per_image, masks)


def of_training(trained, facts: Mapping) -> dict:
    """What metrics.json tells of the training, beside the scores; arguments as in score_run."""
    config = trained.config
    return {
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
        "versions": versions(),
    }


def score_warnings(metrics: Mapping) -> list[str]:
    """What a reader of the scores must know beside them.

    A warning where the predictions are more like the same mask than like the true ones, and one
    for each class that no mask holds.
    """
    absent = [
        index for index, ratio in metrics.get("size_ratio_per_class", {}).items() if ratio is None
    ]
    found = [
        f"{NO_CLASS} {index}: its DSC says only how seldom it is predicted, and the mean counts it"
        for index in absent
    ]
    pairs, masks = metrics["mean_pairwise_dsc"], metrics["mean_pairwise_dsc_of_masks"]
    if pairs is None or masks is None or pairs <= (1 + masks) / 2:
        return found
    return [
        f"{SAME_MASK} (mean Mean pairwise DSC {pairs:.2f}, between their masks {masks:.2f}): "
        "the network goes by the place rather than by the image; try --image-moves.shift 0.25",
        *found,
    ]


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
    patients: str | None = None,
    volumes: str | None = None,
):
    """The data set that a run of ``config`` is scored on, without weak labels.

    The options stand in for the training's own. Which value of a mask is the object counts on the
    training's data alone; the patterns that tell patients and volumes apart count on other data as
    well if they find something in every file name there. The classes are the network's.
    """
    root = data if data is not None else config.data
    masks = masks or config.masks
    mask_suffix = config.mask_suffix if mask_suffix is None else mask_suffix
    if data is None and mask_threshold is None and mask_value is None:
        mask_threshold, mask_value = config.mask_threshold, config.mask_value
    patterns = {"patients": patients, "volumes": volumes}
    for name, given in patterns.items():
        trained = getattr(config, name)
        if given is None and trained is not None:
            stems = list_images(split_folder(Path(root), split, masks), masks, mask_suffix)
            if data is None or finds_in_all(trained, stems):
                patterns[name] = trained
    return load_split(
        root,
        split,
        masks=masks,
        size=config.size,
        weak=None,
        mask_threshold=mask_threshold,
        mask_value=mask_value,
        classes=config.classes,
        mask_suffix=mask_suffix,
        slices=slices or config.slices,
        **patterns,
    )
