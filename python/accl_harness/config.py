"""Every option of a training in one typed place: YAML file, command line and Python alike."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from . import terms
from .data.options import ImageMoves
from .defaults import MethodDefaults
from .errors import UserError
from .option_groups import (
    GROUPS,
    DataOptions,
    NetworkOptions,
    ObjectiveOptions,
    OptimisationOptions,
    ReferenceMaskOptions,
    RunOptions,
    WeakLabelOptions,
    require,
)
from .terms.accl import ACCL


@dataclass(frozen=True)
class TrainConfig(
    MethodDefaults,
    RunOptions,
    ObjectiveOptions,
    OptimisationOptions,
    NetworkOptions,
    ReferenceMaskOptions,
    WeakLabelOptions,
    DataOptions,
):
    """One training run. The fields of the last base come first."""

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some options changed."""
        return dataclasses.replace(self, **changes)

    @property
    def channels(self) -> int:
        """Logits of the segmentation network a pixel: one, or one for each class."""
        return self.classes or 1

    @property
    def foregrounds(self) -> int:
        """Object classes, whose maps the discriminator sees."""
        return max(self.channels - 1, 1)

    @property
    def all_epochs(self) -> int:
        """Epochs of the run, those of both stages where there are two."""
        return self.epochs * (2 if self.has_second_stage else 1)

    def check(self) -> None:
        """Refuse values that no training can use, before anything is loaded or written.

        Each group judges its own options; here are the rules over several groups.

        Raises:
            UserError: naming the option, what was wanted and what came.
        """
        for group in GROUPS:
            group.check(self)
        for term in terms.TERMS:
            term.check(self)
        folder, kind = self.references.folder, self.reference_kind
        if self.uses_references and folder and kind not in ("folder", "augmented", "auto"):
            raise UserError(
                f"references.folder goes with references.kind folder, augmented or auto, got {kind}"
            )
        if self.classes is not None:
            self.weak.check_classes(self.classes)
        if isinstance(self.prior, tuple):
            one_each = f"one number or {self.foregrounds}, one for each foreground class"
            require(len(self.prior) == self.foregrounds, self, "prior", one_each)
        if self.has_second_stage and self.table_row.data_term != "weak":
            raise UserError(
                "second_stage: wanted a method that leaves pixels unlabelled, got "
                f"{self.method}, whose labels are whole masks already"
            )
        _refuse_nan(dataclasses.asdict(self))


PRESETS: dict[str, dict[str, Any]] = {
    "small": {},
    "paper": {
        "method": "unpaired_accl",
        "size": 256,
        "width": 64,
        "depth": 8,
        "epochs": 200,
        "prior": 0.5,
        "image_moves": ImageMoves(),
        "checkpoint_every": 10,
    },
    "demo": {
        "size": 64,
        "epochs": 40,
        "batch_size": 4,
        "lr": 1e-3,
        "prior": 0.25,
        "image_moves": ImageMoves(),
        "alpha_scale": 10.0,
    },
    "scribble": {
        "epochs": 36,
        "batch_size": 6,
        "lr": 1e-3,
        "test_norm": "running",
        "image_moves": ImageMoves(shift=0.05, flip=True, rotation=20.0, scale=1.1, grey=0.1),
        "checkpoint_every": 4,
    },
}
"""What each preset changes of :class:`TrainConfig`'s defaults (those are preset ``small``).

``small`` measures ``prior`` and ``image_moves.shift`` on the masks. With the foreground alone
labelled, nothing but the constraint lowers a probability: from 0.5 the sigmoid saturates before D
can act, while far below the object's share the object is found late or not at all. Without moves a
few labels at about one place teach the place and not the object.
``demo`` starts at 0.25, so that partial cross-entropy floods within its 600 short steps; its few
steps of a higher rate also want more weight on ACCL.
``scribble`` is for many slices with several classes: batches, with which batch norm and the
rate can be those of most of the field, and moves that a body allows.
"""


def default_preset(classes: int | None) -> str:
    """What a training takes where no preset is named."""
    return "scribble" if classes is not None and classes > 2 else "small"


def make_config(preset: str | None = None, **options: Any) -> TrainConfig:
    """The config of a preset with some options set; None: by the number of classes.

    Raises:
        UserError: no preset of that name.
    """
    preset = preset or default_preset(options.get("classes"))
    if preset not in PRESETS:
        raise UserError(f"preset must be one of {', '.join(PRESETS)}, got '{preset}'")
    return TrainConfig(**{"preset": preset, **PRESETS[preset], **options})


_OF_ACCL = ("references", *(f.name for f in dataclasses.fields(ACCL.options) if f.name != "alpha"))
_OF_UNET = ("depth", "dropout", "pad", "test_norm")


def refuse_idle_options(config: TrainConfig) -> None:
    """Refuse options that count for nothing: of ACCL without it, of the U-Net without that.

    ``alpha`` turns ACCL on for any method. ``references`` count for the size prior
    and the CRF's default weight as well.

    Raises:
        UserError: naming the option.
    """
    preset = make_config(config.preset)
    for name in _OF_UNET if config.network != "unet" else ():
        if getattr(config, name) != getattr(preset, name):
            raise UserError(
                f"{name} is the U-Net's, and network is {config.network}; leave it out, "
                "network_options has what the network takes"
            )
    if config.table_row.accl or config.alpha is not None:
        return
    for name in _OF_ACCL:
        if name == "references" and config.uses_references:
            continue
        if getattr(config, name) != getattr(preset, name):
            raise UserError(
                f"{name} counts with ACCL alone, and method {config.method} has none; leave it "
                "out, or give alpha as well"
            )


_NO_MATTER = {"data", "out", "preset", "accelerator", "devices", "checkpoint_every", "tensorboard"}
"""Options that do not decide a run's result; the data are told apart by their digest."""


def changed_options(earlier: TrainConfig, config: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """What decides a run's result and differs: option -> (earlier value, value now)."""
    pairs = {
        option.name: (getattr(earlier, option.name), getattr(config, option.name))
        for option in dataclasses.fields(TrainConfig)
        if option.name not in _NO_MATTER
    }
    # By their text as well, because NaN in bounds (that side is free) differs from itself.
    return {
        name: (then, now)
        for name, (then, now) in pairs.items()
        if then != now and repr(then) != repr(now)
    }


def _refuse_nan(options: dict[str, Any], prefix: str = "") -> None:
    """NaN passes every comparison that refuses a value; it means something in bounds alone."""
    for name, value in options.items():
        if isinstance(value, dict):
            _refuse_nan(value, f"{prefix}{name}.")
        elif isinstance(value, float) and math.isnan(value):
            raise UserError(f"{prefix}{name} must be a number, got nan")
