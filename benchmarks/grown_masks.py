"""How well masks grown from marks overlap the true masks of the training images.

    python benchmarks/grown_masks.py DATA --ratio 0.0012
    python benchmarks/grown_masks.py DATA --masks masks_disc --ratio 0.0192 --keep-topology

Marks are made from the masks as ``accl weaken`` makes them; without ``--ratio`` each connected
object gets a disc of 2 pixels radius. Sizes come from three masks, typical as
``--references.painted`` takes them. Prints a row for each share of pixels
that is left open, with the share of object pixels that wrongly became background seeds.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from accl_harness.data import grow
from accl_harness.data.dataset import Dataset, load_split
from accl_harness.data.options import UNLABELLED, WeakOptions
from accl_harness.data.pixels import resize_weak
from accl_harness.data.references import make_bank
from scipy import ndimage


def main() -> None:
    """Read the options, grow masks for each share, print what they are worth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--masks", default="masks")
    parser.add_argument("--ratio", type=float)
    parser.add_argument("--keep-topology", action="store_true")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--painted", type=int, default=3)
    parser.add_argument("--every", type=int, default=1, help="take every so many images")
    parser.add_argument("--undecided", type=float, nargs="+", default=[grow.UNDECIDED])
    options = parser.parse_args()

    weak = WeakOptions(ratio=options.ratio, keep_topology=options.keep_topology)
    form = {"masks": options.masks, "size": options.size}
    dataset = load_split(options.data, "train", weak=weak if options.ratio else None, **form)
    if options.ratio is None:
        dataset.weak_labels = torch.from_numpy(marks_in_each_object(dataset))
    bank = make_bank("augmented", dataset, painted=options.painted, n=None)
    dataset = dataset.subset(range(0, len(dataset), options.every))
    labels, masks = dataset.weak_labels.numpy(), dataset.masks.numpy() > 0
    for share in options.undecided:
        grow.UNDECIDED = share
        sizes = grow.Sizes(bank.masks.numpy(), 1)
        seeds = np.stack([sizes.add_background(label) for label in labels])
        wrong = ((seeds == 0) & masks).sum((1, 2)) / masks.sum((1, 2)).clip(1)
        found = grow.with_grown_labels(dataset, bank.masks).weak_labels.numpy() == 1
        overlap = 2 * (found & masks).sum((1, 2)) / (found.sum((1, 2)) + masks.sum((1, 2))).clip(1)
        print(
            f"left open {share:g}: DSC x100 {100 * overlap.mean():.1f}, size ratio "
            f"{found.sum() / masks.sum():.2f}, wrong seeds {100 * wrong.mean():.2f} %"
        )


def marks_in_each_object(dataset: Dataset, radius: float = 2.0) -> np.ndarray:
    """A disc in each connected object, about its pixel nearest to the centroid."""
    found = []
    for i in range(len(dataset)):
        mask = dataset.full_mask(i) != 0
        parts, count = ndimage.label(mask)
        marks = np.full(mask.shape, UNLABELLED, np.uint8)
        rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
        for index, centre in enumerate(ndimage.center_of_mass(mask, parts, range(1, count + 1)), 1):
            pixels = np.argwhere(parts == index)
            row, column = pixels[((pixels - centre) ** 2).sum(1).argmin()]
            near = np.hypot(rows - row, columns - column) <= radius
            marks[near & (parts == index)] = 1
        found.append(resize_weak(marks, dataset.size))
    return np.stack(found)


if __name__ == "__main__":
    main()
