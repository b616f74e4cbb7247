"""The state of a training and what happens in an epoch; nothing here reads or writes a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..config import TrainConfig, size_bounds
from ..data.dataset import Dataset
from ..errors import UserError
from .batches import TrainingData, stream_seed
from .curves import Row, Watch
from .graph import GraphedStep
from .inference import TrainedRun, predict_probabilities
from .rules import (
    gated_crf,
    measured,
    needed,
    reference_bank,
    size_balance,
    size_prior,
    terms_in_numbers,
    whole_objects,
)
from .runtime import gradient_sum, loss_scaler, total
from .schedule import learning_rate
from .state import TrainingState
from .step import STATISTICS, Objective, TrainingStep


class Trainer:
    """The state of a training and what happens in an epoch."""

    def __init__(self, config: TrainConfig, train: Dataset, validation, ops: Any, fabric):
        self.given = config
        """The options as a person gave them; ``config`` has what was measured on the masks too."""
        bank = reference_bank(config, train)
        masks = needed(config, whole_objects(config, train, bank))
        config = measured(config, masks)
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
        objective = self._objective(train, masks, ops)
        self.state.size_balance = objective.size_balance
        self.measured = terms_in_numbers(config, objective)
        step = TrainingStep(
            self.state.generator,
            self.state.discriminator,
            (self.state.optimizer_g, self.state.optimizer_d),
            objective,
            ops,
            fabric.autocast,
            scaler,
            gradient_sum(fabric),
            total(fabric),
        )
        full = min(config.batch_size, len(self.data))
        self.step = GraphedStep(step, full) if config.cuda_graph else step

    def _objective(self, train: Dataset, masks: Tensor | None, ops: Any) -> Objective:
        config, bounds, balance = self.config, None, None
        if config.balance_weight > 0:
            balance = size_balance(config.balance_weight, masks, len(self.data))
            balance.to(self.fabric.device)
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
            balance,
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
        if self.config.balance_weight == 0:
            row["size_balance"] = None
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
            "annotation_ratio": self.annotation_ratio,
            "bounds": None if self.bounds is None else list(self.bounds),
            "measured": self.measured,
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
