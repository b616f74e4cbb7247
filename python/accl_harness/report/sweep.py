"""`accl sweep`: the paper's study of alpha (Figs. 11 to 13), and a search beyond the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from accl_harness.config import TrainConfig, check_config
from accl_harness.errors import UserError
from accl_harness.evaluation.evaluate import load_test, write_json
from accl_harness.methods import METHODS
from accl_harness.report import html, paper
from accl_harness.report.compare import (
    DATA_SEEDS,
    DEMO_SEEDS,
    check_jobs,
    command_line,
    prepare_data,
)
from accl_harness.report.curves import alpha_curve, read_curves, training_curves
from accl_harness.report.document import make_case, protocol_notes, run_warnings, settings_of
from accl_harness.report.figures import METHOD_COLOURS, panel, select_cases
from accl_harness.report.runs import read_metrics, refuse_other_runs, train_all
from accl_harness.report.search import Search, search_alpha
from accl_harness.report.table import (
    Results,
    build_table,
    main_sheet,
    markdown_report,
    seed_sheet,
    terminal_sheet,
)

PANEL_ROWS = 4


def sweep(
    base: TrainConfig,
    *,
    alphas: Sequence[float] | None = None,
    search: int = 0,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    command: str | None = None,
) -> Path:
    """Trains `base.method` once for each alpha and seed; writes curve, panel, sweep.json and .md.

    Args:
        base: options of every run, with a `method` that has ACCL; `data=None` makes a phantom
            set in `OUT/phantom`, `out` is the folder of the sweep.
        alphas: weights of ACCL; None takes the paper's candidates for the method.
        search: this many further alphas, proposed by Optuna from the validation DSC of those
            before (needs `validation` above 0, so that no test image takes part in the choice);
            kept in `OUT/optuna.db`.
        seeds, jobs, command: as in `report.compare.compare`.

    Finished runs in `OUT/runs` are kept, interrupted ones go on. Returns the folder `base.out`.

    Raises:
        UserError: bad options or data, or a run folder of other settings.
        CheckFailed: some runs failed; table and report hold the others.
    """
    if not base.out:
        raise UserError("--out: wanted the folder of the sweep")
    if not METHODS[base.method].accl:
        able = ", ".join(name for name, method in METHODS.items() if method.accl)
        raise UserError(f"--method: wanted one that alpha weighs ({able}), got {base.method}")
    alphas = list(paper.ALPHA_STUDY[base.method] if alphas is None else alphas)
    if not alphas or len(set(alphas)) != len(alphas) or not all(alpha > 0 for alpha in alphas):
        raise UserError(f"--alphas: wanted different numbers above 0, got {alphas}")
    if search < 0:
        raise UserError(f"--search: wanted 0 or more trials, got {search}")
    if search and not base.validation:
        raise UserError(
            "--search: wanted --validation above 0 as well, such as 0.2: the search goes by "
            "validation images, never by test images"
        )
    if seeds is None:
        seeds = DATA_SEEDS if base.data else DEMO_SEEDS
    base = prepare_data(base)
    configs = [config for seed in seeds for config in plan(base, alphas, [seed])]
    for config in configs:
        check_config(config)
    jobs = check_jobs(jobs, base, len(configs))
    command = command or command_line()
    refuse_other_runs(configs)  # before the table of the earlier call could be written over
    found = None
    try:
        train_all(configs, jobs=jobs)
        if search:
            found = search_alpha(base, alphas, list(seeds), search, jobs, plan)
            configs += plan(base, found.alphas, seeds)
    finally:
        results = collect(configs)
        if results:
            write_sweep(base, configs, results, found, command)
    return Path(base.out)


def plan(base: TrainConfig, alphas: Sequence[float], seeds: Sequence[int]) -> list[TrainConfig]:
    """One config for each alpha and seed, in `OUT/runs/<method>-alpha<alpha>-seed<k>`."""
    runs = Path(base.out) / "runs"
    return [
        base.replace(
            alpha=alpha, seed=seed, out=str(runs / f"{base.method}-alpha{alpha:g}-seed{seed}")
        )
        for alpha in alphas
        for seed in seeds
    ]


def collect(configs: Sequence[TrainConfig]) -> Results:
    """Scores of the finished runs, alpha (as text, ascending) -> seed -> metrics.json."""
    results: dict[str, dict[int, Mapping]] = {}
    for config in sorted(configs, key=lambda config: config.alpha):
        metrics = read_metrics(Path(config.out))
        if metrics is not None:
            results.setdefault(f"{config.alpha:g}", {})[config.seed] = metrics
    return results


def write_sweep(
    base: TrainConfig,
    configs: Sequence[TrainConfig],
    results: Results,
    found: Search | None,
    command: str,
) -> None:
    """Writes sweep.json, sweep.md, report.html and figures/ from the finished runs."""
    from rich.console import Console

    out, label = Path(base.out), paper.METHOD_LABELS[base.method]
    dataset = load_test(base)
    table = build_table(results)
    figures = draw(base, configs, results, dataset)
    main = main_sheet(table, {}, {}, "alpha")
    single = seed_sheet(table, {}, "alpha")
    settings = settings_of(configs, results, command)
    notes, cautions = protocol_notes(results, len(dataset), None), run_warnings(results)
    title = f"{label}: DSC by the weight of ACCL on {Path(base.data).name}"
    search = None if found is None else asdict(found)
    notes = notes if found is None else [found.sentence(), *notes]
    write_json(out / "sweep.json", {"method": base.method, "alphas": table, "search": search})
    (out / "sweep.md").write_text(
        markdown_report(title, {"": main, "Single runs": single}, settings, notes, cautions),
        encoding="utf-8",
    )
    blocks = [
        html.table(main),
        html.figure(
            figures["curve"],
            "Mean DSC and size ratio on the test images; dots are seeds. The grey curve is the "
            "paper's on its ACDC images, for the shape.",
        ),
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
    lead = f"{len(dataset)} test images, preset {base.preset}. DSC x100, mean ± spread over seeds."
    (out / "report.html").write_text(html.page(title, lead, blocks), encoding="utf-8")
    console = Console()
    console.print(terminal_sheet(table, {}, {}, "alpha").terminal(title))
    for name in ("sweep.json", "sweep.md", "report.html"):
        console.print(f"written: {out / name}", highlight=False, soft_wrap=True)


def draw(
    base: TrainConfig, configs: Sequence[TrainConfig], results: Results, dataset
) -> dict[str, Path | None]:
    """Writes the sweep's figures and returns their paths by name."""
    out, label = Path(base.out) / "figures", paper.METHOD_LABELS[base.method]
    folders = {(f"{config.alpha:g}", config.seed): Path(config.out) for config in configs}
    first = {alpha: min(runs) for alpha, runs in results.items()}
    dsc = {alpha: results[alpha][seed]["dsc_per_image"] for alpha, seed in first.items()}
    masks = {alpha: folders[alpha, seed] / "predictions" for alpha, seed in first.items()}
    rows = [make_case(dataset, name, masks, dsc) for name in select_cases(dsc, PANEL_ROWS)]
    points = {
        float(alpha): [(run["dsc"], run["size_ratio"]) for run in runs.values()]
        for alpha, runs in results.items()
    }
    curves = {
        alpha: [read_curves(folders[alpha, seed] / "metrics.csv") for seed in runs]
        for alpha, runs in results.items()
    }
    headings = {alpha: f"alpha {alpha}" for alpha in results}
    return {
        "panel": panel(rows, headings, out / "panel.png", title=label),
        "curve": alpha_curve(
            points,
            out / "alpha.png",
            colour=METHOD_COLOURS[base.method],
            beside=paper.ALPHA_STUDY[base.method],
            title=label,
        ),
        "curves": training_curves(
            curves, out / "curves.png", labels=headings, colours=shades(list(results))
        ),
    }


def shades(alphas: Sequence[str]) -> dict[str, str]:
    """Colours from dark (small alpha) to light, of a map that is even to every eye."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    steps = max(len(alphas) - 1, 1)
    return {
        alpha: to_hex(colormaps["viridis"](0.9 * index / steps))
        for index, alpha in enumerate(alphas)
    }
