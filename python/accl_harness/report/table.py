"""The comparison's table: JSON for programs, the same cells for terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from ..evaluation.metrics import bootstrap_interval, mean, spread

Metrics = Mapping[str, object]
Results = Mapping[str, Mapping[int, Metrics]]
"""method -> seed -> content of the run's metrics.json"""

SCORES = (
    "dsc",
    "dsc_3d",
    "hd95",
    "asd",
    "size_ratio",
    "size_correlation",
    "mean_pairwise_dsc",
    "precision",
    "recall",
    "annotation_ratio",
    "seconds",
)


OF_CLASSES = (
    *("dsc_per_class", "dsc_2d_per_class", "dsc_3d_per_class", "hd95_per_class", "asd_per_class"),
    *("size_ratio_per_class", "size_correlation_per_class", "precision_per_class"),
    *("recall_per_class", "images_with_distances_per_class"),
)
"""Scores that runs with several classes have beside the means: class -> value."""


def build_table(results: Results) -> dict[str, dict]:
    """Content of table.json: what there is of each method that has a run.

    ``per_seed`` (seed -> scores), ``mean``, ``spread`` (the sample standard deviation over the
    seeds, None for one seed) and ``interval`` (the bootstrap 95 % interval of the mean DSC over the
    test images, or volumes, where the DSC is theirs; the DSC of each averaged over the seeds
    first). Scores 0 to 1, undefined values None. Runs with classes have ``dsc_of`` and the scores
    of each class too.
    """
    table = {}
    for method, runs in results.items():
        if not runs:
            continue
        per_seed = {str(seed): _seed_row(metrics) for seed, metrics in sorted(runs.items())}
        rows = list(per_seed.values())
        averaged = [key for key in (*SCORES, "dsc_2d", *OF_CLASSES) if key in rows[0]]
        table[method] = {
            "per_seed": per_seed,
            "mean": {key: _over_seeds(mean, rows, key) for key in averaged},
            "spread": {key: _over_seeds(spread, rows, key) for key in averaged},
            "interval": bootstrap_interval(unit_means(runs)),
        }
    return table


def _seed_row(metrics: Metrics) -> dict:
    """What table.json keeps of a run's metrics.json."""
    of_classes = ("dsc_of", "dsc_2d", *OF_CLASSES) if "dsc_of" in metrics else ()
    keys = *SCORES, "distance_unit", "images", "images_with_distances", *of_classes
    named = {"class_names": metrics["class_names"]} if "class_names" in metrics else {}
    return {key: metrics.get(key) for key in keys} | named


def _over_seeds(combine: Callable, rows: Sequence[Mapping], key: str):
    """Mean or spread of a score over the seeds, of each class by itself where there are any."""
    values = [row[key] for row in rows]
    if isinstance(values[0], Mapping):
        return {index: combine(value[index] for value in values) for index in values[0]}
    return combine(values)


def unit_means(runs: Mapping[int, Metrics]) -> list[float]:
    """The DSC of each test image, or volume, averaged over its classes and the seeds."""
    per_seed = [scored_units(metrics) for metrics in runs.values()]
    return [mean(mean(scores[name].values()) for scores in per_seed) for name in per_seed[0]]


def scored_units(metrics: Metrics) -> Mapping[str, Mapping[str, float]]:
    """Name -> class -> DSC of the images, or volumes, whose mean is the run's ``dsc``."""
    if "dsc_of" not in metrics:
        return {name: {"1": dsc} for name, dsc in metrics["dsc_per_image"].items()}
    of_volumes = metrics["dsc_of"] == "volumes"
    return metrics["dsc_3d_per_volume_per_class" if of_volumes else "dsc_per_image_per_class"]


def scored_unit(results: Results) -> str:
    """What the ``dsc`` of runs on one data set is the mean over: ``image`` or ``volume``."""
    runs = [metrics for by_seed in results.values() for metrics in by_seed.values()]
    return "volume" if runs[0].get("dsc_of") == "volumes" else "image"


@dataclass(frozen=True)
class Sheet:
    """A table as people read it: headings and cells, the first column left, the rest right."""

    headings: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = ["| " + " | ".join(self.headings) + " |"]
        lines.append("|---" + "|---:" * (len(self.headings) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def terminal(self, title: str):
        """A rich table."""
        # A text, because brackets in a name are no markup.
        table = Table(title=Text(title, "table.title"), title_justify="left")
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if index else "left", no_wrap=not index)
        for row in self.rows:
            table.add_row(*row)
        return table


def number(value: float | None, spread_: float | None = None, *, scale=1.0, digits=1) -> str:
    """``63.4 ± 1.2``, without a spread ``63.4``, undefined ``-``."""
    if value is None:
        return "-"
    text = f"{scale * value:.{digits}f}"
    return text if spread_ is None else f"{text} ± {scale * spread_:.{digits}f}"


def terminal_sheet(
    table: Mapping[str, Mapping],
    labels: Mapping[str, str],
    paper: Mapping[str, float],
    first: str = "Method",
) -> Sheet:
    """The columns of ``main_sheet`` that fit on 80 characters and tell the story."""
    full = main_sheet(table, labels, paper, first)
    wanted = (first, "DSC x100", "Paper", "Size", "HD95", "Minutes")
    if classes_of(table):
        wanted = (first, "DSC x100", "Class", "Size", "Minutes")
    keep = [i for i, heading in enumerate(full.headings) if heading.startswith(wanted)]
    return Sheet(
        [full.headings[index] for index in keep], [[row[i] for i in keep] for row in full.rows]
    )


def classes_of(table: Mapping[str, Mapping]) -> list[str]:
    """The foreground classes that the runs of a table were scored by; none for one object."""
    entry = next(iter(table.values()))
    return list(entry["mean"].get("dsc_per_class") or ())


def _named(table: Mapping[str, Mapping]) -> dict[str, str]:
    """Index -> name of the foreground classes; the index where they have none."""
    first = next(row for entry in table.values() for row in entry["per_seed"].values())
    names = first.get("class_names")
    return {index: names[int(index)] if names else index for index in classes_of(table)}


Cell = Callable[[str, Mapping], str]
"""Text of a method (or class) and its method's entry in the table."""


def main_sheet(
    table: Mapping[str, Mapping],
    labels: Mapping[str, str],
    paper: Mapping[str, float],
    first: str = "Method",
) -> Sheet:
    """Table 1's form: one row a method, DSC x100 next, the paper's column where it is known.

    Of several classes each has a column of DSC. ``first`` heads the column of names: a sweep has a
    row for each alpha.
    """
    unit, of = _distance_unit(table), _dsc_of(table)
    columns: list[tuple[str, Cell]] = [
        (first, lambda method, entry: labels.get(method, method)),
        ("DSC x100", _mean("dsc", 100)),
        (f"95 % over {of}", lambda method, entry: _interval(entry["interval"])),
    ]
    columns += [(f"Class {name}", _dsc_of_class(index)) for index, name in _named(table).items()]
    if paper:
        columns.append(("Paper", lambda method, entry: number(paper.get(method))))
    columns += [
        ("Size ratio", _mean("size_ratio", digits=2)),
        ("Rank r of sizes", _mean("size_correlation", digits=2)),
        ("Mean pairwise DSC", _mean("mean_pairwise_dsc", 100)),
        (f"HD95 ({unit})", _hd95),
        (f"ASD ({unit})", _mean("asd")),
        ("Precision", _mean("precision", 100)),
        ("Recall", _mean("recall", 100)),
    ]
    if of == "volumes":
        columns.append(("DSC by image", _mean("dsc_2d", 100)))
    elif any(entry["mean"]["dsc_3d"] is not None for entry in table.values()):
        columns.append(("DSC by volume", _mean("dsc_3d", 100)))
    columns += [
        ("Labelled %", _of_training("annotation_ratio", 100, 3)),
        ("Minutes", _of_training("seconds", 1 / 60)),
    ]
    rows = [[cell(method, entry) for _, cell in columns] for method, entry in table.items()]
    return Sheet([heading for heading, _ in columns], rows)


def class_sheet(
    table: Mapping[str, Mapping], labels: Mapping[str, str], first: str = "Method"
) -> Sheet | None:
    """A row for each method and class with all scores; None for one object."""
    if not classes_of(table):
        return None
    unit = _distance_unit(table)
    columns = [
        ("DSC x100", _of_class("dsc", 100)),
        ("Size ratio", _of_class("size_ratio", digits=2)),
        ("Rank r of sizes", _of_class("size_correlation", digits=2)),
        (f"HD95 ({unit})", _hd95_of_class),
        (f"ASD ({unit})", _of_class("asd")),
        ("Precision", _of_class("precision", 100)),
        ("Recall", _of_class("recall", 100)),
    ]
    if _dsc_of(table) == "volumes":
        columns.append(("DSC by image", _of_class("dsc_2d", 100)))
    rows = [
        [labels.get(method, method), name, *(cell(index, entry) for _, cell in columns)]
        for method, entry in table.items()
        for index, name in _named(table).items()
    ]
    return Sheet([first, "Class", *(heading for heading, _ in columns)], rows)


def _distance_unit(table: Mapping[str, Mapping]) -> str:
    units = {row["distance_unit"] for entry in table.values() for row in entry["per_seed"].values()}
    return units.pop() if len(units) == 1 else "mixed units"


def _dsc_of(table: Mapping[str, Mapping]) -> str:
    rows = [row for entry in table.values() for row in entry["per_seed"].values()]
    return rows[0].get("dsc_of", "images")


def _mean(key: str, scale: float = 1.0, digits: int = 1) -> Cell:
    return lambda method, entry: number(
        entry["mean"][key], entry["spread"][key], scale=scale, digits=digits
    )


def _of_class(key: str, scale: float = 1.0, digits: int = 1) -> Cell:
    """The cell of a class (its index first) and its method's entry."""
    key = f"{key}_per_class"
    return lambda index, entry: number(
        entry["mean"][key][index], entry["spread"][key][index], scale=scale, digits=digits
    )


def _dsc_of_class(index: str) -> Cell:
    return lambda method, entry: _of_class("dsc", 100)(index, entry)


def _hd95_of_class(index: str, entry: Mapping) -> str:
    return _of_class("hd95")(index, entry) + _defined_on(entry, index)


def _hd95(method: str, entry: Mapping) -> str:
    return _mean("hd95")(method, entry) + _defined_on(entry)


def _of_training(key: str, scale: float, digits: int = 1) -> Cell:
    return lambda method, entry: number(entry["mean"][key], scale=scale, digits=digits)


def _interval(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}"


def _defined_on(entry: Mapping, index: str | None = None) -> str:
    """Say on how many images the distances (of a class) are defined where that is not all."""
    rows = entry["per_seed"].values()
    images = sum(row["images"] or 0 for row in rows)
    if index is None:
        defined = sum(row["images_with_distances"] or 0 for row in rows)
    else:
        defined = sum(row["images_with_distances_per_class"][index] for row in rows)
    return "" if defined == images else f" [{defined}/{images}]"


def seed_sheet(
    table: Mapping[str, Mapping], labels: Mapping[str, str], first: str = "Method"
) -> Sheet:
    """DSC x100 and size ratio of every single run."""
    seeds = sorted({int(seed) for entry in table.values() for seed in entry["per_seed"]})
    headings = [first]
    for seed in seeds:
        headings += [f"seed {seed}: DSC x100", "size ratio"]
    rows = []
    for method, entry in table.items():
        row = [labels.get(method, method)]
        for seed in seeds:
            scores = entry["per_seed"].get(str(seed), {})
            row += [number(scores.get("dsc"), scale=100)]
            row += [number(scores.get("size_ratio"), digits=2)]
        rows.append(row)
    return Sheet(headings, rows)


def markdown_report(
    title: str,
    sheets: Mapping[str, Sheet],
    settings: Sequence[tuple[str, str]],
    notes: Sequence[str],
    warnings: Sequence[str],
) -> str:
    """table.md: the sheets, the settings, the notes, and the warnings if there are any."""
    parts = [f"# {title}\n"]
    for heading, sheet in sheets.items():
        parts += [f"## {heading}\n" if heading else "", sheet.markdown()]
    parts.append("## Settings\n")
    parts.append("".join(f"- {key}: {value}\n" for key, value in settings))
    for heading, items in (("Notes", notes), ("Warnings", warnings)):
        if items:
            parts += [f"## {heading}\n", "".join(f"- {item}\n" for item in items)]
    return "\n".join(part for part in parts if part)
