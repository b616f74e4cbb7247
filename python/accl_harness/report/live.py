"""report.html of one run, for a browser while it trains: no server, the page reads itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..data.class_names import read_class_names
from ..run import Run
from ..storage import folder_name, write_text
from . import html
from .figures import drawn, marks_panel
from .paper import METHOD_LABELS
from .single import draw_curves
from .table import Sheet

SHOWN = 6
REFRESH = 20
"""Seconds after which the browser reads the page again."""
SHARE = 20
"""The page takes at most one part in so many of the time."""


class LiveReport:
    """Writes ``report.html`` into a run's folder while it trains, and once more at its end.

    Called with the row of each epoch. The first page is there after the first epoch; the others
    follow as often as costs a twentieth of the time at most.

    Args:
        run: the folder.
        config: of the training.
        images: a ``data.Dataset`` with weak labels, of which the same six are always shown.
        predict: class indices [H, W] of the images of a data set, at their working size.
    """

    def __init__(
        self,
        run: Run,
        config: TrainConfig,
        images: Any,
        predict: Callable[[Any], Sequence[np.ndarray]],
    ):
        count = min(SHOWN, len(images))
        chosen = np.linspace(0, len(images) - 1, count).round().astype(int)
        self.run, self.config, self.predict = run, config, predict
        self.images = images.subset(chosen)
        self._next = 0.0

    def __call__(self, row: Mapping[str, float]) -> None:
        """Write the page of an epoch, if it is due."""
        begun = time.monotonic()
        if begun < self._next or row["epoch"] >= self.config.all_epochs:
            return
        self.write(int(row["epoch"]))
        ended = time.monotonic()
        self._next = ended + SHARE * (ended - begun)

    def write(self, epoch: int, warnings: Sequence[str] = (), scores: Sheet | None = None) -> None:
        """Write the page.

        Args:
            epoch: that has been trained.
            warnings: what went wrong.
            scores: of the test images, at the end.
        """
        config, figures = self.config, self.run.figures
        ended = epoch >= config.all_epochs
        data = folder_name(config.data)
        title = f"{METHOD_LABELS[config.method]} on {data}, seed {config.seed}"
        lead = f"Epoch {epoch} of {config.all_epochs}."
        if not ended:
            lead += f" This page reads itself again every {REFRESH} seconds."
        draw_curves(self.run, config.method)
        curves = figures / "curves.png"
        blocks = [
            html.warnings(warnings),
            *([html.heading("Test images"), html.table(scores)] if scores else []),
            html.heading("Training"),
            html.figure(
                curves if curves.is_file() else None,
                "DSC and size ratio are taken on training images in passing (on validation images "
                "where a share is set aside), so they are no test scores.",
            ),
            html.heading("The same images every time"),
            html.figure(
                drawn(self._panel, figures / "progress.png"),
                f"Prediction after epoch {epoch}. Images of "
                + ("the validation share." if config.validation else "the training."),
            ),
        ]
        if ended and (figures / "worst.png").is_file():
            caption = "Test images with the lowest DSC."
            blocks += [html.heading("Worst cases"), html.figure(figures / "worst.png", caption)]
        text = html.page(title, lead, blocks, None if ended else REFRESH)
        write_text(self.run.folder / "report.html", text)

    def _panel(self, path: Path) -> Path:
        images = self.images
        marks = images.weak_labels if images.weak_labels is not None else images.masks
        return marks_panel(
            [image.mean(0).numpy() for image in images.images],
            list(marks.numpy()),
            self.predict(images),
            path,
            classes=images.classes,
            names=read_class_names(self.run.folder),
        )
