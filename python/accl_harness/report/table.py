"""The comparison's table: JSON for programs, the same cells for terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def build_table(results: Results) -> dict[str, dict]:
    """Content of table.json: method -> `per_seed` (seed -> scores), `mean`, `spread`, `interval`.

    `spread` is the sample standard deviation over the seeds (None for one seed), `interval` the
    bootstrap 95 % interval of the mean DSC over the test images, each image's DSC averaged over
    the seeds first. Scores 0 to 1, undefined values None. Methods without a run are left out.
    """
    table = {}
    for method, runs in results.items():
        if not runs:
            continue
        per_seed = {
            str(seed): {
                **{key: metrics.get(key) for key in SCORES},
                "distance_unit": metrics.get("distance_unit"),
                "images": metrics.get("images"),
                "images_with_distances": metrics.get("images_with_distances"),
            }
            for seed, metrics in sorted(runs.items())
        }
        table[method] = {
            "per_seed": per_seed,
            "mean": {key: mean(row[key] for row in per_seed.values()) for key in SCORES},
            "spread": {key: spread(row[key] for row in per_seed.values()) for key in SCORES},
            "interval": bootstrap_interval(unit_means(runs)),
        }
    return table


def unit_means(runs: Mapping[int, Metrics]) -> list[float]:
    """The DSC of each test image, or volume, averaged over its classes and the seeds."""
    per_seed = [scored_units(metrics) for metrics in runs.values()]
    return [mean(mean(scores[name].values()) for scores in per_seed) for name in per_seed[0]]


def scored_units(metrics: Metrics) -> Mapping[str, Mapping[str, float]]:
    """Name -> class -> DSC of the images, or volumes, whose mean is the run's `dsc`."""
    if "dsc_of" not in metrics:
        return {name: {"1": dsc} for name, dsc in metrics["dsc_per_image"].items()}
    of_volumes = metrics["dsc_of"] == "volumes"
    return metrics["dsc_3d_per_volume_per_class" if of_volumes else "dsc_per_image_per_class"]


def scored_unit(results: Results) -> str:
    """What the `dsc` of runs on one data set is the mean over: `image` or `volume`."""
    runs = [metrics for by_seed in results.values() for metrics in by_seed.values()]
    return "volume" if runs[0].get("dsc_of") == "volumes" else "image"


@dataclass(frozen=True)
class Sheet:
    """A table as people read it: headings and cells, the first column left, the rest right."""

    headings: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        lines = ["| " + " | ".join(self.headings) + " |"]
        lines.append("|---" + "|---:" * (len(self.headings) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def terminal(self, title: str):
        """A rich table."""
        from rich.table import Table
        from rich.text import Text

        # A text, because brackets in a name are no markup.
        table = Table(title=Text(title, "table.title"), title_justify="left")
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if index else "left", no_wrap=not index)
        for row in self.rows:
            table.add_row(*row)
        return table


def number(value: float | None, spread_: float | None = None, *, scale=1.0, digits=1) -> str:
    """`63.4 ± 1.2`, without a spread `63.4`, undefined `-`."""
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
    """The columns of `main_sheet` that fit on 80 characters and tell the story."""
    full = main_sheet(table, labels, paper, first)
    wanted = (first, "DSC x100", "Paper", "Size", "HD95", "Minutes")
    keep = [i for i, heading in enumerate(full.headings) if heading.startswith(wanted)]
    return Sheet(
        [full.headings[index] for index in keep], [[row[i] for i in keep] for row in full.rows]
    )


def main_sheet(
    table: Mapping[str, Mapping],
    labels: Mapping[str, str],
    paper: Mapping[str, float],
    first: str = "Method",
) -> Sheet:
    """Table 1's form: one row a method, DSC x100 next, the paper's column where it is known.

    `first` heads the column of names: a sweep has a row for each alpha.
    """
    units = {row["distance_unit"] for entry in table.values() for row in entry["per_seed"].values()}
    unit = units.pop() if len(units) == 1 else "mixed units"
    headings = [first, "DSC x100", "95 % over images"]
    headings += ["Paper"] if paper else []
    headings += [
        "Size ratio",
        "Rank r of sizes",
        "Mean pairwise DSC",
        f"HD95 ({unit})",
        f"ASD ({unit})",
    ]
    headings += ["Precision", "Recall"]
    volumes = any(entry["mean"]["dsc_3d"] is not None for entry in table.values())
    headings += ["DSC by volume"] if volumes else []
    headings += ["Labelled %", "Minutes"]
    rows = []
    for method, entry in table.items():
        means, spreads, interval = entry["mean"], entry["spread"], entry["interval"]

        def cell(key, scale=1.0, digits=1, means=means, spreads=spreads):
            return number(means[key], spreads[key], scale=scale, digits=digits)

        row = [labels.get(method, method), cell("dsc", 100)]
        row += ["-" if interval is None else f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}"]
        row += [number(paper.get(method))] if paper else []
        row += [cell("size_ratio", digits=2), cell("size_correlation", digits=2)]
        row += [cell("mean_pairwise_dsc", 100)]
        row += [cell("hd95") + _defined_on(entry), cell("asd")]
        row += [cell("precision", 100), cell("recall", 100)]
        row += [cell("dsc_3d", 100)] if volumes else []
        labelled = number(means["annotation_ratio"], scale=100, digits=3)
        row += [labelled, number(means["seconds"], scale=1 / 60)]
        rows.append(row)
    return Sheet(headings, rows)


def _defined_on(entry: Mapping) -> str:
    """Says on how many images the distances are defined where that is not all of them."""
    rows = entry["per_seed"].values()
    images = sum(row["images"] or 0 for row in rows)
    defined = sum(row["images_with_distances"] or 0 for row in rows)
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
