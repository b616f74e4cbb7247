"""The figures of one run: its worst cases and its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.class_names import read_class_names
from ..run import Run
from .curves import training_curves
from .figures import Case, drawn, panel, prediction_page, worst_cases
from .paper import METHOD_LABELS

WORST = 6


def draw_run(out: Path, metrics: Mapping, dataset, masks: Sequence[np.ndarray]) -> None:
    """Write ``figures/worst.png``, and ``figures/curves.png`` where ``out`` holds a metrics.csv.

    A figure that cannot be drawn is left out with a warning.

    Args:
        out: run or evaluation folder.
        metrics: content of its metrics.json.
        dataset: the images that were scored, with masks.
        masks: the predicted mask of each at its own size, uint8 class indices.
    """
    run = Run(out)
    drawn(worst_panel, run.figures / "worst.png", metrics, dataset, masks)
    draw_curves(run, metrics["method"])


def draw_curves(run: Run, method: str) -> None:
    """Write ``figures/curves.png`` where the folder holds a metrics.csv."""
    rows = run.curves()
    if rows:
        runs = {method: [rows]}
        about = {"labels": METHOD_LABELS, "names": read_class_names(run.folder)}
        drawn(training_curves, runs, run.figures / "curves.png", **about)


def worst_panel(path: Path, metrics: Mapping, dataset, masks: Sequence[np.ndarray]) -> Path:
    """Write the images with the lowest DSC, the worst first; arguments as in ``draw_run``."""
    method, dsc = metrics["method"], metrics["dsc_per_image"]
    label = METHOD_LABELS[method]
    cases = []
    for name in worst_cases(dsc, WORST):
        index = dataset.names.index(name)
        image, truth = dataset.full_image(index), dataset.full_mask(index)
        found = {method: masks[index]}
        about = dataset.classes, dataset.class_names
        cases.append(Case(name, image, truth, found, {method: dsc[name]}, *about))
    title = f"{label}, seed {metrics['seed']}: worst cases"
    return panel(cases, {method: label}, path, title=title)


def draw_predictions(out: Path, dataset, masks: Sequence[np.ndarray]) -> None:
    """Write for each image of ``dataset`` a PNG of it and of its predicted mask, named after it.

    Args:
        out: folder for them.
        dataset: the images; masks are not needed.
        masks: the predicted mask of each at its own size, uint8 class indices.
    """
    for index, (name, mask) in enumerate(zip(dataset.names, masks, strict=True)):
        path, classes = out / f"{name}.png", dataset.classes
        named = {"classes": classes, "names": dataset.class_names, "title": name}
        prediction_page(dataset.full_image(index), mask, path, **named)
