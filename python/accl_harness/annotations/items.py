"""What a label file says of one image, whichever tool wrote it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .shapes import Shape


@dataclass(frozen=True)
class Mark:
    """The pixels of one label."""

    label: str
    """What the tool calls its class; values of a label image as ``1``, colours as ``#rrggbb``."""
    mask: np.ndarray
    """bool [H, W] or [H, W, D]."""
    level: int = 0
    """Where two marks share a pixel, the higher level lies on top."""
    name: str = ""
    """For a message."""


@dataclass
class Item:
    """One image and what is drawn on it."""

    source: Path
    """The label file."""
    image: str | None = None
    """The image's name as the label file has it, folders and all."""
    size: tuple[int, int] | None = None
    """Height and width, where the label file tells them."""
    shapes: list[Shape] = field(default_factory=list)
    embedded: bytes | None = None
    """The image file, where the label file holds a copy."""
    raster: bool = False
    """The source is itself an image of labels, and there are no shapes."""
    marks: list[Mark] | None = None
    """Marks that have been made already, in the axes of the image's file."""


@dataclass
class Labels:
    """All that was found, in the order of the files."""

    tool: str
    """What wrote the files, for the report."""
    items: list[Item] = field(default_factory=list)
    declared: list[str] = field(default_factory=list)
    """The labels that the tool lists, in its order; empty where it lists none."""
