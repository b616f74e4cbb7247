"""A training in its run folder: its lock, its checkpoints, its curves, what a person sees of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import TrainConfig, changed_options
from ..data.dataset import Dataset, load_split, split_validation
from ..data.fingerprint import fingerprint
from ..data.options import reading_options
from ..data.painted import with_painted_labels
from ..data.references import read_masks
from ..errors import UserError
from ..networks import build_generator
from ..run import Run
from ..storage import disk_errors
from ..terms.data_term import DataTerm
from .curves import Curves, Row, columns_of
from .inference import FACTS, TrainedRun
from .initial import start_from
from .loop import Trainer
from .ops import load_ops
from .progress import Progress
from .runtime import launch
from .second_stage import SecondStage


class Session:
    """A training under way, the only one in its folder."""

    def __init__(
        self,
        run: Run,
        trainer: Trainer,
        progress: Progress,
        images: Dataset,
        second: SecondStage | None = None,
    ):
        self.images = images
        """What a person may look at meanwhile: the validation images, else the training's."""
        self.run = run
        self.trainer = trainer
        self.progress = progress
        self.config = trainer.config
        self._second = second
        self._done = 0
        """Epochs of the stage before."""
        self.writes = trainer.fabric.is_global_zero
        """Whether this process is the one that writes."""

    def train(self, on_epoch: Callable[[Row], None] | None = None) -> None:
        """Train all epochs that are left; ``on_epoch`` is called with the row of each."""
        self._train_stage(on_epoch)
        if self._second is not None and not self._done:
            self._begin_second()
            self._train_stage(on_epoch)

    def go_on_from(self, checkpoint: Mapping[str, Any]) -> None:
        """Take up the training where a checkpoint left it."""
        if checkpoint.get("stage", 1) == 2:
            self._enter_second(self.run.load_first_stage()["labels"])
        self.trainer.load_state_dict(checkpoint)

    def _begin_second(self) -> None:
        """Find the masks that the second network learns, keep them, and make that network."""
        self.progress.say("second stage: masks of the training images for a fresh network")
        first = self.trained()
        labels = self._second.labels(first)
        if self.writes:
            facts = {"epoch": first.epoch, **first.facts}
            state = first.generator.state_dict()
            self.run.save_first_stage({"generator": state, "labels": labels, **facts})
        self._enter_second(labels)

    def _enter_second(self, labels: Tensor) -> None:
        self._done = self.trainer.config.epochs
        self.trainer = self._second.trainer(self.trainer, labels)

    def _train_stage(self, on_epoch: Callable[[Row], None] | None) -> None:
        trainer, progress, done = self.trainer, self.progress, self._done
        epochs, every = trainer.config.epochs, trainer.config.checkpoint_every
        curves = None
        if self.writes:
            config, epoch = self.config, done + trainer.epoch
            curves = Curves(self.run, epoch, config.tensorboard, columns_of(config))
        progress.start(trainer.epoch)
        for warning in trainer.watch.note(trainer.data_warnings):
            progress.warn(warning)
        try:
            while trainer.epoch < epochs:
                row = trainer.train_epoch(progress.step)
                for warning in trainer.watch.check(row):
                    progress.warn(f"epoch {row['epoch']}: {warning}")
                progress.epoch(row)
                if curves is None:
                    continue
                row = {**row, "epoch": done + trainer.epoch}
                curves.add(row)
                if trainer.epoch % every == 0 or trainer.epoch == epochs:
                    state = {**trainer.state_dict(), "stage": 2 if done else 1}
                    self.run.save_checkpoint(state, trainer.given)
                if on_epoch is not None:
                    on_epoch(row)
        finally:
            if curves is not None:
                curves.close()

    def trained(self) -> TrainedRun:
        """The network as it is now, with what only the training knows."""
        trainer = self.trainer
        facts = {
            "seconds": round(trainer.seconds, 3),
            "annotation_ratio": trainer.annotation_ratio,
            "bounds": trainer.bounds,
            "warnings": trainer.watch.issued,
            "measured": trainer.measured,
        }
        generator = trainer.state.generator.eval()
        return TrainedRun(self.config, generator, trainer.fabric.device, trainer.epoch, facts)

    def first_stage(self) -> TrainedRun | None:
        """The network of the first of two stages, where the second is under way."""
        if not self._done:
            return None
        device = self.trainer.fabric.device
        state = self.run.load_first_stage(device)
        generator = build_generator(self.config).to(device)
        generator.load_state_dict(state["generator"])
        facts = {name: state[name] for name in FACTS}
        return TrainedRun(self.config, generator.eval(), device, state["epoch"], facts)

    def finish(self) -> None:
        """Drop what only an unfinished run needs, and wait for the other processes."""
        if self.writes:
            self.run.drop_previous_checkpoint()
        self.trainer.fabric.barrier()


@contextmanager
def training_session(config: TrainConfig, *, resume: bool, quiet: bool) -> Iterator[Session]:
    """Make everything ready to train, from the start or from the run's last checkpoint.

    Bad input is told before anything is written. Where several processes train together, all of
    them enter.

    Args:
        config: options that :func:`~accl_harness.config.TrainConfig.check` has let pass.
        resume: go on from the last checkpoint in ``config.out``; start where there is none.
        quiet: show nothing on the terminal.

    Raises:
        UserError: bad data, a folder that :func:`run_to_write` refuses, or one in which another
            process trains, a full disk.
    """
    run = run_to_write(config, resume)
    digest = fingerprint(config.data, config.masks)
    train, validation, painted = _load_training(config)
    ops = load_ops(config.backend)
    fabric = launch(config)
    parts = (config, train, validation, ops, fabric)
    second = SecondStage(*parts) if config.has_second_stage else None
    trainer = Trainer(*parts)
    if config.init and not run.has_checkpoint:
        trainer.data_warnings += start_from(config.init, config, trainer.state)
    with run.locked() if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            run_to_write(config, resume)  # another process may have been here meanwhile
        checkpoint = run.load_checkpoint(fabric.device)
        with disk_errors(run.folder):
            if fabric.is_global_zero:
                for folder in (run.checkpoint.parent, run.figures, run.predictions):
                    folder.mkdir(parents=True, exist_ok=True)
                run.save_config(config)
                run.record_data(config.data, digest)
            visible = fabric.is_global_zero and not quiet
            with Progress(config, trainer.data.steps, visible) as progress:
                if painted:
                    progress.say(f"painted masks are the labels of {', '.join(painted)}")
                session = Session(run, trainer, progress, validation or train, second)
                if checkpoint is not None:
                    session.go_on_from(checkpoint)
                yield session


def run_to_write(config: TrainConfig, resume: bool) -> Run:
    """The run that ``config.out`` names, if it may be written to.

    Raises:
        UserError: ``data`` or ``out`` is missing, the folder is not empty without ``resume``, or
            holds a run of other options or data.
    """
    if config.data is None:
        raise UserError("data is missing: name the data set's folder with --data")
    if config.out is None:
        raise UserError("out is missing: name the run folder with --out")
    run = Run(config.out)
    if run.folder.exists() and not run.folder.is_dir():
        raise UserError(f"{run.folder} is a file; --out wants a folder")
    if run.is_empty:
        return run
    if not resume:
        raise UserError(
            f"{run.folder} is not empty: give another --out, or --resume to go on with it"
        )
    if run.has_checkpoint:
        for name, (then, now) in changed_options(run.config(), config).items():
            raise UserError(
                f"{run.folder} was trained with {name} {then}, not {now}: resume it with the same "
                "options, or give another --out"
            )
        run.refuse_other_data(config.data, fingerprint(config.data, config.masks))
    return run


def _load_training(config: TrainConfig) -> tuple[Dataset, Dataset | None, list[str]]:
    """Training and validation images, and the names of those whose label is a painted mask."""
    train = load_split(
        config.data, "train", weak=config.weak, limit=config.limit, **reading_options(config)
    )
    train, painted = _with_painted(config, train)
    labelled = train.has_labels
    train, validation = split_validation(train, config.validation, config.seed)
    if labelled and not train.has_labels:
        raise UserError(
            f"validation {config.validation} with seed {config.seed} sets aside every image that "
            "has labels, none is left to train on: give a smaller fraction, or another --seed"
        )
    if validation is not None and validation.masks is None:
        raise UserError("validation needs masks, the training set has weak labels alone")
    return train, validation, painted


def _with_painted(config: TrainConfig, train: Dataset) -> tuple[Dataset, list[str]]:
    """Painted masks as labels, where a person marked the images and these can outweigh nothing."""
    weak = train.folder / "weak"
    folder = Path(config.references.folder or train.folder / "references")
    balanced = DataTerm.balances_classes(config) or config.table_row.data_term == "grown"
    by_hand = config.weak.strategy in ("auto", "scribble") and weak.is_dir()
    if not (config.uses_references and balanced and by_hand and folder.exists()):
        return train, []
    form = {"classes": config.classes, "binary_too": True}
    values = (config.mask_threshold, config.mask_value, config.slices)
    return with_painted_labels(train, read_masks(folder, *values, **form))
