"""The options of a training in groups, each with its own ``check``.

A config is one flat dataclass that inherits the groups: ``config.lr``, ``--lr`` and ``lr:`` in a
YAML file name the same option, and a reader of one group needs to look at that group alone. What
concerns options of several groups is checked in :meth:`~.config.TrainConfig.check`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

from . import terms
from .data.options import (
    ImageMoves,
    ReferenceOptions,
    Slices,
    WeakOptions,
    check_reading,
)
from .errors import UserError
from .methods import METHODS
from .versions import need

MethodName = Literal[
    "weak_ce",
    "partial_ce",
    "sccl",
    "partial_accl",
    "unpaired_accl",
    "paired_accl",
    "fs_ce",
    "sccl_crf",
    "accl_crf",
    "walker",
]
PresetName = Literal["small", "paper", "demo", "scribble"]


def _moves_by_default() -> ImageMoves:
    """The shift is measured on the masks; docs/results_log.md has the data that chose the rest."""
    return ImageMoves(shift=None, rotation=15.0, scale=1.15, grey=0.2)


@dataclass(frozen=True)
class DataOptions:
    """Data."""

    data: str | None = None
    """Folder of the data set, which holds {train,test}/{images,masks}."""
    masks: str = "masks"
    """The mask folder has this name."""
    mask_threshold: float | None = None
    """Mask values above this one are the object; default: a mask holds 0 and one other value."""
    mask_value: int | None = None
    """Mask values equal to this one are the object: one class of masks that hold class indices."""
    classes: int | None = None
    """Masks and weak labels hold this many classes, by their index: 0 is the background, 255
    unlabelled. Default: one object and its background."""
    mask_suffix: str = ""
    """The names of masks have this behind the names of their images, as in scan_mask.png."""
    slices: Slices = "auto"
    """A volume's slices lie along this axis of its file; auto: by format, shape and spacing."""
    patients: str | None = None
    """The first group of this regular expression is the patient in a file's name."""
    volumes: str | None = None
    """The first group of this regular expression is the volume in a file's name, where files are
    slices: scores in 3-D take its slices together. Default: the patient, where patients is given.
    A file that holds a volume is one."""
    limit: int | None = None
    """Only the first so many training images are used."""
    validation: float = 0.0
    """This share of the training patients is kept for the curves of DSC and size ratio."""
    size: int = 128
    """Images are resized to size x size pixels."""
    image_moves: ImageMoves = field(default_factory=_moves_by_default)
    """Random moves of the training images with their labels and reference masks."""

    def check(self) -> None:
        """Refuse values that no data set has.

        Raises:
            UserError: naming the option.
        """
        at_least_1(self, "size")
        require(0 <= self.validation < 1, self, "validation", "0 to below 1")
        require(self.limit is None or self.limit >= 1, self, "limit", "at least 1")
        check_reading(self.mask_threshold, self.mask_value, self.classes)
        self.image_moves.check()


@dataclass(frozen=True)
class NetworkOptions:
    """Networks."""

    network: str = "unet"
    """The segmentation network is pix2pix's U-Net, or monai:NAME, a 2-D network of MONAI such as
    monai:BasicUNet. Depth, dropout, padding and test norm are the U-Net's own."""
    network_options: dict[str, Any] | None = None
    """A network of MONAI is made with these arguments, such as {"features": [16, 16, 32, 64, 128,
    16]}; its dimensions and channels come from the data."""
    width: int = 16
    """The outermost level of both networks has so many channels."""
    depth: int | None = None
    """The segmentation network halves the image so often; default: as often as the size allows, at
    most 8 times."""
    norm: Literal["batch", "instance", "none"] = "batch"
    """Both networks have norm layers of this kind."""
    test_norm: Literal["image", "running"] = "image"
    """Batch norm uses these statistics at test: those of the image itself, or running averages."""
    dropout: float = 0.5
    """The decoder blocks next to the innermost drop values with this probability."""
    prior: float | tuple[float, ...] | None = None
    """A fresh network calls a pixel foreground with this probability: the bias of the last layer
    is its logit; null: the share of the image that the reference masks' objects take. With several
    classes they share it, or [p, q, ...] has one for each foreground class."""
    pad: bool = False
    """Images are padded inside the network where the depth cannot halve the size."""

    def check(self) -> None:
        """Refuse values that no network has.

        Raises:
            UserError: naming the option.
        """
        at_least_1(self, "width")
        known = self.network == "unet" or self.network.startswith("monai:")
        require(known, self, "network", "unet or monai:NAME, such as monai:BasicUNet")
        if self.network == "unet" and self.network_options:
            raise UserError("network_options go with network monai:NAME, the U-Net has its own")
        require(0 <= self.dropout < 1, self, "dropout", "0 to below 1")
        priors = self.prior if isinstance(self.prior, tuple) else (self.prior,)
        given = self.prior is not None
        holds = not given or (all(0 < prior < 1 for prior in priors) and sum(priors) < 1)
        require(holds, self, "prior", "between 0 and 1 (exclusive), of several classes in sum")


@dataclass(frozen=True)
class OptimisationOptions:
    """Optimisation."""

    epochs: int = 120
    """The training set is passed over so often."""
    batch_size: int = 1
    """A step takes so many images, over all processes together."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """The segmentation network is trained by Adam, or by SGD with momentum 0.9 and weight decay
    1e-4; the discriminator always by Adam."""
    lr: float = 2e-4
    """Both networks start with this learning rate."""
    d_lr: float | None = None
    """The discriminator starts with this learning rate; default: lr, with sgd 2e-4."""
    schedule: Literal["half", "poly"] = "half"
    """The learning rate stays for half of the epochs and then falls to 0 in a line; poly: it falls
    from the start, as (1 - share of the epochs done) to the power 0.9."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Adam's running means of gradients and of their squares decay by these factors a step."""

    def check(self) -> None:
        """Refuse values that no training can use.

        Raises:
            UserError: naming the option.
        """
        at_least_1(self, "epochs", "batch_size")
        require(0 < self.lr < math.inf, self, "lr", "above 0")
        require(self.d_lr is None or 0 < self.d_lr < math.inf, self, "d_lr", "above 0")
        require(all(0 <= beta < 1 for beta in self.betas), self, "betas", "from 0 to below 1")


@dataclass(frozen=True)
class MethodOption:
    """Method."""

    method: MethodName = "accl_crf"
    """A method of the paper's Table 1 is trained, or sccl_crf or accl_crf, which look at the image
    as well, or walker: full supervision on masks grown from the marks. Preset paper:
    unpaired_accl."""
    second_stage: bool | None = None
    """A second network learns, by full supervision with as many epochs and the same moves, masks of
    the training images on which the first one and a random walker agree; scores and predictions
    are the second's, those of the first stand beside them in first_stage/. Default: false."""


@dataclass(frozen=True)
class ObjectiveOptions(*(term.options for term in reversed(terms.TERMS)), MethodOption):
    """Objective."""

    def check(self) -> None:
        """Refuse values that no objective has.

        Raises:
            UserError: naming the option.
        """
        if self.method not in METHODS:
            raise UserError(f"method must be one of {', '.join(METHODS)}, got '{self.method}'")
        for term in terms.TERMS:
            term.options.check(self)


# A parser of the command line looks names up in this module, and the terms' stand in theirs.
ObjectiveOptions.__init__.__annotations__.update(get_type_hints(ObjectiveOptions))


@dataclass(frozen=True)
class RunOptions:
    """Run."""

    out: str | None = None
    """The run is written to this folder."""
    init: str | None = None
    """The training starts from the weights of the run in this folder: more epochs for a finished
    run, or a start on other data. The networks must be the same, and their prior stays."""
    preset: PresetName = "small"
    """The other options get these defaults; small: minutes on 2 cores; paper: the paper's
    settings; demo: phantoms in seconds; scribble: scribbles of several classes on many slices, the
    default with more than two classes."""
    seed: int = 0
    """Everything random starts from this seed: initial weights, order, dropout, reference masks."""
    backend: Literal["fused", "reference"] = "fused"
    """The losses are computed by these functions; fused: the compiled ops; reference: pure
    PyTorch."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """The training is computed there; auto: on a GPU where there is one."""
    devices: int = 1
    """The training runs in so many processes, one a device; under torchrun its own number
    counts."""
    precision: Literal["32", "bf16", "16", "64"] = "32"
    """The networks compute in float32; mixed with bfloat16 or float16 (CUDA alone); or in float64
    for comparisons."""
    cuda_graph: bool = False
    """The whole step runs as one CUDA graph: one process, not with precision 16."""
    checkpoint_every: int = 1
    """A checkpoint is written every so many epochs."""
    tensorboard: bool | None = None
    """The curves are written for TensorBoard as well; default: where the extra tensorboard is
    installed."""

    def check(self) -> None:
        """Refuse values that no run can use.

        Raises:
            UserError: naming the option.
        """
        at_least_1(self, "devices", "checkpoint_every")
        require(self.seed >= 0, self, "seed", "0 or more")
        if self.tensorboard:
            need("tensorboard", "tensorboard true", "tensorboard")
        if self.cuda_graph and self.precision == "16":
            raise UserError(
                "cuda_graph does not go with precision 16, whose loss scaling looks at "
                "the gradients; use bf16 or 32"
            )


@dataclass(frozen=True)
class WeakLabelOptions:
    """Weak labels, whose options are one dataclass that ``accl weaken`` takes as well."""

    weak: WeakOptions = field(default_factory=WeakOptions)
    """Weak labels."""

    def check(self) -> None:
        """Refuse values that no weak labels have.

        Raises:
            UserError: naming the option.
        """
        self.weak.check()


@dataclass(frozen=True)
class ReferenceMaskOptions:
    """Reference masks, whose options are a dataclass of their own."""

    references: ReferenceOptions = field(default_factory=ReferenceOptions)
    """Reference masks of the discriminator."""

    def check(self) -> None:
        """Refuse values that no reference masks have.

        Raises:
            UserError: naming the option.
        """
        self.references.mask_bank.check()


GROUPS = (
    DataOptions,
    WeakLabelOptions,
    ReferenceMaskOptions,
    NetworkOptions,
    OptimisationOptions,
    ObjectiveOptions,
    RunOptions,
)
"""In the order of the help and of config.yaml."""


def require(holds: bool, options: Any, name: str, wanted: str) -> None:
    """Refuse an option that does not hold.

    Raises:
        UserError: naming the option, what was wanted and what came.
    """
    if not holds:
        raise UserError(f"{name} must be {wanted}, got {getattr(options, name)}")


def at_least_1(options: Any, *names: str) -> None:
    """Refuse the first of these options that is below 1.

    Raises:
        UserError: naming it.
    """
    for name in names:
        require(getattr(options, name) >= 1, options, name, "at least 1")
