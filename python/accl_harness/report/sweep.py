"""What ``accl sweep`` leaves behind: sweep.json, sweep.md, figures/ and report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.colors import to_hex
from rich.console import Console

from ..config import TrainConfig
from ..evaluation.evaluate import load_test
from ..run import Run
from ..storage import folder_name, write_json, write_text
from . import html, paper
from .curves import alpha_curve, training_curves
from .document import (
    class_blocks,
    make_case,
    protocol_notes,
    run_warnings,
    scored_set,
    settings_of,
)
from .figures import METHOD_COLOURS, drawn, panel, select_cases
from .table import (
    Results,
    build_table,
    class_sheet,
    main_sheet,
    markdown_report,
    seed_sheet,
    terminal_sheet,
)

PANEL_ROWS = 4


def write_sweep(
    base: TrainConfig,
    configs: Sequence[TrainConfig],
    results: Results,
    command: str,
    search: Mapping | None = None,
    search_notes: Sequence[str] = (),
) -> None:
    """Write sweep.json, sweep.md, report.html and figures/ from the finished runs.

    Args:
        base: options that all runs share; ``out`` is the folder.
        configs: of the runs.
        results: alpha -> seed -> content of metrics.json.
        command: the command line, for the record.
        search: what a search beyond the grid found, for sweep.json.
        search_notes: the same in words.
    """
    out, label = Path(base.out), paper.METHOD_LABELS[base.method]
    dataset = load_test(base)
    table = build_table(results)
    figures = draw(base, configs, results, dataset)
    main = main_sheet(table, {}, {}, "alpha")
    classes = class_sheet(table, {}, "alpha")
    single = seed_sheet(table, {}, "alpha")
    settings = settings_of(configs, results, command)
    notes, cautions = protocol_notes(results, None), run_warnings(results)
    title = f"{label}: DSC by the weight of ACCL on {folder_name(base.data)}"
    notes = [*search_notes, *notes]
    write_json(out / "sweep.json", {"method": base.method, "alphas": table, "search": search})
    sheets = {"": main, **({"Classes": classes} if classes else {}), "Single runs": single}
    write_text(out / "sweep.md", markdown_report(title, sheets, settings, notes, cautions))
    blocks = [
        html.table(main),
        html.figure(
            figures["curve"],
            "Mean DSC and size ratio on the test images; dots are seeds. The grey curve is the "
            "paper's on its ACDC images, for the shape.",
        ),
        *class_blocks(classes),
        html.warnings(cautions),
        html.heading("Segmentations"),
        html.figure(figures["panel"], "One column for each alpha, as in the paper's Figs. 11-13."),
        html.heading("Training"),
        html.figure(figures["curves"], "One line a run; DSC and size ratio are no test scores."),
        html.heading("Settings"),
        html.facts(settings),
        html.heading("How to read this"),
        html.notes(notes),
    ]
    lead = f"{scored_set(dataset)}, preset {base.preset}. DSC x100, mean ± spread over seeds."
    write_text(out / "report.html", html.page(title, lead, blocks))
    console = Console()
    console.print(terminal_sheet(table, {}, {}, "alpha").terminal(title))
    for name in ("sweep.json", "sweep.md", "report.html"):
        console.print(f"written: {out / name}", highlight=False, soft_wrap=True, markup=False)


def draw(
    base: TrainConfig, configs: Sequence[TrainConfig], results: Results, dataset
) -> dict[str, Path | None]:
    """Write the sweep's figures and returns their paths by name, None for one that failed."""
    out, label = Path(base.out) / "figures", paper.METHOD_LABELS[base.method]
    folders = {(f"{config.alpha:g}", config.seed): Path(config.out) for config in configs}
    first = {alpha: min(runs) for alpha, runs in results.items()}
    dsc = {alpha: results[alpha][seed]["dsc_per_image"] for alpha, seed in first.items()}
    masks = {alpha: Run(folders[alpha, seed]).predictions for alpha, seed in first.items()}
    points = {
        float(alpha): [(run["dsc"], run["size_ratio"]) for run in runs.values()]
        for alpha, runs in results.items()
    }
    curves = {
        alpha: [Run(folders[alpha, seed]).curves() for seed in runs]
        for alpha, runs in results.items()
    }
    headings = {alpha: f"alpha {alpha}" for alpha in results}

    def panel_of_alphas(path: Path) -> Path:
        rows = [make_case(dataset, name, masks, dsc) for name in select_cases(dsc, PANEL_ROWS)]
        return panel(rows, headings, path, title=label)

    colour, beside = METHOD_COLOURS[base.method], paper.ALPHA_STUDY.get(base.method, {})
    return {
        "panel": drawn(panel_of_alphas, out / "panel.png"),
        "curve": drawn(
            alpha_curve, points, out / "alpha.png", colour=colour, beside=beside, title=label
        ),
        "curves": drawn(
            training_curves,
            curves,
            out / "curves.png",
            labels=headings,
            colours=shades(list(results)),
        ),
    }


def shades(alphas: Sequence[str]) -> dict[str, str]:
    """Colours from dark (small alpha) to light, of a map that is even to every eye."""
    steps = max(len(alphas) - 1, 1)
    return {
        alpha: to_hex(colormaps["viridis"](0.9 * index / steps))
        for index, alpha in enumerate(alphas)
    }
