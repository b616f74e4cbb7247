"""metrics.csv, TensorBoard, and the warnings that an epoch's figures give reason for."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from .checkpoint import write_atomically

COLUMNS = (
    "epoch",
    "seconds",
    "lr",
    "loss_g",
    "partial_ce",
    "size_penalty",
    "accl",
    "loss_d",
    "d_real",
    "d_fake",
    "size_prior",
    "crf",
    "size_ratio",
    "dsc",
)
Row = dict[str, float | int | None]


class Curves:
    """One row an epoch in ``RUN/metrics.csv`` and the same values for TensorBoard.

    Args:
        run: the run folder.
        epoch: the epoch of the checkpoint that the run goes on from (0: a new run). Rows of later
            epochs, written by a process that was killed before its next checkpoint, are dropped.
        tensorboard: write event files to ``RUN/tensorboard``.
    """

    def __init__(self, run: Path, epoch: int, tensorboard: bool):
        self.path = run / "metrics.csv"
        rows = [row for row in read_rows(self.path) if int(row["epoch"]) <= epoch]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path, text.getvalue().encode())
        self._writer = _summary_writer(run / "tensorboard", epoch) if tensorboard else None

    def add(self, row: Row) -> None:
        """Append the row of an epoch; undefined values are left empty."""
        values = ["" if row[name] is None else row[name] for name in COLUMNS]
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(values)
        if self._writer is not None:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self._writer.add_scalar(name, value, row["epoch"])
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The complete rows of a metrics.csv; [] where there is none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [row for row in csv.DictReader(lines) if row["epoch"] and None not in row.values()]


class Watch:
    """Warns, once each, when a training goes a way that it seldom comes back from.

    Args:
        epochs: length of the run; the foreground is judged from its second quarter on.
        issued: warnings given before the run was interrupted.
        accl, size: whether the method has an alpha, a size weight, that the advice can name.
    """

    COLLAPSED = 1e-2
    FLOODED = 3.0
    VANISHED = 0.1

    def __init__(
        self,
        epochs: int,
        issued: list[str] | None = None,
        *,
        accl: bool = False,
        size: bool = False,
    ):
        self.first_judged = epochs // 4 + 1
        self.issued = list(issued or [])
        weights = [name for name, on in (("alpha", accl), ("the size weight", size)) if on]
        self._against_flood = f", or raise {' or '.join(weights)}" if weights else ""
        self._against_loss = ", or lower alpha" if accl else ""

    def check(self, row: Row) -> list[str]:
        """The new warnings that an epoch's row gives."""
        found = []
        loss_d, ratio, epoch = row["loss_d"], row["size_ratio"], row["epoch"]
        if loss_d is not None and loss_d < self.COLLAPSED:
            found.append(
                "the discriminator's loss fell below 0.01: it tells all masks apart and hardly "
                "guides the segmentation any more; raise alpha (try 1), or lower lr"
            )
        loss = row["loss_g"]
        if loss is not None and not math.isfinite(loss):
            found.append("the loss is not finite: lower lr, or use precision 32")
        if ratio is not None and epoch >= self.first_judged:
            if ratio > self.FLOODED:
                found.append(
                    "the foreground floods: more than 3 times as many pixels are predicted as the "
                    f"masks hold; lower prior{self._against_flood}"
                )
            elif ratio < self.VANISHED:
                found.append(
                    "the foreground vanishes: less than a tenth of the pixels that the masks hold "
                    f"is predicted; raise prior{self._against_loss}"
                )
        return self.note(found)

    def note(self, warnings: list[str]) -> list[str]:
        """Those of ``warnings`` that were not given before."""
        new = [warning for warning in warnings if warning not in self.issued]
        self.issued += new
        return new


def _summary_writer(folder: Path, epoch: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=epoch + 1 if epoch else None)
