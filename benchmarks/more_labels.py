"""Data sets that differ in how much of the training images is labelled, each label of it right.

    python benchmarks/more_labels.py DATA OUT --ratio 0.0012
    accl train --data OUT/background_all --method accl_crf --validation 0.2 --out RUN

More right labels must never cost anything. ``OUT/NAME`` has the images and masks of ``DATA``, as
links, and its own ``train/weak``:

==================  ==============================================================================
name                labels
==================  ==============================================================================
``images_25``       marks in a third of the training images, the others unmarked
``images_50``       marks in two thirds of them
``marks``           marks in all of them: the object's deepest pixels, ``--ratio`` of all pixels
``background_some`` besides in each image a stroke of background of 0.3 % of its pixels
``background_all``  besides all background farther from the marks than twice the median radius
``painted_3``       as marks, and three images painted whole: a small, a middling and a large object
``painted_10``      ten images painted whole, the others unmarked
``painted_all``     all images painted whole; a training on it takes ``--weak.codes full``
==================  ==============================================================================
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from accl_harness.data.formats import read_image, write_labels
from accl_harness.data.labels import MaskReader
from accl_harness.data.options import UNLABELLED, WeakOptions
from accl_harness.data.weak import weaken
from scipy import ndimage

SOME = 0.003
"""The stroke of background, as a share of the image's pixels."""

SEED = 20261201
"""Of no training: ``--validation`` draws a permutation of the same images from the training's seed,
and with seed 0 here as well it set the labelled images aside, all ten of ``painted_10``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train and test, images and masks")
    parser.add_argument("out", type=Path, help="the data sets are written here")
    parser.add_argument("--masks", default="masks", help="the folder of masks")
    parser.add_argument("--ratio", type=float, default=0.0012, help="share of pixels marked")
    options = parser.parse_args()
    paths = sorted((options.data / "train" / options.masks).iterdir())
    reader = MaskReader()
    masks = [reader.read(read_image(path, "mask")) for path in paths]
    marks = weaken(masks, WeakOptions(ratio=options.ratio))
    for name, labels in data_sets(masks, marks):
        link_data(options.data, options.out / name, options.masks)
        for path, label in zip(paths, labels, strict=True):
            write_labels(options.out / name / "train/weak" / path.name, label)
        share = np.mean([np.mean(label != UNLABELLED) for label in labels])
        print(f"{name}: {100 * share:.3f} % of the pixels labelled")


def data_sets(
    masks: list[np.ndarray], marks: list[np.ndarray]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Name and weak labels of each data set."""
    count = len(masks)
    nothing = np.full_like(marks[0], UNLABELLED)
    rng = np.random.default_rng(SEED)
    order = rng.permutation(count)
    for name, part in (("images_25", count // 3), ("images_50", 2 * count // 3)):
        chosen = set(order[:part].tolist())
        yield name, [mark if i in chosen else nothing for i, mark in enumerate(marks)]
    yield "marks", marks

    areas = np.array([np.count_nonzero(mask) for mask in masks])
    far = 2 * np.sqrt(np.median(areas[areas > 0]) / np.pi)
    pairs = list(zip(masks, marks, strict=True))
    beyond = [(distance_to_marks(mark) > far) & (mask == 0) for mask, mark in pairs]
    yield "background_all", [np.where(b, 0, m) for b, m in zip(beyond, marks, strict=True)]
    strokes = [
        stroke(b, distance_to_marks(mark), round(SOME * mark.size), rng)
        for b, mark in zip(beyond, marks, strict=True)
    ]
    yield "background_some", [np.where(s, 0, m) for s, m in zip(strokes, marks, strict=True)]

    by_size = np.argsort(areas, kind="stable")
    typical = {int(part[len(part) // 2]) for part in np.array_split(by_size, 3)}
    full = [np.asarray(mask, np.uint8) for mask in masks]
    yield "painted_3", [full[i] if i in typical else mark for i, mark in enumerate(marks)]
    ten = set(order[:10].tolist())
    yield "painted_10", [full[i] if i in ten else nothing for i in range(count)]
    yield "painted_all", full


def distance_to_marks(mark: np.ndarray) -> np.ndarray:
    return ndimage.distance_transform_edt(mark != 1)


def stroke(
    allowed: np.ndarray, distance: np.ndarray, pixels: int, rng: np.random.Generator
) -> np.ndarray:
    """A piece of the line around the marks along the inner edge of ``allowed``, bool [H, W]."""
    drawn = np.zeros(allowed.shape, bool)
    if not allowed.any():
        return drawn
    ring = np.argwhere(allowed & (distance < distance[allowed].min() + 1.5))
    angles = np.arctan2(*(ring - ring.mean(0)).T)
    order = np.argsort((angles - rng.uniform(-np.pi, np.pi)) % (2 * np.pi))
    drawn[tuple(ring[order[:pixels]].T)] = True
    return drawn


def link_data(data: Path, out: Path, masks: str) -> None:
    for split in ("train", "test"):
        (out / split).mkdir(parents=True, exist_ok=True)
        for source, name in (("images", "images"), (masks, "masks")):
            link = out / split / name
            link.unlink(missing_ok=True)
            link.symlink_to((data / split / source).resolve(), target_is_directory=True)


if __name__ == "__main__":
    main()
