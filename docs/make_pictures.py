"""The pictures of the documentation, from phantoms alone: python docs/make_pictures.py

    docs/figures/in_and_out.png   what goes in and what comes out
    docs/figures/labels.png       ways to mark an object, and reference masks

The network of the first one is that of examples/plain_loop.py, trained for some minutes;
``--epochs`` shortens that, and ``--out`` writes elsewhere.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))
import plain_loop  # noqa: E402
from accl_harness.data.mask_bank import make_masks  # noqa: E402
from accl_harness.data.options import WeakOptions  # noqa: E402
from accl_harness.data.weak import weak_labels  # noqa: E402

OBJECT, GROUND, PREDICTED = "#e69f00", "#56b4e9", "#009e73"  # told apart by the colour-blind


def show(axes, image, title):
    axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def marks(axes, labels):
    """The marked pixels in colour over what is there already; 255 stays bare."""
    for value, colour in ((1, OBJECT), (0, GROUND)):
        layer = np.zeros((*labels.shape, 4))
        layer[labels == value] = matplotlib.colors.to_rgba(colour)
        axes.imshow(layer)


def outline(axes, mask, colour, style="-"):
    if mask.any():
        axes.contour(mask, [0.5], colors=colour, linewidths=1.3, linestyles=style)


def in_and_out(path, epochs, size, count):
    images, masks = plain_loop.phantoms(count, size, seed=0)
    labels = plain_loop.scribbles(masks)
    _, references = plain_loop.phantoms(20, size, seed=1)
    new, truth = plain_loop.phantoms(20, size, seed=2)
    network, dice = plain_loop.main(epochs=epochs, size=size, count=count)
    with torch.no_grad():
        probabilities = network(new).sigmoid()

    figure, axes = plt.subplots(2, 6, figsize=(11, 4.2), constrained_layout=True)
    for row in range(2):
        show(axes[row, 0], images[row, 0], "an image")
        show(axes[row, 1], images[row, 0], "its marked pixels")
        marks(axes[row, 1], labels[row].numpy())
        axes[row, 2].imshow(references[row, 0], cmap="gray")
        axes[row, 2].set_title("a mask of another image", fontsize=9)
        axes[row, 2].axis("off")
        show(axes[row, 3], new[row, 0], "a new image")
        axes[row, 4].imshow(probabilities[row, 0], cmap="magma", vmin=0, vmax=1)
        axes[row, 4].set_title("probability", fontsize=9)
        axes[row, 4].axis("off")
        show(axes[row, 5], new[row, 0], "result, and truth dashed")
        outline(axes[row, 5], probabilities[row, 0].numpy() > 0.5, PREDICTED)
        outline(axes[row, 5], truth[row, 0].numpy(), "white", "--")
    share = float((labels != 255).float().mean())
    figure.suptitle(
        f"in: {count} images with {100 * share:.1f} % of the pixels marked, and 20 masks of other "
        f"images        out: segmentations, Dice of 20 new images {100 * dice:.0f}",
        fontsize=10,
    )
    save(figure, path)


def ways_to_mark(path, size):
    images, masks = plain_loop.phantoms(1, size, seed=0)
    image, mask = images[0, 0], masks[0, 0].numpy().astype(np.uint8)
    few = WeakOptions(strategy="centroid_disc", radius=2)
    columns = [
        ("the object's core", weak_labels(mask)),
        ("a few pixels", weak_labels(mask, few)),
        ("a line inside, a line around", plain_loop.scribbles(masks)[0].numpy()),
        ("a full mask", mask),
    ]
    figure, axes = plt.subplots(2, 4, figsize=(8, 4.4), constrained_layout=True)
    for place, (title, labels) in zip(axes[0], columns, strict=True):
        show(place, image, title)
        marks(place, labels)
    bank = make_masks([mask], 3)
    for i, place in enumerate(axes[1]):
        made = mask if i == 0 else bank[i - 1].mask
        place.imshow(made, cmap="gray")
        place.set_title("one painted mask" if i == 0 else "made from it", fontsize=9)
        place.axis("off")
    save(figure, path)


def save(figure, path):
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)
    print(path)


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    ways_to_mark(options.out / "labels.png", options.size)
    in_and_out(options.out / "in_and_out.png", options.epochs, options.size, options.count)


if __name__ == "__main__":
    main()
