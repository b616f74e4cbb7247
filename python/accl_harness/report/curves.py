"""Plots of numbers: training curves, scores by method, and DSC against alpha."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from ..data.class_names import class_title
from ..terms import TERMS
from .figures import LITERAL, METHOD_COLOURS, save, style
from .overlays import class_colour, class_handles

Rows = Sequence[Mapping[str, float]]

# Column of metrics.csv, title, scale.
CURVES = (
    ("dsc", "DSC", "linear"),
    ("size_ratio", "size ratio (1: right size)", "log"),
    ("loss_g", "loss of G", "log"),
    *(curve for term in TERMS for curve in term.curves),
)
OF_CLASS = (("dsc_", "DSC", "linear"), ("size_ratio_", "size ratio", "log"))
"""Of each of several classes, whose index ends the column's name."""

LEAST_RATIO = 0.01
"""Where an axis of size ratios ends: below it nothing is there to be told apart."""


def training_curves(
    runs: Mapping[str, Sequence[Rows]],
    path: Path,
    *,
    labels: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Path | None:
    """Write a grid of curves over the epochs, one line a run, one colour a method.

    Args:
        runs: method -> for each seed the rows of its metrics.csv (see ``run.Run.curves``).
        path: PNG to write.
        labels: for the legend, by method.
        colours: likewise.
        names: of the classes, by index.
        title: heading of the figure.

    Returns:
        ``path``, or None where no run has a row yet.
    """
    labels, colours = labels or {}, colours or METHOD_COLOURS
    runs = {method: [rows for rows in seeds if rows] for method, seeds in runs.items()}
    shown = [curve for curve in _curves(runs, names) if _any(runs, curve[0], np.isfinite)]
    if not shown:
        return None
    with style():
        columns = min(4, len(shown))
        lines = -(-len(shown) // columns)
        figure = Figure(figsize=(3.1 * columns, 2.35 * lines + 0.7), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis, (column, heading, scale) in zip(axes, shown, strict=False):
            for method, seeds in runs.items():
                for rows in seeds:
                    _curve(axis, rows, column, colours.get(method, "0.3"))
            axis.set_title(heading)
            if scale != "log" or _any(runs, column, lambda value: value > 0):
                axis.set_yscale(scale, **({"linthresh": 1e-3} if scale == "symlog" else {}))
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if column.startswith("size_ratio"):
                axis.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
                _plain_log(axis)
                low, high = axis.get_ylim()
                axis.set_ylim(max(low, min(LEAST_RATIO, high / 10)), high)
        for axis in axes[len(shown) :]:
            axis.remove()
        handles = [
            Line2D([], [], color=colours.get(method, "0.3"), label=labels.get(method, method))
            for method in runs
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)))
        for axis in axes[max(0, len(shown) - columns) : len(shown)]:
            axis.set_xlabel("epoch")
        if title:
            figure.suptitle(title, fontsize=10.5, **LITERAL)
        return save(figure, path)


def _curves(
    runs: Mapping[str, Sequence[Rows]], names: Sequence[str] | None
) -> list[tuple[str, str, str]]:
    """Column, title and scale of what may be drawn: of each class too where there are several."""
    first = next((rows[0] for seeds in runs.values() for rows in seeds), {})
    of_class = [
        (column, f"{heading}, {class_title(column.removeprefix(start), names)}", scale)
        for start, heading, scale in OF_CLASS
        for column in first
        if column.removeprefix(start).isdigit()
    ]
    return [*CURVES, *of_class]


def _any(runs: Mapping[str, Sequence[Rows]], column: str, holds: Callable[[float], bool]) -> bool:
    values = (row.get(column, np.nan) for seeds in runs.values() for rows in seeds for row in rows)
    return any(holds(value) for value in values)


def _curve(axis, rows: Rows, column: str, colour: str) -> None:
    epochs = [row["epoch"] for row in rows]
    values = [row.get(column, float("nan")) for row in rows]
    if np.isfinite(values).any():
        axis.plot(epochs, values, color=colour, linewidth=1.1, alpha=0.85)
    if column == "d_real":
        fake = [row.get("d_fake", float("nan")) for row in rows]
        axis.plot(epochs, fake, color=colour, linewidth=1.1, alpha=0.85, linestyle="--")


def score_plot(
    dsc: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]],
    path: Path,
    *,
    labels: Mapping[str, str],
    colours: Mapping[str, str] = METHOD_COLOURS,
    names: Sequence[str] | None = None,
    beside: Mapping[str, float] | None = None,
    of: str = "image",
    title: str = "",
) -> Path:
    """Write the DSC of every test image (or volume) by method, with each seed's mean.

    Args:
        dsc: method -> for each seed, name -> class -> DSC (0 to 1). Of several classes each has a
            column in its colour, of one alone the column has the method's.
        path: PNG to write.
        labels: method -> its name.
        colours: method -> its colour.
        names: of the classes, by index.
        beside: method -> the paper's DSC x100, drawn as a diamond.
        of: what a dot is: an image or a volume.
        title: heading of the figure.
    """
    classes = list(next(iter(next(iter(dsc.values()))[0].values())))
    with style():
        width = (1.15 if len(classes) == 1 else 0.6 + 0.35 * len(classes)) * len(dsc) + 1.6
        figure = Figure(figsize=(width, 3.4), layout="constrained")
        axis = figure.subplots()
        for position, (method, seeds) in enumerate(dsc.items()):
            for place, index in enumerate(classes):
                alone = colours.get(method, "0.3")
                colour = alone if len(classes) == 1 else class_colour(int(index))
                middle = position + (place - (len(classes) - 1) / 2) * 0.8 / len(classes)
                values = [[scores[index] for scores in by_name.values()] for by_name in seeds]
                _dots(axis, middle, values, colour, 1 / len(classes))
            if beside and method in beside:
                axis.plot(position, beside[method], "D", color="white", mec="black", ms=6)
        axis.set_xticks(range(len(dsc)), [labels.get(method, method) for method in dsc])
        axis.grid(axis="x", visible=False)
        axis.set_ylim(-3, 103)
        axis.set_ylabel("DSC x100")
        note = f"dot: a test {of}; line: a seed's mean" + ("; diamond: the paper" * bool(beside))
        axis.set_title(f"{title}\n{note}" if title else note)
        if len(classes) > 1:
            handles = class_handles((int(index) for index in classes), names)
            figure.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)))
        return save(figure, path)


def _dots(axis, middle: float, seeds: Sequence[Sequence[float]], colour: str, width: float) -> None:
    # The spread to the side is fixed, so that the same scores give the same picture.
    jitter = np.random.default_rng(0)
    for scores in seeds:
        values = 100 * np.array(scores)
        where = middle + width * jitter.uniform(-0.28, 0.28, len(values))
        axis.scatter(where, values, s=14, color=colour, alpha=0.4, linewidths=0)
        left, right = middle - 0.36 * width, middle + 0.36 * width
        axis.hlines(values.mean(), left, right, color=colour, lw=1.8)


def alpha_curve(
    points: Mapping[float, Sequence[tuple[float, float | None]]],
    path: Path,
    *,
    colour: str,
    beside: Mapping[float, float] | None = None,
    title: str = "",
) -> Path:
    """Write DSC and size ratio against alpha, the curve under the paper's Figs. 11 to 13.

    Args:
        points: alpha -> for each seed (DSC 0 to 1, size ratio or None).
        path: PNG to write.
        colour: of the method.
        beside: alpha -> the paper's DSC x100.
        title: heading of the figure.
    """
    alphas = sorted(points)
    with style():
        figure = Figure(figsize=(7.6, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2)
        _with_seeds(left, alphas, points, lambda point: 100 * point[0], colour)
        if beside:
            left.plot(
                list(beside),
                list(beside.values()),
                "D--",
                color="0.45",
                mfc="white",
                lw=0.9,
                ms=5,
                label="paper, ACDC",
            )
            left.legend()
        _with_seeds(right, alphas, points, lambda point: point[1], colour)
        right.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
        if any(point[1] for seeds in points.values() for point in seeds):
            right.set_yscale("log")
            _plain_log(right)
        ticks = _apart([*alphas, *(beside or {})])
        for axis, heading in ((left, "DSC x100"), (right, "size ratio (1: right size)")):
            axis.set_xscale("log")
            axis.set_xticks(ticks, [f"{alpha:g}" for alpha in ticks])
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xlabel("alpha, the weight of ACCL")
            axis.set_title(heading)
        if title:
            figure.suptitle(title, fontsize=10.5, **LITERAL)
        return save(figure, path)


def _apart(alphas: Sequence[float]) -> list[float]:
    """Those of ``alphas``, the first ones first, whose labels fit beside each other."""
    width = max(np.log10(max(alphas) / min(alphas)), 1e-9)
    kept: list[float] = []
    for alpha in alphas:
        if all(abs(np.log10(alpha / other)) > 0.13 * width for other in kept):
            kept.append(alpha)
    return kept


def _plain_log(axis) -> None:
    """Labels of a logarithmic size ratio as plain numbers at 1, 2 and 5."""
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _with_seeds(
    axis, alphas: Sequence[float], points: Mapping, value: Callable, colour: str
) -> None:
    means = []
    for alpha in alphas:
        values = [value(point) for point in points[alpha] if value(point) is not None]
        axis.plot([alpha] * len(values), values, "o", color=colour, ms=4, alpha=0.5, mew=0)
        means.append(np.mean(values) if values else float("nan"))
    axis.plot(alphas, means, "-o", color=colour, lw=1.6, ms=5, label="mean over seeds")
