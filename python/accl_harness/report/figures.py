"""Pictures of segmentations: the paper's qualitative panels (Figs. 4 to 6, 8 to 13)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..errors import HarnessWarning
from ..storage import printable, write_atomically
from .overlays import (
    BACKGROUND,
    RIGHT,
    class_colour,
    class_handles,
    draw_contours,
    grey,
    legend_handles,
    mark_overlay,
    overlay,
)

METHOD_COLOURS = {
    "weak_ce": "#999999",
    "partial_ce": "#E69F00",
    "sccl": "#56B4E9",
    "partial_accl": "#CC79A7",
    "unpaired_accl": "#009E73",
    "paired_accl": "#0072B2",
    "fs_ce": "#000000",
    "sccl_crf": "#B59F00",
    "accl_crf": "#D55E00",
    "walker": "#7F5A3C",
}
TILE = 1.55  # inches
DPI = 120

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
}


LITERAL = {"parse_math": False}
"""For texts that hold a file's name: two dollar signs in it are no formula."""


def style(**changes: object) -> AbstractContextManager[None]:
    """Matplotlib's own settings and this project's, whatever a person's matplotlibrc says."""
    return matplotlib.style.context(["default", {**STYLE, **changes}])


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and return the path."""
    content = io.BytesIO()
    with warnings.catch_warnings():  # a name in letters that the font lacks shows boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(content, format="png")
    write_atomically(path, content.getbuffer())
    return path


def drawn(draw: Callable[..., Path | None], *arguments: object, **options: object) -> Path | None:
    """Draw a figure; where that fails, warn and return None, because it must not cost a run."""
    try:
        return draw(*arguments, **options)
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        name = getattr(draw, "__name__", "figure").replace("_", " ")
        warnings.warn(f"the figure '{name}' is missing, {text}", HarnessWarning, stacklevel=2)
        return None


@dataclass(frozen=True)
class Case:
    """One row of a panel: an image, its true mask, and what each column's network predicted."""

    name: str
    image: np.ndarray  # [H, W], any real dtype
    truth: np.ndarray  # [H, W] of class indices
    predictions: Mapping[str, np.ndarray]  # column -> [H, W] of class indices
    dsc: Mapping[str, float] = field(default_factory=dict)  # column -> DSC, 0 to 1
    classes: int | None = None  # None: 0 and 1, one object
    class_names: Sequence[str] | None = None  # by index


def select_cases(dsc: Mapping[str, Mapping[str, float]], count: int) -> list[str]:
    """Names of ``count`` images to show: the worst first, then an even spread up to the best.

    Args:
        dsc: method -> image name -> DSC. An image's rank is its mean over the methods.
        count: so many names, or all where there are fewer.
    """
    names = list(next(iter(dsc.values())))
    ranked = sorted(names, key=lambda name: np.mean([scores[name] for scores in dsc.values()]))
    picks = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    return [ranked[i] for i in picks]


def worst_cases(scores: Mapping[str, float], count: int) -> list[str]:
    """Names of the ``count`` images with the lowest DSC, the worst first."""
    return sorted(scores, key=lambda name: (scores[name], name))[:count]


def panel(
    cases: Sequence[Case],
    columns: Mapping[str, str],
    path: Path,
    *,
    title: str = "",
    colours: Mapping[str, str] | None = None,
) -> Path:
    """Write a panel: a row for each case; image, true mask, then one column a network.

    Args:
        cases: the rows, in order.
        columns: key in ``Case.predictions`` -> heading.
        path: PNG to write.
        title: heading of the figure.
        colours: column key -> colour of its heading.

    Returns:
        ``path``.
    """
    with style(**{"axes.grid": False}):
        shape = len(cases), 2 + len(columns)
        # Head and foot keep their height in inches whatever the number of rows.
        width = shape[1] * TILE + 0.3
        handles, legend_columns = _legend(cases), 5 if width > 8 else 2
        foot = 0.15 + 0.2 * -(-len(handles) // legend_columns)
        head, side = 0.55 if title else 0.3, 0.3
        height = shape[0] * TILE + head + foot
        figure = Figure(figsize=(width, height))
        axes = figure.subplots(*shape, squeeze=False)
        figure.subplots_adjust(
            left=side / width,
            right=1 - 0.03 / width,
            bottom=foot / height,
            top=1 - head / height,
            wspace=0.04,
            hspace=0.04,
        )
        for row, case in zip(axes, cases, strict=True):
            _panel_row(row, case, columns)
        for axis, heading in zip(axes[0], ["Image", "True mask", *columns.values()], strict=True):
            axis.set_title(heading, pad=4)
        for axis, key in zip(axes[0][2:], columns, strict=True):
            axis.title.set_color((colours or {}).get(key, "black"))
            axis.title.set_fontweight("bold")
        if title:
            figure.suptitle(title, y=1 - 0.12 / height, va="top", fontsize=10.5, **LITERAL)
        figure.legend(handles=handles, loc="lower center", ncols=legend_columns, fontsize=8)
        return save(figure, path)


def worst_page(
    worst: Mapping[str, Sequence[Case]],
    labels: Mapping[str, str],
    path: Path,
    *,
    colours: Mapping[str, str] = METHOD_COLOURS,
) -> Path:
    """Write each method's worst images, the worst on the left; a row for each method.

    Args:
        worst: method -> cases, each with that method's prediction and DSC.
        labels: method -> its name at the row.
        path: PNG to write.
        colours: method -> colour of its name.

    Returns:
        ``path``.
    """
    with style(**{"axes.grid": False}):
        columns = max(len(cases) for cases in worst.values())
        width, height = columns * TILE + 0.3, len(worst) * (TILE + 0.16) + 0.55
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        axes = figure.subplots(len(worst), columns, squeeze=False)
        for row, (method, cases) in zip(axes, worst.items(), strict=True):
            for axis in row:
                _bare(axis)
            for axis, case in zip(row, cases, strict=False):
                _tile(axis, case, method)
                name = _short(case.name, 24)
                axis.set_title(name, fontsize=6.5, color="0.35", pad=2, **LITERAL)
            row[0].set_ylabel(labels[method], color=colours.get(method, "black"), weight="bold")
        handles = _legend([case for cases in worst.values() for case in cases])
        place = {"loc": "outside lower center", "ncols": 5 if width > 8 else 2}
        figure.legend(handles=handles, fontsize=8, **place)
        return save(figure, path)


def marks_panel(
    images: Sequence[np.ndarray],
    marks: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    path: Path,
    *,
    classes: int | None = None,
    names: Sequence[str] | None = None,
) -> Path:
    """Write images in a row, below each its marks and its prediction; returns ``path``.

    Args:
        images: [H, W] each, of any real dtype.
        marks: [H, W] each: class indices, 0 background, 255 not marked.
        predictions: [H, W] each, of class indices.
        path: PNG to write.
        classes: number of classes; None: 0 and 1, one object.
        names: of the classes, by index.
    """
    with style(**{"axes.grid": False}):
        figure = Figure(figsize=(len(images) * TILE + 0.3, 3 * TILE + 0.5), layout="constrained")
        axes = figure.subplots(3, len(images), squeeze=False)
        for column, parts in zip(axes.T, zip(images, marks, predictions, strict=True), strict=True):
            image, marked, predicted = parts
            shown = grey(image), mark_overlay(image, marked), mark_overlay(image, predicted, 0)
            for axis, picture in zip(column, shown, strict=True):
                _bare(axis)
                axis.imshow(picture)
        for axis, heading in zip(axes[:, 0], ("image", "marks", "prediction"), strict=True):
            axis.set_ylabel(heading)
        objects = [Patch(facecolor=class_colour(1), label=names[1] if names else "object")]
        objects = objects if classes is None else class_handles(range(1, classes), names)
        handles = [*objects, Patch(facecolor=BACKGROUND, label="marked as background")]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)))
        return save(figure, path)


def prediction_page(
    image: np.ndarray,
    mask: np.ndarray,
    path: Path,
    *,
    classes: int | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Path:
    """Write an image beside its predicted mask; returns ``path``.

    Args:
        image: [H, W] of any real dtype.
        mask: [H, W] of class indices.
        path: PNG to write.
        classes: number of classes; None: 0 and 1, one object.
        names: of the classes, by index.
        title: heading of the figure.
    """
    with style(**{"axes.grid": False}):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots(1, 2)
        for axis, shown in zip(
            axes, (grey(image), overlay(image, mask, mask, classes)), strict=True
        ):
            _bare(axis)
            axis.imshow(shown)
        draw_contours(axes[1], mask, classes)
        figure.suptitle(_short(title, 60), fontsize=9, **LITERAL)
        found = [Patch(facecolor=RIGHT, label="predicted object")]
        handles = found if classes is None else class_handles(range(1, classes), names)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)))
        return save(figure, path)


def _panel_row(row, case: Case, columns: Mapping[str, str]) -> None:
    for axis in row:
        _bare(axis)
    row[0].imshow(grey(case.image))
    row[0].set_ylabel(_short(case.name), fontsize=7, color="0.35", **LITERAL)
    row[1].imshow(overlay(case.image, case.truth, case.truth, case.classes))
    draw_contours(row[1], case.truth, case.classes)
    for axis, key in zip(row[2:], columns, strict=True):
        _tile(axis, case, key)


def _bare(axis) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _tile(axis, case: Case, key: str) -> None:
    axis.imshow(overlay(case.image, case.truth, case.predictions[key], case.classes))
    draw_contours(axis, case.truth, case.classes)
    if key in case.dsc:
        axis.text(
            0.04,
            0.04,
            f"{100 * case.dsc[key]:.0f}",
            transform=axis.transAxes,
            fontsize=8.5,
            fontweight="bold",
            color="white",
            bbox={"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0},
        )


def _short(name: str, length: int = 26) -> str:
    name = printable(name)
    return name if len(name) <= length else name[: length - 12] + "…" + name[-11:]


def _legend(cases: Sequence[Case]) -> list[Patch]:
    """What the colours and numbers of the cases mean."""
    classes = cases[0].classes
    of = "" if classes is None else ", mean over the classes"
    return [
        *legend_handles(classes, cases[0].class_names),
        Patch(facecolor="black", label=f"number: DSC x100{of}"),
    ]
