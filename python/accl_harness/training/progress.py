"""What a person sees while a training runs: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import time

from rich import progress
from rich.console import Console

from ..config import TrainConfig
from .curves import Row

WARM_UP, TIMED = 3, 10
"""Steps before the clock starts (they load code and fill caches), and steps that are timed."""


class Progress:
    """A bar over all steps with the latest epoch's figures; a few lines where no terminal is.

    Args:
        config: its method, seed and epochs are shown.
        steps: steps of an epoch.
        visible: False shows nothing (other processes, quiet runs).
    """

    def __init__(self, config: TrainConfig, steps: int, visible: bool):
        self.config = config
        self.steps = steps
        self.console = Console(stderr=True, quiet=not visible)
        self._steps_left = self._seen = 0
        self._since = 0.0
        self._bar = None
        if visible and self.console.is_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("epoch {task.fields[epoch]}"),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[figures]}"),
                console=self.console,
                refresh_per_second=4,
            )

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, epoch: int) -> None:
        """Begin after ``epoch`` epochs that are done already."""
        self._steps_left = (self.config.epochs - epoch) * self.steps
        if self._bar is not None:
            epochs = self.config.epochs
            self._task = self._bar.add_task(
                f"{self.config.method} seed {self.config.seed}",
                total=epochs * self.steps,
                completed=epoch * self.steps,
                epoch=f"{epoch}/{epochs}",
                figures="",
            )
        elif epoch:
            self.say(f"goes on after epoch {epoch}")

    def step(self) -> None:
        """Count a step; after a few of them say how long the whole training will take."""
        if self._bar is not None:
            self._bar.advance(self._task)
        self._seen += 1
        if self._seen == WARM_UP:
            self._since = time.perf_counter()
        elif self._seen == WARM_UP + TIMED:
            each = (time.perf_counter() - self._since) / TIMED
            left = self._steps_left - self._seen
            if left > 0:
                self.say(
                    f"about {_duration(left * each)} to go: {left} steps of {1e3 * each:.0f} ms"
                )

    def epoch(self, row: Row) -> None:
        """Show an epoch's figures: always on a terminal, about 20 times a run in a log."""
        epoch, epochs = row["epoch"], self.config.epochs
        if self._bar is not None:
            self._bar.update(self._task, epoch=f"{epoch}/{epochs}", figures=_figures(row))
        elif epoch % max(1, epochs // 20) == 0 or epoch == epochs:
            self.say(f"epoch {epoch}/{epochs} {row['seconds']:.1f} s, {_figures(row)}")

    def say(self, text: str) -> None:
        """Print a line that begins with the run's name."""
        name = f"{self.config.method} seed {self.config.seed}"
        self.console.print(f"{name}: {text}", highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.say(f"warning: {text}")


def _duration(seconds: float) -> str:
    """In words, as exact as an estimate can be."""
    if seconds < 60:
        return "a minute" if seconds > 30 else "half a minute"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{minutes / 60:.1f} hours"


def _figures(row: Row) -> str:
    figures = [
        f"{name} {row[key]:.3g}"
        for name, key in (
            ("loss", "loss_g"),
            ("D", "loss_d"),
            ("size ratio", "size_ratio"),
            ("DSC", "dsc"),
        )
        if row[key] is not None
    ]
    return ", ".join(figures)
