"""Options of making the data, apart from the code that uses them: cheap to import."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..errors import UserError

UNLABELLED = 255
"""Weak label of a pixel that no loss looks at."""

MOST_CLASSES = 255
"""Of indices that fit beside 255, the background counted."""

ReferenceKind = Literal["own_weak", "unpaired", "paired", "folder", "augmented", "auto"]

Slices = Literal["auto", "first", "last"]
"""Axis of a volume's slices in its file; auto: by format, shape and spacing."""

Codes = Literal["values", "ilastik", "full"]

Strategy = Literal["auto", "erosion", "disc", "centroid_disc", "box", "skeleton", "scribble"]


def check_reading(threshold: float | None, value: int | None, classes: int | None) -> None:
    """Refuse two options that both say how a mask is to be read, and no number of classes.

    Raises:
        UserError: naming them.
    """
    if classes is not None and not 2 <= classes <= MOST_CLASSES:
        raise UserError(
            f"classes must be 2 to {MOST_CLASSES}, the background counted, got {classes}"
        )
    if value is not None and threshold is not None:
        raise UserError("mask_threshold and mask_value both choose the object; give one of them")
    for name, given in (("mask_threshold", threshold), ("mask_value", value)):
        if classes is not None and given is not None:
            raise UserError(
                f"{name} chooses one object, classes reads all of them; give one of the two"
            )


def reading_options(config: Any) -> dict[str, Any]:
    """The options of a training that :func:`~.dataset.load_split` takes for either split."""
    names = ("masks", "mask_threshold", "mask_value", "classes", "mask_suffix", "slices", "size")
    names += ("patients", "volumes")
    return {name: getattr(config, name) for name in names}


@dataclass(frozen=True)
class WeakOptions:
    """How weak labels come about."""

    strategy: Strategy = "auto"
    """Weak labels are made this way. auto: the files in weak/ where there are any, else erosion.
    erosion: the object's inside. disc, centroid_disc: a disc at a random object pixel, at the
    centroid, cut to the object. box: the bounding box (the one strategy that calls background
    foreground). skeleton: a line in every class, the background too, as people draw scribbles:
    bent and cut short. scribble: the files in weak/, which must be there."""
    iterations: int = 10
    """An object is eroded at most so often; counted down until something is left."""
    keep_topology: bool = False
    """The erosion stops before a ring breaks, an object splits or a hole fills."""
    ratio: float | None = None
    """This share of all pixels of the data set is labelled (0.0012 = 0.12 %), instead of by
    iterations or radius: the same share of every object, its deepest (or nearest to the disc's
    centre) pixels."""
    radius: float = 2.0
    """The discs have this radius in pixels."""
    margin: int = 0
    """The box reaches so many pixels beyond the object on every side."""
    stroke: float = 0.9
    """This share of each skeleton is drawn."""
    jitter: float = 0.3
    """The lines leave the skeletons by at most this share of the way to the outline."""
    wrong: float = 0.0
    """This share of the labelled pixels is wrong: strokes that cross a border, marks on the wrong
    thing. For experiments on how much a training bears."""
    codes: Codes = "values"
    """What the values in the files of weak/ stand for. values: what foreground, background and
    unlabelled say; files without an unlabelled pixel are refused, because 0 may mean not marked, as
    it does in ilastik, napari, 3D Slicer and ITK-SNAP. ilastik: 0 not marked, 1 background, 2 the
    object (with classes, label k is class k - 1). full: as values, and files may be labelled
    throughout."""
    foreground: int = 1
    """Foreground pixels have this value in the files of weak/."""
    background: int | tuple[int, ...] | None = None
    """Background pixels have this value, or one of these, in the files of weak/; default: 0, and
    none where 0 is unlabelled."""
    unlabelled: int = UNLABELLED
    """Unlabelled pixels have this value in the files of weak/; 0 for foreground-only files."""
    seed: int = 0
    """Random discs and wrong marks start from this seed."""

    def __post_init__(self) -> None:
        if isinstance(self.background, list):  # as YAML has it
            object.__setattr__(self, "background", tuple(self.background))
        self.check()

    def check_classes(self, classes: int) -> None:
        """Refuse codes of one object where files hold class indices.

        Raises:
            UserError: naming the option.
        """
        for name in ("foreground", "background"):
            if name in self.codes_given:
                raise UserError(
                    f"weak.{name} is the code of one object; with classes the files in weak/ hold "
                    "class indices"
                )
        if 0 < self.unlabelled < classes:
            raise UserError(
                f"weak.unlabelled (--ignore-index) is {self.unlabelled}, which is a class of "
                f"{classes}; files that leave the background out have 0"
            )
        if self.strategy == "box":
            raise UserError("weak.strategy box: boxes of several classes overlap; choose another")

    def check(self) -> None:
        """Refuse what makes no weak labels.

        Raises:
            UserError: naming the option.
        """
        known = get_args(Strategy)
        if self.strategy not in known:
            raise UserError(f"weak.strategy: wanted one of {', '.join(known)}, got {self.strategy}")
        self._check_codes()
        if self.iterations < 0 or self.radius < 0 or self.margin < 0:
            raise UserError("weak.iterations, weak.radius and weak.margin cannot be negative")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UserError(f"weak.ratio: wanted a fraction above 0, at most 1, got {self.ratio}")
        if not 0 < self.stroke <= 1:
            raise UserError(f"weak.stroke: wanted a share above 0, at most 1, got {self.stroke}")
        if not 0 <= self.wrong < 1:
            raise UserError(f"weak.wrong: wanted a share from 0, below 1, got {self.wrong}")
        if not 0 <= self.jitter <= 1:
            raise UserError(f"weak.jitter: wanted 0 to 1, got {self.jitter}")
        if self.ratio is not None and self.strategy == "skeleton":
            raise UserError("weak.ratio: lines are one pixel wide; weak.stroke says how long")
        if self.ratio is not None and self.strategy == "box":
            raise UserError("weak.ratio: a box has the size of its object; choose another strategy")
        if self.seed < 0:
            raise UserError(f"weak.seed: wanted 0 or more, got {self.seed}")
        if self.keep_topology and self.strategy not in ("auto", "erosion"):
            raise UserError("weak.keep_topology goes with strategy erosion alone")

    def _check_codes(self) -> None:
        known = get_args(Codes)
        if self.codes not in known:
            raise UserError(f"weak.codes: wanted one of {', '.join(known)}, got {self.codes}")
        named = [name for name in self.codes_given if name != "codes"]
        if self.codes == "ilastik" and named:
            raise UserError(
                f"weak.codes ilastik is 0 not marked, 1 background, 2 the object; weak.{named[0]} "
                "would say something else, leave one of the two out"
            )
        if self.foreground == self.unlabelled:
            raise UserError(
                f"weak.foreground and weak.unlabelled are both {self.foreground}; "
                "files of 0 and 255 that mark the foreground alone: unlabelled 0, foreground 255"
            )
        for value in {self.foreground, self.unlabelled} & set(self.background_values):
            other = "foreground" if value == self.foreground else "unlabelled"
            raise UserError(f"weak.background and weak.{other} are both {value}")

    @property
    def codes_given(self) -> list[str]:
        """The options of reading files in weak/ that are not as by default."""
        names = ("codes", "foreground", "background", "unlabelled")
        return [name for name in names if getattr(self, name) != getattr(WeakOptions, name)]

    @property
    def background_values(self) -> tuple[int, ...]:
        """Values of the background in the files of weak/; may be none."""
        if self.background is None:
            return () if 0 in (self.foreground, self.unlabelled) else (0,)
        return self.background if isinstance(self.background, tuple) else (self.background,)


@dataclass(frozen=True)
class MaskBankOptions:
    """Ranges the parameters of one reference mask are drawn from, uniformly."""

    shift: float = 0.25
    """A mask moves along each axis by at most this fraction of the image's side."""
    flip: bool = True
    """Masks are mirrored left-right and up-down, each with probability 1/2."""
    scale_min: float = 0.6
    """Lengths are scaled at least by this factor (drawn on a logarithmic axis)."""
    scale_max: float = 1.5
    """Lengths are scaled at most by this factor."""
    rotation: float = 180.0
    """A mask turns to either side by at most so many degrees."""
    warp: float = 0.04
    """The elastic warping displaces pixels by this root mean square, as a fraction of the object's
    diameter."""
    warp_smoothness: float = 0.2
    """The displacement is smoothed by a Gaussian of this standard deviation, in the same unit."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Refuse what makes no reference masks.

        Raises:
            UserError: naming the option.
        """
        if not 0 < self.scale_min <= self.scale_max:
            raise UserError(
                "mask_bank: wanted 0 < scale_min <= scale_max, "
                f"got {self.scale_min} and {self.scale_max}"
            )
        if min(self.shift, self.rotation, self.warp) < 0 or self.warp_smoothness <= 0:
            raise UserError(
                "mask_bank: shift, rotation and warp cannot be negative, warp_smoothness is above 0"
            )


@dataclass(frozen=True)
class ReferenceOptions:
    """The masks that the discriminator sees as real."""

    kind: ReferenceKind | None = None
    """The discriminator sees these masks as real. own_weak: the image's own weak mask. unpaired: a
    mask drawn from the training set. paired: the image's own mask. folder: a mask drawn from
    folder. augmented: random translation, flip, scaling, rotation and warping of the masks of
    folder, or of painted training masks. auto: folder, but augmented where it holds fewer than 20
    masks. Default: where a folder is named, folder (accl_crf: auto), else what the method says."""
    folder: str | None = None
    """Painted or synthetic masks are read from this folder; default for kinds folder and auto, and
    where the training images have no masks: DATA/train/references."""
    painted: int = 5
    """So many training masks, spread over the sizes, count as painted by hand, with kind augmented
    and no folder."""
    count: int = 200
    """So many masks are made, with kind augmented."""
    mask_bank: MaskBankOptions = field(default_factory=MaskBankOptions)
    """Reference masks of kind augmented: ranges of the random changes."""


@dataclass(frozen=True)
class ImageMoves:
    """Ranges of the random changes of a training image in a step; the defaults change nothing.

    One move of all that belongs to the image (labels, mask and reference mask), and one change of
    its grey values. The paper has neither.
    """

    shift: float | None = 0.0
    """An image moves along each axis by at most this fraction of its side; null: a third of what
    the objects leave free of it, at most 0.25."""
    flip: bool = False
    """Images are mirrored left-right and up-down, each with probability 1/2."""
    rotation: float = 0.0
    """An image turns to either side by at most so many degrees."""
    scale: float = 1.0
    """An image is enlarged at most by this factor and reduced at most by its reciprocal.
    All that is known of an object's size is scaled with it."""
    grey: float = 0.0
    """Grey values (black 0, white 1) change at most by this much: with 0.2 a factor from 1 / 1.2 to
    1.2, an offset from -0.2 to 0.2 and a gamma from 1 / 1.2 to 1.2."""

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Refuse what moves no image.

        Raises:
            UserError: naming the option.
        """
        if self.shift is not None and not 0 <= self.shift < 1:
            raise UserError(f"image_moves.shift: wanted 0 to below 1, got {self.shift}")
        if not 0 <= self.rotation <= 180:
            raise UserError(f"image_moves.rotation: wanted 0 to 180 degrees, got {self.rotation}")
        if not 1 <= self.scale < math.inf:
            raise UserError(f"image_moves.scale: wanted 1 or more, got {self.scale}")
        if not 0 <= self.grey < math.inf:
            raise UserError(f"image_moves.grey: wanted 0 or more, got {self.grey}")

    @property
    def geometric(self) -> bool:
        """Whether anything changes its place."""
        return dataclasses.replace(self, grey=0.0) != ImageMoves()
