"""The state of a training and what happens in an epoch; nothing here reads or writes a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..classes import by_class
from ..config import TrainConfig
from ..data.dataset import Dataset
from ..data.grow import with_grown_labels
from ..errors import UserError
from ..terms import TERMS, terms_of
from ..terms.size_penalty import class_bounds
from ..terms.term import Material
from .batches import TrainingData, stream_seed
from .curves import LOSSES, Row, Watch
from .graph import GraphedStep
from .inference import TrainedRun
from .measures import measured, needed, priors_and_shift, reference_bank, whole_objects
from .runtime import gradient_sum, loss_scaler, total
from .schedule import learning_rate
from .state import TrainingState
from .step import TrainingStep
from .validation import score_columns, validate


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
        if config.table_row.data_term == "grown":
            train = with_grown_labels(train, masks)
        self._bounds = class_bounds(config, train.masks)
        if config.weight("size_penalty") > 0 and not any(self._bounds):
            raise UserError(
                "the size penalty needs bounds, but no training mask has an object; give them with "
                "--bounds '[a, b]', in pixels at the working size"
            )
        self.data = TrainingData(
            config,
            train,
            bank if config.accl_weight > 0 else None,
            fabric.device,
            fabric.global_rank,
            fabric.world_size,
            self._bounds if config.weight("size_penalty") > 0 else None,
        )
        self.data_warnings = _tell_unlabelled(self.data.labelled)
        scaler = loss_scaler(config, fabric)
        self.state = TrainingState.build(config, fabric.device, scaler)
        material = Material(train.images, masks, ops)
        terms = [term.measure(config, material) for term in terms_of(config)]
        self.state.terms = {
            term.name: term.to(fabric.device) for term in terms if isinstance(term, nn.Module)
        }
        self.measured = {
            **priors_and_shift(config),
            **{term.fact: None for term in TERMS if term.fact is not None},
            **{term.fact: term.told(config) for term in terms if term.fact is not None},
        }
        step = TrainingStep(
            self.state.generator,
            self.state.discriminator,
            (self.state.optimizer_g, self.state.optimizer_d),
            terms,
            config.foregrounds,
            ops,
            fabric.autocast,
            scaler,
            gradient_sum(fabric),
            total(fabric),
            fabric.world_size,
        )
        full = min(config.batch_size, len(self.data))
        self.step = GraphedStep(step, full) if config.cuda_graph else step

    def train_epoch(self, after_step: Callable[[], None]) -> Row:
        """One pass over the training set; returns the epoch's row of metrics.csv."""
        start = time.perf_counter()
        self.epoch += 1
        rate, rate_d = (
            learning_rate(self.epoch, self.config.epochs, start, self.config.schedule)
            for start in (self.config.lr, self.config.discriminator_rate)
        )
        self.state.set_learning_rates(rate, rate_d)
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
        config = self.config
        sums = self.fabric.all_reduce(self.step.sums, reduce_op="sum")
        steps = max(self.data.steps, 1)
        names = self.step.columns
        losses, counts = sums[: len(names)] / steps, sums[len(names) :].view(3, -1)
        row = dict.fromkeys(LOSSES) | dict(zip(names, losses.tolist(), strict=True))
        if self.validation is not None:
            predicted, truth, dsc = validate(
                TrainedRun(config, self.state.generator, self.fabric.device, self.epoch),
                self.validation,
            )
        else:
            predicted, truth, dsc = counts.tolist()
            seen = min(len(self.data), self.data.steps * config.batch_size)
            dsc = [value / seen if self.data.masks is not None else None for value in dsc]
        scores = score_columns(predicted, truth, dsc, config.classes)
        return {"epoch": self.epoch, "seconds": 0.0, "lr": rate, **row, **scores}

    @property
    def bounds(self) -> Any:
        """The size bounds [a, b] in pixels, or None; with classes those of each by its index."""
        pairs = [None if pair is None else list(pair) for pair in self._bounds]
        return by_class(pairs, self.config.classes)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the training."""
        return {
            **self.state.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "warnings": self.watch.issued,
            "annotation_ratio": self.annotation_ratio,
            "bounds": self.bounds,
            "measured": self.measured,
        }

    def _watch(self, issued: list[str] | None = None) -> Watch:
        config = self.config
        return Watch(
            config.epochs,
            issued,
            accl=config.accl_weight > 0,
            size=config.weight("size_penalty") > 0,
            classes=config.classes,
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.state.load_state_dict(state)
        self.epoch = state["epoch"]
        self.seconds = state["seconds"]
        self.watch = self._watch(state["warnings"])


def _tell_unlabelled(labelled: Tensor) -> list[str]:
    """Warnings of what no label speaks of, from the labelled pixels [n] of each image."""
    silent = int((labelled == 0).sum())
    if silent == len(labelled):
        return ["no pixel is labelled: the data term is 0"]
    if silent:
        return [
            f"{silent} of {len(labelled)} images have no label; the terms that look at no label "
            "learn from them alone"
        ]
    return []
