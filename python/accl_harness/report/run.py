"""The figures of one run: its worst cases and its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from accl_harness.report.curves import read_curves, training_curves
from accl_harness.report.figures import Case, panel, worst_cases
from accl_harness.report.paper import METHOD_LABELS

WORST = 6


def draw_run(out: Path, metrics: Mapping, dataset, masks: Sequence[np.ndarray]) -> None:
    """Writes `figures/worst.png`, and `figures/curves.png` where `out` holds a metrics.csv.

    Args:
        out: run or evaluation folder.
        metrics: content of its metrics.json.
        dataset: the images that were scored, with masks.
        masks: the predicted mask of each at its own size, uint8 {0, 1}.
    """
    method, dsc = metrics["method"], metrics["dsc_per_image"]
    label = METHOD_LABELS[method]
    cases = []
    for name in worst_cases(dsc, WORST):
        index = dataset.names.index(name)
        image, truth = dataset.full_image(index), dataset.full_mask(index)
        cases.append(Case(name, image, truth, {method: masks[index]}, {method: dsc[name]}))
    title = f"{label}, seed {metrics['seed']}: worst cases"
    panel(cases, {method: label}, out / "figures" / "worst.png", title=title)
    if (out / "metrics.csv").is_file():
        runs = {method: [read_curves(out / "metrics.csv")]}
        training_curves(runs, out / "figures" / "curves.png", labels=METHOD_LABELS)
