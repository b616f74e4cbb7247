"""The files behind the window: images, marks and painted masks of one data set.

In a layer of napari 0 is transparent, so there it means "not marked", 1 is the background and 2 the
first class. In the files these are 255, 0 and 1: one less, as numbers of 8 bits count.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..data.class_names import read_class_names
from ..data.formats import ImageFile, output_path, read_image, suffix_of, write_labels
from ..data.labels import MaskReader
from ..data.options import UNLABELLED, WeakOptions
from ..data.pairing import list_files, read_partner
from ..data.weak_files import weak_values
from ..errors import UserError

SPLIT = "train"


class MarkFolder:
    """The training images of a data set, with what people draw on them.

    Args:
        root: the data set; its images are in ``train/images``.
        classes: number of classes; default: as ``classes.yaml`` names them, else one object.

    Raises:
        UserError: no images there.
    """

    def __init__(self, root: str | Path, classes: int | None = None):
        self.root = Path(root)
        self.folder = self.root / SPLIT
        if not (self.folder / "images").is_dir():
            raise UserError(f"{self.folder / 'images'}: no such folder; the images belong there")
        self.paths = list_files(self.folder / "images")
        self.names = list(self.paths)
        named = read_class_names(self.root)
        if classes is None and named is not None and len(named) > 2:
            classes = len(named)
        self.classes = classes
        self.class_names = named or ("background", "object")
        if classes is not None and len(self.class_names) != classes:
            if named is not None:
                raise UserError(f"{self.root}: names {len(named)} classes, --classes is {classes}")
            self.class_names = ("background", *(f"class {k}" for k in range(1, classes)))

    def file(self, name: str) -> ImageFile:
        """The image as it lies on the disk."""
        return read_image(self.paths[name])

    def marks(self, name: str) -> np.ndarray:
        """The marks as a layer: uint8 of the image's shape, 0 where nobody marked."""
        return self._layer(name, "weak", UNLABELLED)

    def mask(self, name: str) -> np.ndarray:
        """The painted mask as a layer: uint8, 0 background, k the class k."""
        return self._layer(name, "references", 0)

    def _layer(self, name: str, kind: str, empty: int) -> np.ndarray:
        image = self.file(name)
        path = self._target(name, kind)
        values = np.full(image.array.shape, empty, np.uint8)
        if path.is_file() and kind == "weak":
            file = read_partner(path, "weak", image, "auto")
            values = weak_values(file, WeakOptions(), self.classes)
        elif path.is_file():
            file = read_partner(path, "mask", image, "auto")
            values = MaskReader(classes=self.classes).read(file)
        return values + np.uint8(1) if kind == "weak" else values.copy()

    def save_marks(self, name: str, layer: np.ndarray) -> None:
        """Write a layer of marks to ``weak/``, whole or not at all."""
        self._save(name, "weak", np.asarray(layer, np.uint8) - np.uint8(1))

    def save_mask(self, name: str, layer: np.ndarray) -> None:
        """Write a layer of a painted mask to ``references/``; an empty one takes the file away."""
        if not np.any(layer):
            self._target(name, "references").unlink(missing_ok=True)
            return
        self._save(name, "references", np.asarray(layer, np.uint8))

    def _save(self, name: str, kind: str, values: np.ndarray) -> None:
        path = self._target(name, kind)
        # The same suffix, for the format; hidden, so that no reader takes it for a label.
        partial = path.with_name(f".partial_{os.getpid()}_{path.name}")
        key = "weak" if kind == "weak" else "mask"
        try:
            write_labels(partial, values, self.file(name), key=key)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _target(self, name: str, kind: str) -> Path:
        path = output_path(self.folder / kind, self.paths[name])
        found = [p for p in (self.folder / kind).glob(f"{name}.*") if suffix_of(p)]
        return found[0] if len(found) == 1 else path

    def complete(self) -> None:
        """Give each image that nobody has marked yet a file that says so, as a training wants."""
        for name in self.names:
            if not self._target(name, "weak").is_file():
                self.save_marks(name, np.zeros(self.file(name).array.shape, np.uint8))

    def marked(self) -> list[str]:
        """The images with a mark of an object."""
        return [name for name in self.names if np.any(self.marks(name) > 1)]

    def painted(self) -> list[str]:
        """The images that are painted whole."""
        return [name for name in self.names if self._target(name, "references").is_file()]


def three_sizes(sizes: dict[str, int]) -> list[str]:
    """The names of a small, a middling and a large object: the 1/6, 3/6 and 5/6 quantiles.

    Three such masks have about the mean size of all, as the size terms want.

    Args:
        sizes: name -> pixels; those without an object do not count.
    """
    ranked = sorted((name for name, size in sizes.items() if size), key=lambda name: sizes[name])
    if len(ranked) <= 3:
        return ranked
    return [ranked[int(len(ranked) * share)] for share in (1 / 6, 3 / 6, 5 / 6)]


def doubt(probabilities: np.ndarray) -> float:
    """How unsure a prediction is: its mean entropy in bits, over the pixels.

    Args:
        probabilities: [C, H, W]; one channel is the object's, several sum to 1.
    """
    shares = probabilities.astype(np.float64)
    if len(shares) == 1:
        shares = np.concatenate([shares, 1 - shares])
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return float(-(shares * logs).sum(0).mean())
