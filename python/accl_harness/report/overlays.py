"""Masks over images.

Colours are of Okabe and Ito's palette, which readers with any form of colour blindness can tell
apart. Of one object, what was found rightly is green, what was added is vermilion, what was missed
is blue. Of several classes each has its colour, whatever the data, with which the prediction is
tinted. White lines are the true contours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

RIGHT, ADDED, MISSED = "#009E73", "#D55E00", "#56B4E9"
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
BACKGROUND = "#0072B2"
OPACITY = 0.55


def class_colour(index: int) -> str:
    """Colour of a foreground class; from the eighth class on they come again."""
    return CLASS_COLOURS[(index - 1) % len(CLASS_COLOURS)]


def grey(image: np.ndarray) -> np.ndarray:
    """[H, W] of any real dtype as RGB float [H, W, 3] in 0 to 1, by the image's own range."""
    image = np.asarray(image, dtype=np.float64)
    low, high = np.percentile(image, [0.5, 99.5])
    scaled = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
    return np.repeat(scaled[..., None], 3, axis=-1)


def overlay(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, classes: int | None = None
) -> np.ndarray:
    """The image with the masks tinted in; RGB float [H, W, 3] in 0 to 1.

    Without ``classes`` right, added and missed pixels are told apart, with them the predicted
    classes.
    """
    if classes is None:
        truth, prediction = np.asarray(truth, bool), np.asarray(prediction, bool)
        tints = [
            (truth & prediction, RIGHT),
            (prediction & ~truth, ADDED),
            (truth & ~prediction, MISSED),
        ]
    else:
        tints = [(prediction == index, class_colour(index)) for index in range(1, classes)]
    picture = grey(image)
    for where, colour in tints:
        picture[where] = (1 - OPACITY) * picture[where] + OPACITY * np.array(to_rgb(colour))
    return picture


def mark_overlay(image: np.ndarray, labels: np.ndarray, unmarked: int = 255) -> np.ndarray:
    """The image with labels tinted in, each class in its colour; RGB float [H, W, 3] in 0 to 1.

    Args:
        image: [H, W] of any real dtype.
        labels: [H, W] of class indices, 0 the background.
        unmarked: this value is not tinted.
    """
    picture = grey(image)
    for value in np.unique(labels):
        if value != unmarked:
            colour = np.array(to_rgb(class_colour(int(value)) if value else BACKGROUND))
            where = labels == value
            picture[where] = (1 - OPACITY) * picture[where] + OPACITY * colour
    return picture


def draw_contours(axes, mask: np.ndarray, classes: int | None = None) -> None:
    """Draw the outline of the object, or of each class, in white."""
    height, width = np.shape(mask)
    for index in range(1, classes or 2):
        # A frame of zeros closes the contour of an object that touches the border.
        padded = np.pad(np.asarray(mask == index, dtype=float), 1)
        if padded.any():
            rows, columns = (np.arange(-1, size - 1) for size in padded.shape)
            look = {"colors": "white", "linewidths": 0.9 if classes is None else 0.7}
            axes.contour(columns, rows, padded, levels=[0.5], **look)
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def legend_handles(classes: int | None = None, names: Sequence[str] | None = None) -> list[Patch]:
    """What the colours of a picture mean: right, added and missed, or which index is which."""
    line = Patch(facecolor="0.45", edgecolor="white", linewidth=1, label="white line: true contour")
    if classes is not None:
        return [*class_handles(range(1, classes), names), line]
    return [
        Patch(facecolor=RIGHT, label="right"),
        Patch(facecolor=ADDED, label="added (false positive)"),
        Patch(facecolor=MISSED, label="missed (false negative)"),
        line,
    ]


def class_handles(foreground: Iterable[int], names: Sequence[str] | None = None) -> list[Patch]:
    """A patch in each class's colour, with its name or index; those of one colour share a patch."""
    named: dict[str, list[str]] = {}
    for index in foreground:
        text = names[index] if names else str(index)
        named.setdefault(class_colour(index), []).append(text)
    return [
        Patch(facecolor=colour, label=("" if names else "class ") + _listed(texts))
        for colour, texts in named.items()
    ]


def _listed(indices: list[str]) -> str:
    return ", ".join(indices[:3]) + (", ..." if len(indices) > 3 else "")
