"""Scores of a trained run on a data set: metrics.json, per_image.csv and the predicted masks."""

from __future__ import annotations

import csv
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from accl_harness.data.fingerprint import RECORD, data_record, fingerprint, refuse_other_data
from accl_harness.data.options import Slices
from accl_harness.data.pixels import resize_mask
from accl_harness.errors import UserError
from accl_harness.evaluation.metrics import (
    ImageScores,
    likeness,
    mean,
    score_image,
    summarize,
    volume_dice,
)
from accl_harness.evaluation.predict import predict_masks, write_predictions

SAME_MASK = "the predictions hardly differ from image to image"
PACKAGES = ("accl_ext", "torch", "monai", "numpy", "lightning-fabric")


def evaluate_run(run, dataset, *, out: Path | None = None, training: Mapping | None = None) -> dict:
    """Scores `run` on `dataset` at each image's own size (threshold 0.5) and returns metrics.json.

    Args:
        run: run folder, or a `training.TrainedRun`.
        dataset: `data.Dataset` with masks.
        out: where to write `metrics.json`, `per_image.csv`, `predictions/` and `figures/` (worst
            cases; curves where `out` is the run itself); None writes nothing.
        training: what only the training knows and metrics.json must hold: `seconds`,
            `annotation_ratio` (fraction of the training pixels that are labelled), `bounds`
            ([a, b] in pixels or None), `warnings`, and anything else worth keeping. What is not
            given is taken from the run's own metrics.json, or is None.

    Returns:
        SPEC's metrics.json plus `size_correlation`, `dsc_std`, `dsc_interval` (bootstrap, 95 %,
        over images), `images`, `images_with_distances`, `likeness` and `likeness_of_masks` (mean
        DSC between the predictions, the true masks, of different images), `dsc_3d` and
        `dsc_3d_per_volume` (where images are slices of volumes). Scores 0 to 1, undefined values
        None.

    Raises:
        UserError: the data set has no masks.
    """
    from accl_harness.report.run import draw_run
    from accl_harness.training.inference import load_run

    if dataset.masks is None:
        raise UserError("evaluate: wanted images with masks, the data set has none")
    folder = run if isinstance(run, Path | str) else None
    trained = load_run(Path(run)) if folder is not None else run
    config = trained.config
    masks = list(predict_masks(trained, dataset))
    metrics = {
        "method": config.method,
        "seed": config.seed,
        "backend": config.backend,
        "device": str(trained.device),
        "epochs": config.epochs,
        **_training_facts(Path(folder or config.out), training),
        **score_dataset(masks, dataset),
        "versions": versions(),
    }
    metrics["warnings"] = [w for w in metrics["warnings"] if not w.startswith(SAME_MASK)]
    metrics["warnings"] += same_mask_warning(metrics)
    if out is not None:
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        write_predictions(dataset, masks, out / "predictions")
        _write_per_image(out / "per_image.csv", metrics)
        draw_run(out, metrics, dataset, masks)
        write_json(out / "metrics.json", {k: v for k, v in metrics.items() if k != "per_image"})
    return {key: value for key, value in metrics.items() if key != "per_image"}


def same_mask_warning(metrics: Mapping) -> list[str]:
    """A warning where the predictions are more like the same mask than like the true ones."""
    found, masks = metrics["likeness"], metrics["likeness_of_masks"]
    if found is None or masks is None or found <= (1 + masks) / 2:
        return []
    return [
        f"{SAME_MASK} (mean DSC between images {found:.2f}, between their masks {masks:.2f}): "
        "the network goes by the place rather than by the image; try --augment.shift 0.25"
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
        "likeness": likeness([resize_mask(mask, dataset.size) for mask in masks]),
        "likeness_of_masks": likeness(dataset.masks.numpy()),
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
    from accl_harness.data.dataset import load_split

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


def _training_facts(folder: Path, training: Mapping | None) -> dict:
    facts = {"seconds": None, "annotation_ratio": None, "bounds": None, "warnings": []}
    earlier = folder / "metrics.json"
    if earlier.is_file():
        known = json.loads(earlier.read_text())
        facts.update({key: known[key] for key in facts if key in known})
    facts.update(training or {})
    return facts


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a score."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            # A source tree on the path has no metadata, but its module knows.
            module = sys.modules.get(package)
            found[package] = getattr(module, "__version__", "not installed")
    return found


def write_json(path: Path, content: Mapping) -> None:
    """Writes `content` whole or not at all; a NaN in it is an error, never a file."""
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _write_per_image(path: Path, metrics: Mapping) -> None:
    columns = ["name", *(field.name for field in fields(ImageScores))]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for name, scores in metrics["per_image"].items():
            writer.writerow({"name": name, **asdict(scores)})


def evaluate(
    run: Path,
    data: Path | None = None,
    *,
    split: str = "test",
    masks: str | None = None,
    mask_threshold: float | None = None,
    mask_value: int | None = None,
    mask_suffix: str | None = None,
    slices: Slices | None = None,
    out: Path | None = None,
) -> dict:
    """`accl evaluate`: scores a run on `data/split` and prints the scores.

    Args:
        run: run folder of a finished or interrupted training.
        data: data set root; None scores on the data of the training.
        split: `test` or `train`.
        masks: name of the mask folder; None keeps the training's.
        mask_threshold: mask values above it are the object; None keeps the training's on the
            training's data and wants masks of 0 and one other value elsewhere.
        mask_value: mask values equal to it are the object; None as for `mask_threshold`.
        mask_suffix: what the masks' names have behind the images'; None keeps the training's.
        slices: axis of a volume's slices; None keeps the training's.
        out: folder for metrics.json, per_image.csv and predictions/; None writes to
            `RUN/evaluation/<data>-<split>`, so the training's own metrics.json stays.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: no run, bad data, `out` is the run folder itself or holds the scores of other
            data.
    """
    from accl_harness.config import load_config
    from accl_harness.training.checkpoint import write_atomically

    config = load_config(Path(run) / "config.yaml")
    root = Path(data if data is not None else config.data)
    if out is not None and Path(out).resolve() == Path(run).resolve():
        raise UserError(f"--out: {out} is the run itself, whose own scores would be lost")
    if mask_threshold is not None and mask_value is not None:
        raise UserError("mask_threshold and mask_value both choose the object; give one of them")
    dataset = load_test(
        config,
        data,
        split=split,
        masks=masks,
        mask_threshold=mask_threshold,
        mask_value=mask_value,
        mask_suffix=mask_suffix,
        slices=slices,
    )
    digest = fingerprint(root, masks or config.masks)
    target = Path(out) if out is not None else Path(run) / "evaluation" / f"{root.name}-{split}"
    refuse_other_data(target, root, digest)
    metrics = evaluate_run(Path(run), dataset, out=target)
    write_atomically(target / RECORD, data_record(root, digest))
    _print_scores(metrics, dataset, target)
    return metrics


def _print_scores(metrics: Mapping, dataset, target: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    def percent(value):
        return "-" if value is None else f"{100 * value:.1f}"

    table = Table(title=f"{metrics['method']}, seed {metrics['seed']}: {metrics['images']} images")
    table.add_column("score")
    table.add_column("value", justify="right")
    low, high = metrics["dsc_interval"] or (None, None)
    table.add_row("DSC x100", percent(metrics["dsc"]))
    table.add_row("  95 % interval over images", f"{percent(low)} to {percent(high)}")
    if metrics["dsc_3d"] is not None:
        table.add_row("DSC x100 by volume", percent(metrics["dsc_3d"]))
    for key in ("hd95", "asd"):
        value = "-" if metrics[key] is None else f"{metrics[key]:.2f}"
        table.add_row(f"{key.upper()} ({metrics['distance_unit']})", value)
    table.add_row("precision x100", percent(metrics["precision"]))
    table.add_row("recall x100", percent(metrics["recall"]))
    ratio = metrics["size_ratio"]
    table.add_row("size ratio", "-" if ratio is None else f"{ratio:.2f}")
    rank = metrics["size_correlation"]
    table.add_row("rank correlation of sizes", "-" if rank is None else f"{rank:.2f}")
    if metrics["likeness"] is not None:
        table.add_row("DSC between predictions x100", percent(metrics["likeness"]))
        table.add_row("DSC between true masks x100", percent(metrics["likeness_of_masks"]))
    console = Console()
    console.print(table)
    for warning in same_mask_warning(metrics):
        console.print(warning, style="yellow")
    if not any(np.any(dataset.full_mask(i)) for i in range(len(dataset.names))):
        console.print("no mask holds an object: DSC 1 means that nothing was predicted, no more")
    console.print(f"written to {target}", highlight=False, soft_wrap=True)
