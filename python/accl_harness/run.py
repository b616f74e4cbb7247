"""A run's folder: what is in it, and the one place that writes it and reads it back.

    config.yaml       the options                    metrics.json    the scores; marks the end
    data.json         which data it belongs to       per_image.csv   the scores of each image
    metrics.csv       a row of figures an epoch      predictions/    the masks of the test images
    checkpoints/      networks and optimisers        figures/, tensorboard/
    first_stage/      scores and masks of the first of two stages
    classes.yaml      the names of the classes       report.html     of accl train

Files of earlier versions stay readable.
"""

from __future__ import annotations

import csv
import io
import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from .config import TrainConfig
from .config_file import config_content, config_of_content, load_config, save_config
from .data.class_names import read_class_names, write_class_names
from .errors import Damaged, HarnessWarning, UserError
from .storage import (
    append,
    is_empty,
    locked,
    read_json,
    write_atomically,
    write_json,
    write_text,
)

FORMAT = 1
"""Of the checkpoints."""
RENAMED = {
    "likeness": "mean_pairwise_dsc",
    "likeness_of_masks": "mean_pairwise_dsc_of_masks",
}
"""Scores in the metrics.json of earlier versions, and what they are called now."""
LONGEST = 10_000
"""Characters of a line of metrics.csv; a longer one is garbled."""


class ScoreFolder:
    """Scores of a run on one data set: metrics.json, per_image.csv, masks and figures."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.metrics_file = self.folder / "metrics.json"
        self.per_image_file = self.folder / "per_image.csv"
        self.data_file = self.folder / "data.json"
        self.predictions = self.folder / "predictions"
        self.figures = self.folder / "figures"

    def metrics(self) -> dict[str, Any] | None:
        """Content of metrics.json; None before there are scores, or where the file is damaged.

        Damaged scores are worth no error: they are made again from the checkpoint.
        """
        try:
            content = read_json(self.metrics_file)
        except FileNotFoundError:
            return None
        except Damaged as error:
            warnings.warn(f"{error}: the scores are made again", HarnessWarning, stacklevel=2)
            return None
        if not isinstance(content, dict):
            return None
        return {RENAMED.get(name, name): value for name, value in content.items()}

    def save_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json, which marks a run as finished."""
        write_json(self.metrics_file, metrics)

    def save_per_image(self, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
        """Write per_image.csv; None becomes an empty cell."""
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.per_image_file, text.getvalue())

    def record_data(self, root: str | Path, digest: str) -> None:
        """Write data.json: which files these scores, or this training, belong to.

        The names of the classes, where the data set has some, go to classes.yaml.
        """
        write_json(self.data_file, {"data": str(root), "fingerprint": digest})
        names = read_class_names(root)
        if names is not None:
            write_class_names(self.folder, names)

    def refuse_other_data(self, root: str | Path, digest: str) -> None:
        """Refuse a folder that is of other files than those behind ``digest``.

        A folder of an earlier version has no record and passes.

        Raises:
            UserError: it is of other files.
            Damaged: the record is not whole.
        """
        advice = (
            f"it says which data {self.folder} belongs to; if those are the files in {root}, "
            "delete it and give the same command again"
        )
        try:
            record = read_json(self.data_file)
            known, earlier = record["fingerprint"], record["data"]
        except FileNotFoundError:
            return
        except Damaged as error:
            raise Damaged(error.path, error.found, advice) from error
        except (TypeError, KeyError) as error:
            raise Damaged(self.data_file, "is damaged (it has no fingerprint)", advice) from error
        if known != digest:
            raise UserError(
                f"{self.folder} belongs to other images, masks or weak labels ({earlier}) than "
                f"{root} holds now: give another --out"
            )


class Run(ScoreFolder):
    """The folder of one training."""

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        self.config_file = self.folder / "config.yaml"
        self.curves_file = self.folder / "metrics.csv"
        self.tensorboard = self.folder / "tensorboard"
        self.checkpoint = self.folder / "checkpoints" / "last.pt"
        self.previous_checkpoint = self.folder / "checkpoints" / "previous.pt"
        self.first_stage = self.folder / "checkpoints" / "first_stage.pt"

    @property
    def is_empty(self) -> bool:
        """Whether nothing is there yet."""
        return is_empty(self.folder)

    @property
    def is_finished(self) -> bool:
        """Whether it has its scores."""
        return self.metrics() is not None

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from, which may still turn out to be damaged."""
        return self.checkpoint.is_file() or self.previous_checkpoint.is_file()

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder, so that two processes never train into it at once."""
        return locked(
            self.folder,
            f"another process is training in {self.folder}: wait until it ends, or give another "
            "--out",
        )

    def save_config(self, config: TrainConfig) -> None:
        """Write config.yaml."""
        save_config(config, self.config_file)

    def config(self) -> TrainConfig:
        """The run's options; where config.yaml is damaged, those that its checkpoint holds.

        Raises:
            UserError: no run there, or options of another version.
            Damaged: the file is damaged, and no checkpoint holds the options.
        """
        try:
            return load_config(self.config_file)
        except Damaged as error:
            content = (self.load_checkpoint() or {}).get("config")
            if content is None:
                advice = "put a copy in its place, or give another --out and train anew"
                raise Damaged(error.path, error.found, advice) from error
            warnings.warn(f"{error}: the checkpoint's options count", HarnessWarning, stacklevel=2)
            return config_of_content(content).replace(out=str(self.folder))

    def rows(self) -> list[dict[str, str]]:
        """The whole rows of metrics.csv as they were written; [] where there is none.

        Rows that a kill or a power cut left cut short or garbled are left out.
        """
        try:
            text = self.curves_file.read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        reader = csv.DictReader(line for line in lines if "\0" not in line and len(line) < LONGEST)
        return [row for row in reader if None not in row.values() and _is_epoch(row.get("epoch"))]

    def curves(self) -> list[dict[str, float]]:
        """The rows of metrics.csv as numbers; an empty cell becomes NaN."""
        return [{key: _number(cell) for key, cell in row.items() if key} for row in self.rows()]

    def save_rows(self, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace metrics.csv."""
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.curves_file, text.getvalue())

    def add_row(self, columns: Sequence[str], row: Mapping[str, Any]) -> None:
        """Append an epoch to metrics.csv; None becomes an empty cell."""
        text = io.StringIO()
        csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore").writerow(row)
        append(self.curves_file, text.getvalue())

    def save_checkpoint(self, state: Mapping[str, Any], config: TrainConfig | None = None) -> None:
        """Make ``state`` (tensors, numbers, strings and containers) the run's last checkpoint.

        The one before is kept until the run is finished: a power cut may cost the last one on a
        disk that says "written" too early. ``config`` stands in for a damaged config.yaml; its
        ``out`` is left out, because a folder may move.

        Raises:
            NoSpace: the disk is full; the checkpoints are as they were.
        """
        content = {"format": FORMAT, **state}
        if config is not None:
            content["config"] = config_content(config.replace(out=None))
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(self.checkpoint, buffer.getbuffer(), keep=self.previous_checkpoint)

    def save_first_stage(self, state: Mapping[str, Any]) -> None:
        """Keep what the second stage learns from, beside its checkpoints."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, **state}, buffer)
        write_atomically(self.first_stage, buffer.getbuffer())

    def load_first_stage(self, device: Any = "cpu") -> dict[str, Any]:
        """What :meth:`save_first_stage` kept.

        Raises:
            UserError: it is missing, damaged or of another version.
        """
        if not self.first_stage.is_file():
            raise UserError(f"{self.first_stage} is missing, which the second stage goes on from")
        return _read_checkpoint(self.first_stage, device)

    def load_checkpoint(self, device: Any = "cpu") -> dict[str, Any] | None:
        """The last checkpoint that can be read, or None where there is none.

        Raises:
            UserError: none of the files can be read, or one is of another version.
        """
        damaged: Damaged | None = None
        for path in (self.checkpoint, self.previous_checkpoint):
            if not path.is_file():
                continue
            try:
                state = _read_checkpoint(path, device)
            except Damaged as error:
                damaged = damaged or error
                continue
            if damaged is not None:
                text = f"{damaged.path} is damaged: the checkpoint before it counts, of epoch "
                warnings.warn(f"{text}{state.get('epoch')}", HarnessWarning, stacklevel=2)
            return state
        if damaged is not None:
            raise damaged
        return None

    def drop_previous_checkpoint(self) -> None:
        """Delete the checkpoint before the last, which a finished run does not need."""
        self.previous_checkpoint.unlink(missing_ok=True)


def _read_checkpoint(path: Path, device: Any) -> dict[str, Any]:
    """A checkpoint, read without running any code in it."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError, KeyError) as error:
        # torch's own message would advise to load it without weights_only.
        raise Damaged(
            path,
            "cannot be read as a checkpoint, it is damaged",
            "put a copy in its place, or delete it to train anew",
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version (format {FORMAT})")
    return state


def _is_epoch(cell: str | None) -> bool:
    return cell is not None and cell.isascii() and cell.isdigit()


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
