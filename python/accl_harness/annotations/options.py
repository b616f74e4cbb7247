"""Options of ``accl import``, apart from the code that uses them: cheap to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..data.options import Slices
from ..errors import UserError


@dataclass(frozen=True)
class ImportOptions:
    """How label files are understood."""

    to: Literal["weak", "masks", "references", "images"] = "weak"
    """The labels go to this folder. weak: what is not marked is unlabelled. masks: it is
    background. references: likewise, and the images are left where they are. images: the series of
    a DICOM folder without labels."""
    split: Literal["train", "test"] = "train"
    """The files go to this part of the data set."""
    images: str | None = None
    """The images are in this folder; default: where the label files say, beside them, or in images/
    beside them."""
    mask_suffix: str = ""
    """Names of images of labels have this behind those of their images (_mask)."""
    table: str | None = None
    """What labels, values or colours stand for: a file of lines such as '1: cell', '#ff0000:
    vessel' or 'label: class' (YAML; '*' is all others), CVAT's labelmap.txt, the labels of ITK-SNAP
    or 3D Slicer. Or a word. ilastik: 1 background, 2 the object. values: each value is a class.
    instances: all values are one class. The class background is index 0, unlabelled is not
    known."""
    stroke: float = 3.0
    """Lines are drawn with this width, points as discs of this diameter, in pixels."""
    threshold: float | None = None
    """Of soft brushes, what lies above this value is the object."""
    boxes: bool = False
    """Boxes are filled. Without this they are refused, since their corners are background."""
    clip: bool = False
    """Shapes that reach out of their image are cut off at its edge, not refused."""
    overlap: Literal["refuse", "last"] = "refuse"
    """Two classes on one pixel. last: the later shape of the file counts."""
    replace: bool = False
    """Label files that are there already are replaced."""
    window: str = "none"
    """Grey values of DICOM are cut to this window: none, file (what each file names) or
    CENTRE,WIDTH, as 40,400."""
    slices: Slices = "auto"
    """A volume's slices lie along this axis of its file."""

    def __post_init__(self) -> None:
        if not self.stroke >= 1:
            raise UserError(f"--stroke: wanted at least 1 pixel, got {self.stroke:g}")
