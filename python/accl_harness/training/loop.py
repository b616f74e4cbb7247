"""A training from data to scores: epochs, checkpoints, curves, and the evaluation at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..config import (
    TrainConfig,
    changed_options,
    check_config,
    load_config,
    save_config,
    size_bounds,
)
from ..data.dataset import Dataset, load_split, split_validation
from ..data.fingerprint import RECORD, data_record, fingerprint, refuse_other_data
from ..data.options import reading_options
from ..data.references import ReferenceBank
from ..errors import UserError
from .batches import TrainingData, stream_seed
from .checkpoint import disk_errors, load_checkpoint, save_checkpoint, write_atomically
from .curves import Curves, Row, Watch
from .graph import GraphedStep
from .inference import TrainedRun, predict_probabilities
from .ops import load_ops
from .progress import Progress
from .rules import gated_crf, reference_bank, size_prior, whole_objects
from .runtime import gradient_sum, launch, loss_scaler
from .schedule import learning_rate
from .state import TrainingState
from .step import STATISTICS, Objective, TrainingStep


def run_training(
    config: TrainConfig,
    *,
    resume: bool = False,
    quiet: bool = False,
    on_epoch: Callable[[Row], None] | None = None,
) -> Path:
    """Train, and score the result on the test split.

    Args:
        config: all options; ``data`` and ``out`` must be set.
        resume: go on from the last checkpoint in ``config.out``; start where there is none;
            leave a finished run as it is.
        quiet: show nothing on the terminal.
        on_epoch: called with the row of metrics.csv after each epoch.

    Returns:
        The run folder, which holds config.yaml, data.json, metrics.csv, metrics.json, checkpoints/,
        figures/ and predictions/.

    Raises:
        UserError: bad options or data, ``out`` not empty without ``resume``, a run of other
            options or data to resume, a full disk.
    """
    check_config(config)
    run = _run_folder(config, resume)
    if (run / "metrics.json").is_file():
        return run
    train, validation, test = _load_data(config)
    ops = load_ops(config.backend)
    fabric = launch(config)
    trainer = Trainer(config, train, validation, ops, fabric)
    checkpoint = load_checkpoint(run, fabric.device)
    if checkpoint is not None:
        trainer.load_state_dict(checkpoint)
    if fabric.is_global_zero:
        for name in ("checkpoints", "figures", "predictions"):
            (run / name).mkdir(parents=True, exist_ok=True)
        save_config(config, run / "config.yaml")
        digest = fingerprint(config.data, config.masks)
        write_atomically(run / RECORD, data_record(config.data, digest))
    visible = fabric.is_global_zero and not quiet
    with disk_errors(run), Progress(config, trainer.data.steps, visible) as progress:
        _train(trainer, run, progress, on_epoch)
        if fabric.is_global_zero:
            progress.say("scoring the test images")
            for warning in _evaluate(trainer, run, test):
                progress.warn(warning)
    fabric.barrier()
    return run


def _train(trainer: Trainer, run: Path, progress: Progress, on_epoch) -> None:
    config, writes = trainer.config, trainer.fabric.is_global_zero
    curves = Curves(run, trainer.epoch, config.tensorboard) if writes else None
    progress.start(trainer.epoch)
    for warning in trainer.watch.note(trainer.data_warnings):
        progress.warn(warning)
    try:
        while trainer.epoch < config.epochs:
            row = trainer.train_epoch(progress.step)
            for warning in trainer.watch.check(row):
                progress.warn(f"epoch {row['epoch']}: {warning}")
            progress.epoch(row)
            if not writes:
                continue
            curves.add(row)
            if row["epoch"] % config.checkpoint_every == 0 or row["epoch"] == config.epochs:
                save_checkpoint(run, trainer.state_dict())
            if on_epoch is not None:
                on_epoch(row)
    finally:
        if curves is not None:
            curves.close()


def _evaluate(trainer: Trainer, run: Path, test: Dataset) -> list[str]:
    """Curves and scores; metrics.json comes last, since it marks the run as finished.

    Returns the warnings that the scores give.
    """
    from ..evaluation.evaluate import evaluate_run
    from ..report.curves import read_curves, training_curves

    rows = {trainer.config.method: [read_curves(run / "metrics.csv")]}
    training_curves(rows, run / "figures" / "curves.png")
    trained = TrainedRun(
        trainer.config, trainer.state.generator.eval(), trainer.fabric.device, trainer.epoch
    )
    bounds = trainer.bounds
    facts = {
        "seconds": round(trainer.seconds, 3),
        "annotation_ratio": trainer.annotation_ratio,
        "bounds": None if bounds is None else list(bounds),
        "warnings": trainer.watch.issued,
    }
    metrics = evaluate_run(trained, test, out=run, training=facts)
    return [warning for warning in metrics["warnings"] if warning not in trainer.watch.issued]


class Trainer:
    """The state of a training and what happens in an epoch."""

    def __init__(self, config: TrainConfig, train: Dataset, validation, ops: Any, fabric):
        self.config = config
        self.fabric = fabric
        self.validation = validation
        self.epoch = 0
        self.seconds = 0.0
        self.watch = self._watch()
        fully = config.table_row.data_term == "full"
        self.annotation_ratio = 1.0 if fully else train.annotation()["ratio"]
        self.bounds = None
        if train.masks is not None or config.bounds != "training":
            sizes = [] if train.masks is None else train.masks.sum((1, 2)).tolist()
            self.bounds = size_bounds(config, sizes)
        if config.penalty_weight > 0 and self.bounds is None:
            raise UserError("the size penalty needs bounds, but no training mask has an object")
        bank = reference_bank(config, train)
        self.data = TrainingData(
            config,
            train,
            bank if config.accl_weight > 0 else None,
            fabric.device,
            fabric.global_rank,
            fabric.world_size,
        )
        unlabelled = int(self.data.labelled.sum()) == 0
        self.data_warnings = ["no pixel is labelled: the data term is 0"] if unlabelled else []
        scaler = loss_scaler(config, fabric)
        self.state = TrainingState.build(config, fabric.device, scaler)
        step = TrainingStep(
            self.state.generator,
            self.state.discriminator,
            (self.state.optimizer_g, self.state.optimizer_d),
            self._objective(train, bank, ops),
            ops,
            fabric.autocast,
            scaler,
            gradient_sum(fabric),
        )
        self.step = GraphedStep(step) if config.cuda_graph else step

    def _objective(self, train: Dataset, bank: ReferenceBank | None, ops: Any) -> Objective:
        config, bounds = self.config, None
        masks = whole_objects(config, train, bank) if config.asks_masks else None
        if config.penalty_weight > 0:
            bounds = torch.tensor(self.bounds, device=self.fabric.device)
        return Objective(
            config.penalty_weight,
            config.accl_weight,
            bounds,
            config.criterion,
            config.discriminator_scale,
            config.noise,
            size_prior(config.prior_weight, masks) if config.prior_weight > 0 else None,
            gated_crf(config, train.images, masks, ops) if config.crf_weight != 0 else None,
        )

    def train_epoch(self, after_step: Callable[[], None]) -> Row:
        """One pass over the training set; returns the epoch's row of metrics.csv."""
        start = time.perf_counter()
        self.epoch += 1
        rate = learning_rate(self.epoch, self.config.epochs, self.config.lr)
        self.state.set_learning_rate(rate)
        self.state.generator.train()
        stream = f"dropout {self.fabric.global_rank}"
        torch.manual_seed(stream_seed(self.config.seed, stream, self.epoch))
        self.step.forget()
        for batch in self.data.epoch(self.epoch):
            self.step(batch)
            after_step()
        row = self._row(rate)
        seconds = time.perf_counter() - start
        self.seconds += seconds
        row["seconds"] = round(seconds, 3)
        return row

    def _row(self, rate: float) -> Row:
        sums = self.fabric.all_reduce(self.step.sums, reduce_op="sum")
        sums = dict(zip(STATISTICS, sums.tolist(), strict=True))
        steps = max(self.data.steps, 1)
        row = {name: sums[name] / steps for name in STATISTICS[: STATISTICS.index("predicted")]}
        if self.state.discriminator is None:
            row |= dict.fromkeys(("accl", "loss_d", "d_real", "d_fake"))
        if self.config.penalty_weight == 0:
            row["size_penalty"] = None
        if self.config.prior_weight == 0:
            row["size_prior"] = None
        if self.config.crf_weight == 0:
            row["crf"] = None
        seen = min(len(self.data), self.data.steps * self.config.batch_size)
        size_ratio = sums["predicted"] / sums["truth"] if sums["truth"] else None
        dsc = sums["dsc"] / seen if self.data.masks is not None else None
        if self.validation is not None:
            size_ratio, dsc = self._validate()
        return {
            "epoch": self.epoch,
            "seconds": 0.0,
            "lr": rate,
            **row,
            "size_ratio": size_ratio,
            "dsc": dsc,
        }

    def _validate(self) -> tuple[float | None, float]:
        """Size ratio and mean DSC of the validation images at the working size."""
        trained = TrainedRun(self.config, self.state.generator, self.fabric.device, self.epoch)
        masks = self.validation.masks.bool()
        predicted = (
            torch.cat(
                [
                    predict_probabilities(trained, part).cpu()
                    for part in self.validation.images.split(16)
                ]
            ).squeeze(1)
            > 0.5
        )
        overlap = (predicted & masks).sum((1, 2))
        total = predicted.sum((1, 2)) + masks.sum((1, 2))
        dsc = torch.where(total > 0, 2 * overlap / total, 1.0).mean().item()
        truth = int(masks.sum())
        return (int(predicted.sum()) / truth if truth else None), dsc

    def state_dict(self) -> dict[str, Any]:
        return {
            **self.state.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "warnings": self.watch.issued,
        }

    def _watch(self, issued: list[str] | None = None) -> Watch:
        config = self.config
        return Watch(
            config.epochs, issued, accl=config.accl_weight > 0, size=config.penalty_weight > 0
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state.load_state_dict(state)
        self.epoch = state["epoch"]
        self.seconds = state["seconds"]
        self.watch = self._watch(state["warnings"])


def _run_folder(config: TrainConfig, resume: bool) -> Path:
    """The run folder, if it may be written to."""
    if config.data is None:
        raise UserError("data is missing: name the data set's folder with --data")
    if config.out is None:
        raise UserError("out is missing: name the run folder with --out")
    run = Path(config.out)
    if run.exists() and not run.is_dir():
        raise UserError(f"{run} is a file; --out wants a folder")
    if not run.is_dir() or not any(run.iterdir()):
        return run
    if not resume:
        raise UserError(f"{run} is not empty: give another --out, or --resume to go on with it")
    if load_checkpoint(run) is not None:
        for name, (then, now) in changed_options(load_config(run / "config.yaml"), config).items():
            raise UserError(
                f"{run} was trained with {name} {then}, not {now}: resume it with the same "
                "options, or give another --out"
            )
        refuse_other_data(run, config.data, fingerprint(config.data, config.masks))
    return run


def _load_data(config: TrainConfig) -> tuple[Dataset, Dataset | None, Dataset]:
    """Training, validation and test images; the test split now, so that it fails now."""
    common = reading_options(config)
    train = load_split(config.data, "train", weak=config.weak, limit=config.limit, **common)
    test = load_split(config.data, "test", weak=None, **common)
    train, validation = split_validation(train, config.validation, config.seed)
    if validation is not None and validation.masks is None:
        raise UserError("validation needs masks, the training set has weak labels alone")
    return train, validation, test
