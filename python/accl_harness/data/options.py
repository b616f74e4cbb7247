"""Options of making the data, apart from the code that uses them: cheap to import."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..errors import UserError

UNLABELLED = 255
"""Weak label of a pixel that no loss looks at."""

ReferenceKind = Literal["own_weak", "unpaired", "paired", "folder", "augmented"]

Slices = Literal["auto", "first", "last"]
"""Axis of a volume's slices in its file; auto: by format, shape and spacing."""

Strategy = Literal["auto", "erosion", "disc", "centroid_disc", "box", "scribble"]


def reading_options(config: Any) -> dict[str, Any]:
    """The options of a training that :func:`~.dataset.load_split` takes for either split."""
    names = ("masks", "mask_threshold", "mask_value", "mask_suffix", "slices", "size", "patients")
    return {name: getattr(config, name) for name in names}


@dataclass(frozen=True)
class WeakOptions:
    """How weak labels come about."""

    strategy: Strategy = "auto"
    """auto: the files in weak/ where there are any, else erosion. erosion: the object's
    inside. disc, centroid_disc: a disc at a random object pixel, at the centroid, cut to the
    object. box: the bounding box (the one strategy that calls background foreground).
    scribble: the files in weak/, which must be there."""
    iterations: int = 10
    """Erosions at most; counted down until something is left."""
    keep_topology: bool = False
    """Stop before a ring breaks, an object splits or a hole fills."""
    ratio: float | None = None
    """Share of all pixels of the data set to label (0.0012 = 0.12 %), instead of iterations or
    radius: the same share of every object, its deepest (or nearest to the disc's centre) pixels."""
    radius: float = 2.0
    """Of the discs, in pixels."""
    margin: int = 0
    """Pixels the box reaches beyond the object on every side."""
    foreground: int = 1
    """Value of the foreground in the files of weak/."""
    background: int | tuple[int, ...] | None = None
    """Value, or values, of the background in the files of weak/; default: 0, and none where 0 is
    unlabelled."""
    unlabelled: int = UNLABELLED
    """Value of the unlabelled pixels in the files of weak/; 0 for foreground-only files."""
    seed: int = 0
    """Of the random discs."""

    def __post_init__(self) -> None:
        known = get_args(Strategy)
        if self.strategy not in known:
            raise UserError(f"weak.strategy: wanted one of {', '.join(known)}, got {self.strategy}")
        if self.iterations < 0 or self.radius < 0 or self.margin < 0:
            raise UserError("weak.iterations, weak.radius and weak.margin cannot be negative")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UserError(f"weak.ratio: wanted a fraction above 0, at most 1, got {self.ratio}")
        if self.ratio is not None and self.strategy == "box":
            raise UserError("weak.ratio: a box has the size of its object; choose another strategy")
        if self.seed < 0:
            raise UserError(f"weak.seed: wanted 0 or more, got {self.seed}")
        if self.keep_topology and self.strategy not in ("auto", "erosion"):
            raise UserError("weak.keep_topology goes with strategy erosion alone")
        if isinstance(self.background, list):  # as YAML has it
            object.__setattr__(self, "background", tuple(self.background))
        if self.foreground == self.unlabelled:
            raise UserError(
                f"weak.foreground and weak.unlabelled are both {self.foreground}; "
                "files of 0 and 255 that mark the foreground alone: unlabelled 0, foreground 255"
            )
        for value in {self.foreground, self.unlabelled} & set(self.background_values):
            other = "foreground" if value == self.foreground else "unlabelled"
            raise UserError(f"weak.background and weak.{other} are both {value}")

    @property
    def background_values(self) -> tuple[int, ...]:
        """Values of the background in the files of weak/; may be none."""
        if self.background is None:
            return () if 0 in (self.foreground, self.unlabelled) else (0,)
        return self.background if isinstance(self.background, tuple) else (self.background,)


@dataclass(frozen=True)
class Augmentation:
    """Ranges the parameters of one reference mask are drawn from, uniformly."""

    shift: float = 0.25
    """Largest move along each axis, as a fraction of the image's side."""
    flip: bool = True
    """Mirror left-right and up-down, each with probability 1/2."""
    scale_min: float = 0.6
    scale_max: float = 1.5
    """Range of the linear scale (drawn on a logarithmic axis)."""
    rotation: float = 180.0
    """Largest turn to either side, in degrees."""
    warp: float = 0.04
    """Root mean square displacement of the elastic warping, as a fraction of the object's
    diameter."""
    warp_smoothness: float = 0.2
    """Standard deviation of the Gaussian that smooths the displacement, in the same unit."""

    def __post_init__(self) -> None:
        if not 0 < self.scale_min <= self.scale_max:
            raise UserError(
                "augmentation: wanted 0 < scale_min <= scale_max, "
                f"got {self.scale_min} and {self.scale_max}"
            )
        if min(self.shift, self.rotation, self.warp) < 0 or self.warp_smoothness <= 0:
            raise UserError(
                "augmentation: shift, rotation and warp cannot be negative, "
                "warp_smoothness is above 0"
            )


@dataclass(frozen=True)
class ReferenceOptions:
    """The masks that the discriminator sees as real."""

    kind: ReferenceKind | None = None
    """own_weak: the image's own weak mask. unpaired: a mask drawn from the training set. paired:
    the image's own mask. folder: a mask drawn from ``folder``. augmented: random translation,
    flip, scaling, rotation and warping of the masks of ``folder``, or of ``painted`` training
    masks. Default: folder where one is named, else what the method says."""
    folder: str | None = None
    """Folder of painted or synthetic masks; default for kind folder: DATA/train/references."""
    painted: int = 5
    """With kind augmented and no folder: how many training masks count as painted by hand."""
    count: int = 200
    """With kind augmented: how many masks are made."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """With kind augmented: ranges of the random changes."""


@dataclass(frozen=True)
class ImageAugmentation:
    """Ranges of one random move per training image and step, of all that belongs to it: image,
    labels, mask and reference mask; and of one change of the image's grey values. The defaults
    change nothing, as the paper."""

    shift: float | None = 0.0
    """Largest move along each axis, as a fraction of the image's side; null: a third of what the
    objects leave free of it, at most 0.25."""
    flip: bool = False
    """Mirror left-right and up-down, each with probability 1/2."""
    rotation: float = 0.0
    """Largest turn to either side, in degrees."""
    scale: float = 1.0
    """Largest enlargement; the largest reduction is its reciprocal. Sizes change with it, the
    bounds of the size penalty do not."""
    grey: float = 0.0
    """Largest change of the grey values (black 0, white 1): with 0.2 a factor from 1 / 1.2 to 1.2,
    an offset from -0.2 to 0.2 and a gamma from 1 / 1.2 to 1.2."""

    def __post_init__(self) -> None:
        if self.shift is not None and not 0 <= self.shift < 1:
            raise UserError(f"augment.shift: wanted 0 to below 1, got {self.shift}")
        if not 0 <= self.rotation <= 180:
            raise UserError(f"augment.rotation: wanted 0 to 180 degrees, got {self.rotation}")
        if not 1 <= self.scale < math.inf:
            raise UserError(f"augment.scale: wanted 1 or more, got {self.scale}")
        if not 0 <= self.grey < math.inf:
            raise UserError(f"augment.grey: wanted 0 or more, got {self.grey}")

    @property
    def moves(self) -> bool:
        """Whether anything changes its place."""
        return dataclasses.replace(self, grey=0.0) != ImageAugmentation()


@dataclass(frozen=True)
class CRFOptions:
    """The gated CRF: pixels of like grey value near each other shall get the same label."""

    weight: float | None = None
    """Weight of the term, 0 for off. Default: 0, but with sccl_crf and accl_crf as much as gives
    the reference masks ``cost`` in an image without edges."""
    cost: float = 0.73
    """With those two and no ``weight``: what the term costs a reference mask, on average, where
    the image has no edges."""
    radius: int = 5
    """Pixels from a pixel to the edge of its window."""
    sigma_space: float = 6.0
    """Distance in pixels at which the tie of two pixels has fallen to 0.6."""
    sigma_image: float | None = None
    """Difference of grey values, of images in [-1, 1], at which the tie has fallen to 0.6; default:
    twice the median difference of neighbouring pixels of the training images."""

    def __post_init__(self) -> None:
        for name in ("weight", "cost"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"crf.{name}: wanted 0 or more, got {value}")
        if self.radius < 1:
            raise UserError(f"crf.radius: wanted at least 1, got {self.radius}")
        for name in ("sigma_space", "sigma_image"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"crf.{name}: wanted above 0, got {value}")
