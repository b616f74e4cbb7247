"""Makes the tables and the figure of docs/results.md and its log from docs/measurements/*.csv.

``python docs/make_results.py`` writes them. With ``--check`` it only says whether the tables in the
pages are those of the CSV, and ends with status 1 if not. The words are written by hand: what is
between ``<!-- table: NAME -->`` and ``<!-- end -->`` is replaced.
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
PAGES = (DOCS / "results.md", DOCS / "results_log.md")
RUNS = DOCS / "measurements" / "runs.csv"
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
    "walker",
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
GIVEN, ANEW = "the published draw", "drawn anew"
SHORT = {
    "left ventricle": {GIVEN: ["acdc_lv"], ANEW: ["acdc_lv_11", "acdc_lv_12"]},
    "right ventricle": {ANEW: ["acdc_rv_11"]},
    "myocardium": {ANEW: ["acdc_myo_11"]},
    "head": {GIVEN: ["hc18_head"]},
    "ring": {GIVEN: ["drishti_disc"], ANEW: ["drishti_disc_11"]},
    "cup": {GIVEN: ["drishti_cup"], ANEW: ["drishti_cup_11"]},
    "phantoms": {GIVEN: ["phantom"]},
}
"""Columns of the table of shares: label -> names in the CSV, by draw."""
DRAWN = {
    "left ventricle (ACDC)": "acdc_lv",
    "head (HC18)": "hc18_head",
    "ring (Drishti)": "drishti_disc",
    "cup (Drishti)": "drishti_cup",
    "phantoms": "phantom",
}
"""Panels of the figure."""

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
    """Shares of full supervision alone, a column a data set, a row a method and draw."""
    found = runs_of_today(runs)
    lines = [
        "| | " + " | ".join((*SHORT, "four classes, scribbles")) + " |",
        "|---|" + "---:|" * (len(SHORT) + 1),
    ]
    painted = VARIANTS["--references.painted 3"]
    variants = (
        ("`accl_crf`, three painted masks", ("accl_crf", painted)),
        ("`accl_crf`, all training masks painted", ("accl_crf",)),
        ("`walker`, three painted masks", ("walker", painted)),
        ("`sccl`", ("sccl",)),
    )
    for draw in (GIVEN, ANEW):
        for label, key in variants:
            names = [column.get(draw, []) for column in SHORT.values()]
            shares = [[share_of_full(found, (name, *key)) for name in each] for each in names]
            cells = [", ".join(filter(None, each)) for each in shares]
            ours = draw == GIVEN and key == ("accl_crf",)
            cells.append(share_of_full_in_scribbles() if ours else "")
            if any(cells):
                where = "" if draw == GIVEN else f", {draw}"
                lines.append("| " + " | ".join((f"{label}{where}", *cells)) + " |")
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
    """One panel a data set: the DSC of each run with today's defaults by method, a dot a seed."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "results"
    from matplotlib import pyplot

    found = runs_of_today(runs)
    painted = VARIANTS["--references.painted 3"]
    keys = [(method,) for method in METHODS] + [("accl_crf", painted), ("walker", painted)]
    keys = [key for key in keys if any((data, *key) in found for data in DRAWN.values())]
    keys.sort(key=lambda key: METHODS.index(key[0]))
    figure, axes = pyplot.subplots(1, len(DRAWN), figsize=(2.6 * len(DRAWN), 3.0), sharey=True)
    for axis, (label, data) in zip(axes, DRAWN.items(), strict=True):
        for place, key in enumerate(keys):
            values = [100 * float(run["dsc"]) for run in found.get((data, *key), [])]
            if not values:
                continue
            color = "#D55E00" if key[0].endswith("_crf") else "#0072B2"
            axis.barh(place, sum(values) / len(values), color=color, alpha=0.35)
            axis.plot(values, [place] * len(values), "o", color=color, markersize=4)
        axis.set_title(label, fontsize=10)
        axis.set_xlim(0, 100)
    axes[0].set_yticks(range(len(keys)), [",\n".join(key) for key in keys], fontsize=8)
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
    pages = {page: page.read_text(encoding="utf-8") for page in PAGES}
    new = {page: filled(text, runs) for page, text in pages.items()}
    if check:
        for page, text in pages.items():
            print(
                f"docs/{page.name} is {'current' if new[page] == text else 'not what the CSV says'}"
            )
        return int(new != pages)
    for page, text in new.items():
        page.write_text(text, encoding="utf-8")
    draw(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
