"""metrics.csv, TensorBoard, and the warnings that an epoch's figures give reason for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..errors import HarnessWarning
from ..run import Run
from ..terms import TERMS, Term, terms_of
from ..versions import is_installed


def _columns(terms: Iterable[type[Term]]) -> tuple[str, ...]:
    return tuple(name for term in terms for name in (term.name, *term.others))


COLUMNS = (
    *("epoch", "seconds", "lr", "loss_g"),
    *_columns(term for term in TERMS if term.always),
    *("size_ratio", "dsc"),
)
LOSSES = ("loss_g", *_columns(TERMS))
"""Of a row, None where a term is off."""
Row = dict[str, float | int | None]


def columns_of(config: TrainConfig) -> tuple[str, ...]:
    """The columns of a run's metrics.csv: with several classes also each one's."""
    kinds = range(1, config.foregrounds + 1) if config.classes is not None else ()
    each = [f"{name}_{kind}" for name in ("size_ratio", "dsc") for kind in kinds]
    return (*COLUMNS, *_columns(term for term in terms_of(config) if not term.always), *each)


class Curves:
    """One row an epoch in the run's metrics.csv and the same values for TensorBoard.

    Args:
        run: the run.
        epoch: the epoch of the checkpoint that the run goes on from (0: a new run). Rows of later
            epochs, written by a process that was killed before its next checkpoint, are dropped.
        tensorboard: write event files as well; None: where TensorBoard is installed. Where that
            fails, it costs the event files alone.
        columns: of metrics.csv.
    """

    def __init__(
        self, run: Run, epoch: int, tensorboard: bool | None, columns: Sequence[str] = COLUMNS
    ):
        self.run, self.columns = run, columns
        run.save_rows(columns, [row for row in run.rows() if int(row["epoch"]) <= epoch])
        self._writer = None
        if is_installed("tensorboard") if tensorboard is None else tensorboard:
            with self._tensorboard():
                self._writer = _summary_writer(run.tensorboard, epoch)

    def add(self, row: Row) -> None:
        """Append the row of an epoch; undefined values are left empty."""
        self.run.add_row(self.columns, row)
        if self._writer is None:
            return
        with self._tensorboard():
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self._writer.add_scalar(name, value, row["epoch"])
            self._writer.flush()

    def close(self) -> None:
        """Write what TensorBoard still holds back."""
        if self._writer is not None:
            with self._tensorboard():
                self._writer.close()

    @contextmanager
    def _tensorboard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._writer = None
            text = f"no event files for TensorBoard: {type(error).__name__}: {error}"
            warnings.warn(text, HarnessWarning, stacklevel=3)


class Watch:
    """Warns, once each, when a training goes a way that it seldom comes back from.

    Args:
        epochs: length of the run; the foreground is judged from its second quarter on.
        issued: warnings given before the run was interrupted.
        accl, size: whether the method has an alpha, a size weight, that the advice can name.
        classes: of the run; each object class of several is watched by itself.
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
        classes: int | None = None,
    ):
        self.watched = {"the foreground": "size_ratio"}
        if classes is not None:
            self.watched = {f"class {k}": f"size_ratio_{k}" for k in range(1, classes)}
        self.first_judged = epochs // 4 + 1
        self.issued = list(issued or [])
        weights = [name for name, on in (("alpha", accl), ("the size weight", size)) if on]
        self._against_flood = f", or raise {' or '.join(weights)}" if weights else ""
        self._against_loss = ", or lower alpha" if accl else ""

    def check(self, row: Row) -> list[str]:
        """The new warnings that an epoch's row gives."""
        found = []
        loss_d, epoch = row["loss_d"], row["epoch"]
        if loss_d is not None and loss_d < self.COLLAPSED:
            found.append(
                "the discriminator's loss fell below 0.01: it tells all masks apart and hardly "
                "guides the segmentation any more; raise alpha (try 1), or lower lr"
            )
        loss = row["loss_g"]
        if loss is not None and not math.isfinite(loss):
            found.append("the loss is not finite: lower lr, or use precision 32")
        for name, column in self.watched.items() if epoch >= self.first_judged else ():
            ratio = row[column]
            if ratio is not None and ratio > self.FLOODED:
                found.append(
                    f"{name} floods: more than 3 times as many pixels are predicted as the "
                    f"masks hold; lower prior{self._against_flood}"
                )
            elif ratio is not None and ratio < self.VANISHED:
                found.append(
                    f"{name} vanishes: less than a tenth of the pixels that the masks hold "
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
