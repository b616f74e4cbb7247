"""Every option of a training in one typed place: YAML file, command line and Python alike."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from .data.options import (
    CRFOptions,
    ImageAugmentation,
    ReferenceOptions,
    Slices,
    WeakOptions,
)
from .defaults import MethodDefaults
from .errors import UserError
from .methods import METHODS, PAPER_BOUNDS

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
]
PresetName = Literal["small", "paper", "demo"]
BoundsName = Literal["training", "none", "paper_disc", "paper_cup", "paper_lv", "paper_pupil"]

MIN_ACCL_SIZE = 24
"""The smallest size of which D makes a score: 24, 12, 6, 3, 2, 1."""


@dataclass(frozen=True)
class TrainConfig(MethodDefaults):
    """One training run."""

    data: str | None = None
    """Data set: ROOT with {train,test}/{images,masks}."""
    method: MethodName = "unpaired_accl"
    """Method of the paper's Table 1, or sccl_crf or accl_crf, which look at the image as well."""
    out: str | None = None
    """Run folder."""
    init: str | None = None
    """Run folder whose weights the training starts from: more epochs for a finished run, or a
    start on other data. The networks must be the same; ``prior`` is without effect then."""
    preset: PresetName = "small"
    """small: minutes on 2 cores; paper: the paper's settings; demo: phantoms in seconds."""
    seed: int = 0
    """Of everything random: initial weights, order, dropout, reference masks."""

    masks: str = "masks"
    """Name of the mask folder."""
    mask_threshold: float | None = None
    """Foreground is above this value; default: a mask holds 0 and one other value."""
    mask_value: int | None = None
    """Foreground equals this value: one class of masks that hold class indices."""
    mask_suffix: str = ""
    """What the names of masks have behind those of their images, as in scan_mask.png."""
    slices: Slices = "auto"
    """Axis of a volume's slices in its file; auto: by format, shape and spacing."""
    patients: str | None = None
    """Regular expression whose first group is the patient in a file's name."""
    limit: int | None = None
    """Use only the first so many training images."""
    validation: float = 0.0
    """Share of the training patients kept for the curves of DSC and size ratio."""
    weak: WeakOptions = field(default_factory=WeakOptions)
    """Weak labels."""
    references: ReferenceOptions = field(default_factory=ReferenceOptions)
    """Reference masks of the discriminator."""
    augment: ImageAugmentation = field(default_factory=lambda: ImageAugmentation(shift=None))
    """Random moves of the training images with their labels and reference masks."""
    crf: CRFOptions = field(default_factory=CRFOptions)
    """Gated CRF; ``--crf W`` is short for ``--crf.weight W``."""

    size: int = 128
    """Images are resized to size x size pixels."""
    width: int = 16
    """Channels of the outermost level of both networks."""
    depth: int | None = None
    """Halvings in the segmentation network; default: as many as the size allows, at most 8."""
    norm: Literal["batch", "instance", "none"] = "batch"
    """Norm layers of both networks."""
    test_norm: Literal["image", "running"] = "image"
    """Batch norm at test: statistics of the image itself, or running averages."""
    dropout: float = 0.5
    """In the decoder blocks next to the innermost."""
    prior: float | None = None
    """Initial foreground probability: the bias of the last layer is its logit; null: the share of
    the image that the reference masks' objects take."""
    pad: bool = False
    """Pad inside the network where the depth cannot halve the size."""

    epochs: int = 60
    """Passes over the training set; the learning rate falls during the second half."""
    batch_size: int = 1
    """Images a step, over all processes together."""
    lr: float = 2e-4
    """Initial learning rate of both networks (Adam)."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Of Adam."""
    alpha: float | None = None
    """Weight of ACCL, 0 for off; default: the method's (1e-3 partial, 1e-2 unpaired and
    paired, 0.3 accl_crf)."""
    alpha_scale: float = 1.0
    """Factor of the default weight of ACCL of the paper's methods, and of the paper's own with
    ``--paper-settings``; without effect where ``alpha`` is given."""
    size_weight: float | None = None
    """Weight of the size penalty, 0 for off; default: 0.01 for sccl, else 0."""
    bounds: BoundsName | tuple[float, float] = "training"
    """Size bounds a, b in pixels at the working size; training: 0.9 min and 1.1 max of the sizes
    of the training masks; paper_*: the paper's, scaled from 256 x 256. ``[10, .inf]`` leaves the
    upper side free."""
    size_prior: float | None = None
    """Weight of the soft size prior, which draws each image's size to the reference masks' (mean
    and deviation of their logarithm), 0 for off; default: 0.1 for accl_crf, else 0."""
    size_balance: float | None = None
    """Weight of the term that holds the mean size over the training images at the reference
    masks', 0 for off; default: 3 for accl_crf, else 0."""
    conditional: bool | None = None
    """The discriminator sees the image beside the mask. With masks of other images that can teach
    it that what follows the image's edges is no reference mask; then try false. Default: false for
    accl_crf, else true."""
    soften: float | None = None
    """Gaussian blur of the reference masks before the discriminator sees them, standard deviation
    in pixels: it tells hard masks from probabilities at once; default: 1 for accl_crf, else 0."""
    d_noise: float | None = None
    """Standard deviation of Gaussian noise on all masks that the discriminator sees; default: 0.2
    for accl_crf, else 0."""
    criterion: Literal["lsgan", "vanilla", "hinge"] = "lsgan"
    """Adversarial loss."""
    discriminator_scale: float = 1.0
    """Factor of the discriminator's loss; pix2pix has 0.5."""

    backend: Literal["fused", "reference"] = "fused"
    """fused: the compiled ops; reference: pure PyTorch."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    devices: int = 1
    """Processes, one a device; under torchrun its own number counts."""
    precision: Literal["32", "bf16", "16", "64"] = "32"
    """float32; mixed with bfloat16 or float16 (CUDA alone); float64 for comparisons."""
    cuda_graph: bool = False
    """Run the whole step as one CUDA graph: one process, not with precision 16."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    tensorboard: bool = True
    """Write the curves for TensorBoard as well."""

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with some options changed."""
        return dataclasses.replace(self, **changes)


PRESETS: dict[str, dict[str, Any]] = {
    "small": {},
    "paper": {
        "size": 256,
        "width": 64,
        "depth": 8,
        "epochs": 200,
        "prior": 0.5,
        "augment": ImageAugmentation(),
        "checkpoint_every": 10,
    },
    "demo": {
        "size": 64,
        "epochs": 40,
        "batch_size": 4,
        "lr": 1e-3,
        "prior": 0.25,
        "augment": ImageAugmentation(),
        "alpha_scale": 10.0,
    },
}
"""What each preset changes of :class:`TrainConfig`'s defaults (those are preset ``small``).

``small`` measures ``prior`` and ``augment.shift`` on the masks. With the foreground alone labelled,
nothing but the constraint lowers a probability: from 0.5 the sigmoid saturates before D can act,
while far below the object's share the object is found late or not at all. Without moves a few
labels at about one place teach the place and not the object.
``demo`` starts at 0.25, so that partial cross-entropy floods within its 600 short steps; its few
steps of a higher rate also want more weight on ACCL.
"""


def make_config(preset: str = "small", **options: Any) -> TrainConfig:
    """The config of a preset with some options set."""
    if preset not in PRESETS:
        raise UserError(f"preset must be one of {', '.join(PRESETS)}, got '{preset}'")
    return TrainConfig(**{"preset": preset, **PRESETS[preset], **options})


def check_config(config: TrainConfig) -> None:
    """Refuse values that no training can use, before anything is loaded or written.

    Raises:
        UserError: naming the option, what was wanted and what came.
    """
    _choice("method", config.method, METHODS)
    for name in ("size", "width", "epochs", "batch_size", "devices", "checkpoint_every"):
        _require(getattr(config, name) >= 1, config, name, "at least 1")
    for name in (
        "alpha",
        "alpha_scale",
        "size_weight",
        "size_prior",
        "size_balance",
        "soften",
        "d_noise",
    ):
        value = getattr(config, name)
        _require(value is None or 0 <= value < math.inf, config, name, "0 or more")
    _require(config.seed >= 0, config, "seed", "0 or more")
    _require(0 < config.lr < math.inf, config, "lr", "above 0")
    _require(all(0 <= beta < 1 for beta in config.betas), config, "betas", "from 0 to below 1")
    _require(0 <= config.dropout < 1, config, "dropout", "0 to below 1")
    given = config.prior is not None
    _require(not given or 0 < config.prior < 1, config, "prior", "between 0 and 1 (exclusive)")
    _require(0 <= config.validation < 1, config, "validation", "0 to below 1")
    _require(config.limit is None or config.limit >= 1, config, "limit", "at least 1")
    if config.accl_weight > 0:
        wanted = f"at least {MIN_ACCL_SIZE} with ACCL, whose discriminator halves it three times"
        _require(config.size >= MIN_ACCL_SIZE, config, "size", wanted)
    folder, kind = config.references.folder, config.reference_kind
    if config.uses_references and folder and kind not in ("folder", "augmented"):
        raise UserError(
            f"references.folder goes with references.kind folder or augmented, got {kind}"
        )
    if config.mask_threshold is not None and config.mask_value is not None:
        raise UserError("mask_threshold and mask_value both choose the object; give one of them")
    if config.cuda_graph and config.precision == "16":
        raise UserError(
            "cuda_graph does not go with precision 16, whose loss scaling looks at "
            "the gradients; use bf16 or 32"
        )
    if config.penalty_weight > 0 and config.bounds == "none":
        raise UserError(f"method {config.method} needs size bounds, got bounds: none")
    if not isinstance(config.bounds, str) and config.bounds[0] > config.bounds[1]:
        raise UserError(f"bounds must be a lower and an upper size, got {list(config.bounds)}")
    _refuse_nan(dataclasses.asdict(config))


_OF_ACCL = (
    "references",
    "alpha_scale",
    "conditional",
    "soften",
    "d_noise",
    "criterion",
    "discriminator_scale",
)


def refuse_idle_options(config: TrainConfig) -> None:
    """Refuse options of ACCL with a method that has none; ``alpha`` turns it on for any.

    ``references`` count for the size prior and the CRF's default weight as well.

    Raises:
        UserError: naming the option.
    """
    if config.table_row.accl or config.alpha is not None:
        return
    preset = make_config(config.preset)
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


def size_bounds(config: TrainConfig, sizes: list[int]) -> tuple[float, float] | None:
    """Bounds a, b in pixels at the working size.

    Args:
        config: its ``bounds`` say which.
        sizes: foreground pixels of each training mask at the working size; empty masks do not
            count (they would make every lower bound 0).
    """
    if not isinstance(config.bounds, str):
        return (float(config.bounds[0]), float(config.bounds[1]))
    if config.bounds == "none":
        return None
    if config.bounds == "training":
        present = [size for size in sizes if size > 0]
        return (0.9 * min(present), 1.1 * max(present)) if present else None
    scale = (config.size / 256) ** 2
    lower, upper = PAPER_BOUNDS[config.bounds]
    return (lower * scale, upper * scale)


def _refuse_nan(options: dict[str, Any], prefix: str = "") -> None:
    """NaN passes every comparison that refuses a value; it means something in bounds alone."""
    for name, value in options.items():
        if isinstance(value, dict):
            _refuse_nan(value, f"{prefix}{name}.")
        elif isinstance(value, float) and math.isnan(value):
            raise UserError(f"{prefix}{name} must be a number, got nan")


def _choice(name: str, value: str, allowed: dict[str, Any]) -> None:
    if value not in allowed:
        raise UserError(f"{name} must be one of {', '.join(allowed)}, got '{value}'")


def _require(holds: bool, config: TrainConfig, name: str, wanted: str) -> None:
    if not holds:
        raise UserError(f"{name} must be {wanted}, got {getattr(config, name)}")
