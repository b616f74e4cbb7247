"""Makes the tables and the figure of docs/results.md from the CSV files in docs/measurements.

``python docs/make_results.py`` writes them; with ``--check`` it only says whether the tables in the
page are those of the CSV (exit status 1 if not). The words of the page are written by hand: what
stands between ``<!-- table: NAME -->`` and ``<!-- end -->`` is replaced.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGE, RUNS = DOCS / "results.md", DOCS / "measurements" / "runs.csv"
SCRIBBLES = DOCS / "measurements" / "scribbles.csv"
FIGURE = DOCS / "figures" / "results.svg"
METHODS = (
    "weak_ce",
    "partial_ce",
    "sccl",
    "partial_accl",
    "unpaired_accl",
    "paired_accl",
    "sccl_crf",
    "accl_crf",
    "fs_ce",
)
WITH_MOVES = "--image-moves.shift 0.25"
MEASURED = "measured"
"""In the column `prior`: it was taken from the masks, as the shift of the moves."""
TODAY = {"prior": MEASURED, "epochs": "120"}
"""Runs with the defaults of preset small: 120 epochs with shifts, turns, scales and grey values."""
VARIANTS = {
    "--alpha 1": "alpha 1",
    "--references.painted 3": "three painted masks",
    "--references.painted 1": "one painted mask",
    "--references.folder typical": "three painted masks, moved in another order",
    "--references.folder random": "three masks drawn at random",
    "--weak.strategy centroid_disc": "labels in discs of one size",
    "--consistency 0": "one view",
}
"""What sets rows of a method apart beside its name: part of the options -> label."""


@dataclass(frozen=True)
class Table:
    """The runs of one table: a row a method (and what `rows` adds), seeds side by side."""

    data: str
    options: str = ""
    """Part of the column `options` that all rows have."""
    without: tuple[str, ...] = ()
    """Parts of the column `options` that no row has."""
    prior: str | None = None
    epochs: str | None = "60"
    defaults: bool = False
    """Runs with a measured prior join."""
    rows: tuple[str, ...] = ()
    """Columns that tell the rows of a method apart."""

    def holds(self, run: dict[str, str]) -> bool:
        if run["prior"] == MEASURED:
            return run["data"] == self.data and self.defaults and run["epochs"] == self.epochs
        return (
            run["data"] == self.data
            and self.options in run["options"]
            and not any(part in run["options"] for part in self.without)
            and self.prior in (None, run["prior"])
            and self.epochs in (None, run["epochs"])
        )


def _moved(data: str, prior: str | None = None) -> Table:
    """Runs with random moves, the prior given or measured."""
    return Table(data, WITH_MOVES, ("--references",), prior, defaults=True, rows=("conditional",))


_PLAIN = ("--image-moves", "--conditional", "--references")
TABLES = {
    "acdc": Table("acdc_lv", without=_PLAIN, prior="0.02", rows=("alpha",)),
    "acdc-moves": _moved("acdc_lv", "0.02"),
    "cup-moves": _moved("drishti_cup"),
    "ring-moves": _moved("drishti_disc"),
    "hc18-moves": _moved("hc18_head"),
    "phantom": Table("phantom", "", ("--image-moves",), "0.5", rows=("conditional", "alpha")),
}
LABELS = {
    "acdc-moves": "left ventricle (ACDC)",
    "cup-moves": "cup (Drishti)",
    "ring-moves": "ring (Drishti)",
    "hc18-moves": "head (HC18)",
    "phantom": "phantoms",
}

LABELS_OF_DATA = {
    "acdc_lv": "ACDC",
    "hc18_head": "HC18",
    "drishti_disc": "ring",
    "drishti_cup": "cup",
    "phantom": "phantoms",
}
REDRAWN = {
    "acdc_lv_11": "ACDC, seed 11",
    "acdc_lv_12": "ACDC, seed 12",
    "acdc_rv_11": "ACDC, right ventricle, seed 11",
    "acdc_myo_11": "ACDC, myocardium, seed 11",
    "drishti_disc_11": "ring, seed 11",
    "drishti_cup_11": "cup, seed 11",
}
"""Draws by benchmarks/redraw.py: name in the CSV -> label."""
SHORT = {
    "left ventricle": "acdc_lv",
    "head": "hc18_head",
    "ring": "drishti_disc",
    "cup": "drishti_cup",
    "phantoms": "phantom",
}
"""Columns of the table of shares: label -> name in the CSV, with which those drawn anew begin."""

SCRIBBLE_ROWS = {
    ("partial_ce", ""): ("partial cross-entropy", ".686"),
    ("partial_ce", "--entropy 0.1"): ("the same and entropy", ".846"),
    ("sccl_crf", "--size-weight 0"): ("the same and gated CRF", ".778"),
    ("partial_ce", "--alpha 0.3"): ("the same and ACCL", ""),
    ("accl_crf", "--consistency 0"): ("`accl_crf` with one view", ""),
    ("accl_crf", ""): ("`accl_crf`", ""),
    ("fs_ce", ""): ("full supervision", ".911"),
}
"""Method and what its options begin with -> label and the published mean (SPEC, section 9)."""


def read_runs() -> list[dict[str, str]]:
    """The rows of the CSV; `conditional` is a column made from the options."""
    with RUNS.open(newline="", encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    for run in runs:
        # Most rows were written when the option was called so.
        run["options"] = run["options"].replace("--augment.", "--image-moves.")
        alone = "--conditional false" in run["options"]
        run["conditional"] = "D sees the mask alone" if alone else ""
        run["alpha"] = f"alpha {float(run['alpha']):g}" if float(run["alpha"]) else ""
    return runs


def groups(table: Table, runs: list[dict[str, str]]) -> dict[tuple[str, ...], list[dict]]:
    """Row key -> its runs in the order of their seeds; rows in the order of METHODS."""
    found = defaultdict(list)
    for run in runs:
        if table.holds(run):
            found[(run["method"], *(run[name] for name in table.rows))].append(run)
    order = sorted(found, key=lambda key: (METHODS.index(key[0]), key[1:]))
    return {key: sorted(found[key], key=lambda run: int(run["seed"])) for key in order}


def _numbers(runs: list[dict], column: str, digits: int, scale: float = 1) -> str:
    return ", ".join(
        f"{scale * float(run[column]):.{digits}f}" if run[column] else "-" for run in runs
    )


def markdown(table: Table, runs: list[dict[str, str]]) -> str:
    lines = [
        "| method | DSC of each seed | size ratio | r | between images |",
        "|---|---:|---:|---:|---:|",
    ]
    for (method, *more), seeds in groups(table, runs).items():
        label = ", ".join([f"`{method}`", *filter(None, more)])
        cells = (
            label,
            _numbers(seeds, "dsc", 1, 100),
            _numbers(seeds, "size_ratio", 2),
            _numbers(seeds, "size_correlation", 2),
            _numbers(seeds, "mean_pairwise_dsc", 0, 100),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


Row = tuple[str, ...]
"""Data, method and the label of a variant, where it is one."""


def runs_of_today(runs: list[dict[str, str]]) -> dict[Row, list[dict]]:
    """The runs with today's defaults by row, in the order of their seeds."""
    found = defaultdict(list)
    for run in runs:
        if all(run[name] == value for name, value in TODAY.items()):
            variant = [label for part, label in VARIANTS.items() if part in run["options"]]
            found[(run["data"], run["method"], *variant)].append(run)
    return {key: sorted(found[key], key=lambda run: int(run["seed"])) for key in found}


def share_of_full(found: dict[Row, list[dict]], key: Row) -> str:
    """The row's mean DSC over that of full supervision; empty where one of them has no run."""
    seeds, full = found.get(key), found.get((key[0], "fs_ce"))
    return f"{_mean(seeds) / _mean(full):.2f}" if seeds and full else ""


def markdown_of_today(runs: list[dict[str, str]], labels: dict[str, str]) -> str:
    """One table of all data sets in ``labels``, with each method's share of full supervision."""
    found = runs_of_today(runs)
    lines = [
        "| data | method | DSC of each seed | share of full supervision | size ratio | r |",
        "|---|---|---:|---:|---:|---:|",
    ]

    def place(key: Row) -> tuple:
        return list(labels).index(key[0]), METHODS.index(key[1]), key[2:]

    for key in sorted((key for key in found if key[0] in labels), key=place):
        data, method, *variant = key
        seeds = found[key]
        cells = (
            labels[data],
            ", ".join([f"`{method}`", *variant]),
            _numbers(seeds, "dsc", 1, 100),
            share_of_full(found, key) if method != "fs_ce" else "",
            _numbers(seeds, "size_ratio", 2),
            _numbers(seeds, "size_correlation", 2),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown_in_short(runs: list[dict[str, str]]) -> str:
    """Shares of full supervision alone, a column a data set, those drawn anew in their own rows."""
    found = runs_of_today(runs)
    lines = [
        "| | " + " | ".join((*SHORT, "four classes, scribbles")) + " |",
        "|---|" + "---:|" * (len(SHORT) + 1),
    ]

    given = [[data] for data in SHORT.values()]
    anew = [[name for name in REDRAWN if name.startswith(data)] for data in SHORT.values()]
    painted = VARIANTS["--references.painted 3"]
    scribbles = share_of_full_in_scribbles()
    rows = (
        ("`accl_crf`", given, ("accl_crf",), scribbles),
        (f"`accl_crf`, {painted} instead of 75", given, ("accl_crf", painted), ""),
        ("`sccl`", given, ("sccl",), ""),
        ("`accl_crf`, images drawn anew", anew, ("accl_crf",), ""),
        ("`sccl`, images drawn anew", anew, ("sccl",), ""),
    )
    for label, columns, key, last in rows:
        shares = [[share_of_full(found, (data, *key)) for data in column] for column in columns]
        cells = (", ".join(filter(None, each)) for each in shares)
        lines.append("| " + " | ".join((label, *cells, last)) + " |")
    return "\n".join(lines)


def share_of_full_in_scribbles() -> str:
    """That of ``accl_crf`` with its defaults."""
    with SCRIBBLES.open(newline="", encoding="utf-8") as file:
        runs = [run for run in csv.DictReader(file) if not run["options"]]
    ours, full = (
        _mean([run for run in runs if run["method"] == method], "dsc_3d")
        for method in ("accl_crf", "fs_ce")
    )
    return f"{ours / full:.2f}"


def markdown_of_scribbles() -> str:
    """A row a method: 3-D DSC of each class, its mean of each seed, beside the published mean."""
    with SCRIBBLES.open(newline="", encoding="utf-8") as file:
        runs = sorted(csv.DictReader(file), key=lambda run: int(run["seed"]))
    lines = [
        "| labels and terms | RV | myocardium | LV | mean | share of full | published mean |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    full = _mean([run for run in runs if run["method"] == "fs_ce"], "dsc_3d")
    for (method, options), (label, published) in SCRIBBLE_ROWS.items():
        seeds = [
            run
            for run in runs
            if run["method"] == method
            and bool(run["options"]) == bool(options)
            and run["options"].startswith(options)
        ]
        if seeds:
            columns = ("dsc_3d_rv", "dsc_3d_myo", "dsc_3d_lv", "dsc_3d")
            share = f"{_mean(seeds, 'dsc_3d') / full:.2f}" if full else ""
            cells = (label, *(_numbers(seeds, name, 1, 100) for name in columns), share, published)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(runs: list[dict[str, str]], column: str = "dsc") -> float:
    return sum(float(run[column]) for run in runs) / len(runs) if runs else 0.0


def filled(page: str, runs: list[dict[str, str]]) -> str:
    """The page with each table made anew."""

    def table(match: re.Match) -> str:
        made = {
            "today": lambda: markdown_of_today(runs, LABELS_OF_DATA),
            "redrawn": lambda: markdown_of_today(runs, REDRAWN),
            "scribbles": markdown_of_scribbles,
            "short": lambda: markdown_in_short(runs),
        }
        text = made.get(match[2], lambda: markdown(TABLES[match[2]], runs))()
        return f"{match[1]}\n{text}\n<!-- end -->"

    return re.sub(r"(<!-- table: ([\w-]+) -->)\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def draw(runs: list[dict[str, str]]) -> None:
    """One panel a data set: the DSC of each run by method, a dot a seed."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "results"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(LABELS), figsize=(2.6 * len(LABELS), 3.2), sharey=True)
    for axis, (name, label) in zip(axes, LABELS.items(), strict=True):
        best = {}  # the better of the rows of a method: with or without the image before D
        for key, seeds in groups(TABLES[name], runs).items():
            values = [100 * float(run["dsc"]) for run in seeds]
            mean = sum(values) / len(values)
            if key[0] not in best or mean > best[key[0]][0]:
                best[key[0]] = (mean, values)
        for method, (mean, values) in best.items():
            place = METHODS.index(method)
            color = "#D55E00" if method.endswith("_crf") else "#0072B2"
            axis.barh(place, mean, color=color, alpha=0.35)
            axis.plot(values, [place] * len(values), "o", color=color, markersize=4)
        axis.set_title(label, fontsize=10)
        axis.set_xlim(0, 100)
    axes[0].set_yticks(range(len(METHODS)), METHODS)
    axes[0].invert_yaxis()
    figure.supxlabel("DSC x 100 on the test images, a dot a seed", fontsize=10)
    figure.tight_layout()
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, say whether it is new")
    check = parser.parse_args().check
    runs = read_runs()
    page = PAGE.read_text(encoding="utf-8")
    new = filled(page, runs)
    if check:
        print("docs/results.md is", "current" if new == page else "not what the CSV says")
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    draw(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
