"""What ``accl compare`` leaves behind: table.json, table.md, figures/ and report.html."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ..config import TrainConfig
from ..data.class_names import class_title
from ..data.options import ImageMoves
from ..data.references import FEW_MASKS
from ..evaluation.evaluate import load_test
from ..evaluation.metrics import mean, spread
from ..evaluation.predict import read_prediction
from ..methods import METHODS
from ..run import Run
from ..storage import folder_name, write_json, write_text
from . import html, paper
from .curves import score_plot, training_curves
from .figures import METHOD_COLOURS, Case, drawn, panel, select_cases, worst_cases, worst_page
from .table import (
    Results,
    Sheet,
    class_sheet,
    main_sheet,
    markdown_report,
    scored_unit,
    scored_units,
    seed_sheet,
    unit_means,
)

PANEL_ROWS = 6
WORST = 8
MEAN = "DSC x100, mean ± spread over the seeds."


def write_comparison(
    out: Path,
    configs: Sequence[TrainConfig],
    results: Results,
    table: Mapping[str, Mapping],
    beside: Mapping[str, float],
    paper_row: str | None,
    command: str,
) -> None:
    """Write everything under ``out`` from the finished runs; ``results`` may lack some runs."""
    write_json(out / "table.json", table)
    results = {method: runs for method, runs in results.items() if runs}
    folders = {
        (config.method, config.seed): Path(config.out)
        for config in configs
        if config.seed in results.get(config.method, {})
    }
    dataset = load_test(configs[0])
    figures = draw(out / "figures", results, folders, dataset, beside)
    settings = settings_of(configs, results, command)
    notes = protocol_notes(results, paper_row)
    rows = [f"{paper.METHOD_LABELS[name]}: {paper.ROW_SENTENCES[name]}" for name in results]
    notes = [*rows, *notes]
    cautions = run_warnings(results)
    data = folder_name(configs[0].data)
    title = f"{len(results)} methods on {data}"
    seeds = sorted({seed for runs in results.values() for seed in runs})
    count = f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}"
    lead = f"{data}, {scored_set(dataset)}, preset {configs[0].preset}, {count}. {MEAN}"
    main = main_sheet(table, paper.METHOD_LABELS, beside)
    classes = class_sheet(table, paper.METHOD_LABELS)
    single = seed_sheet(table, paper.METHOD_LABELS)
    sheets = {"": main, **({"Classes": classes} if classes else {}), "Single runs": single}
    write_text(out / "table.md", markdown_report(title, sheets, settings, notes, cautions))
    blocks = [
        html.table(main),
        html.figure(figures["scores"], f"DSC of every test {scored_unit(results)} by method."),
        *class_blocks(classes),
        html.warnings(cautions),
        html.heading("Segmentations"),
        html.figure(
            figures["panel"],
            "Test images from the worst (by the mean DSC over the methods) in even steps to the "
            f"best; networks of seed {seeds[0]}.",
        ),
        html.heading("Worst cases first"),
        html.figure(figures["worst"], "Each method's own worst test images."),
        html.heading("Training"),
        html.figure(
            figures["curves"],
            "One line a run. DSC and size ratio are taken on training images in passing "
            "(on validation images where a share is set aside), so they are no test scores.",
        ),
        html.heading("Single runs"),
        html.table(single),
        html.heading("Settings"),
        html.facts(settings),
        html.heading("How to read this"),
        html.notes(notes),
    ]
    write_text(out / "report.html", html.page(title, lead, blocks))


def class_blocks(sheet: Sheet | None) -> list:
    """The scores of each class; nothing for one object."""
    return [html.heading("Classes"), html.table(sheet)] if sheet else []


def scored_set(dataset) -> str:
    """How many images, and of how many volumes, are scored."""
    volumes = len(set(dataset.volumes))
    of = f" of {volumes} volumes" if dataset.classes and volumes < len(dataset) else ""
    return f"{len(dataset)} test images{of}"


def draw(
    out: Path,
    results: Results,
    folders: Mapping[tuple[str, int], Path],
    dataset,
    beside: Mapping[str, float],
) -> dict[str, Path | None]:
    """Write the comparison's figures and returns their paths by name, None for one that failed."""
    labels = {method: paper.METHOD_LABELS[method] for method in results}
    first = {method: min(runs) for method, runs in results.items()}
    dsc = {method: results[method][seed]["dsc_per_image"] for method, seed in first.items()}
    masks = {method: Run(folders[method, seed]).predictions for method, seed in first.items()}

    def case(name: str, methods: Sequence[str]) -> Case:
        predictions = {method: masks[method] for method in methods}
        return make_case(dataset, name, predictions, dsc)

    def worst_cases_by_method(path: Path) -> Path:
        worst = {
            method: [case(name, [method]) for name in worst_cases(dsc[method], WORST)]
            for method in results
        }
        return worst_page(worst, labels, path, colours=METHOD_COLOURS)

    def panel_of_methods(path: Path) -> Path:
        rows = [case(name, list(results)) for name in select_cases(dsc, PANEL_ROWS)]
        return panel(rows, labels, path, colours=METHOD_COLOURS)

    curves: dict[str, list] = {method: [] for method in results}
    for (method, _), folder in sorted(folders.items(), key=lambda item: item[0][1]):
        curves[method].append(Run(folder).curves())
    units = {
        method: [scored_units(runs[seed]) for seed in sorted(runs)]
        for method, runs in results.items()
    }
    named = {"labels": labels, "names": dataset.class_names}
    return {
        "panel": drawn(panel_of_methods, out / "panel.png"),
        "worst": drawn(worst_cases_by_method, out / "worst.png"),
        "curves": drawn(training_curves, curves, out / "curves.png", **named),
        "scores": drawn(
            score_plot, units, out / "scores.png", **named, beside=beside, of=scored_unit(results)
        ),
    }


def make_case(
    dataset, name: str, folders: Mapping[str, Path], dsc: Mapping[str, Mapping[str, float]]
) -> Case:
    """A row of a panel from the masks that runs have written.

    Args:
        dataset: of the images, with masks.
        name: of an image of it.
        folders: column -> the run's ``predictions`` folder.
        dsc: column -> image name -> DSC.
    """
    index = dataset.names.index(name)
    return Case(
        name,
        dataset.full_image(index),
        dataset.full_mask(index),
        {key: read_prediction(dataset, index, folder) for key, folder in folders.items()},
        {key: dsc[key][name] for key in folders},
        dataset.classes,
        dataset.class_names,
    )


def settings_of(
    configs: Sequence[TrainConfig], results: Results, command: str
) -> list[tuple[str, str]]:
    """What a reader needs to run it again, as pairs of name and value."""
    base = configs[0]
    runs = [metrics for by_seed in results.values() for metrics in by_seed.values()]
    adversarial = [config for config in configs if METHODS[config.method].accl]
    seconds = [metrics["seconds"] for metrics in runs if metrics.get("seconds") is not None]
    ratios = {metrics["annotation_ratio"] for metrics in runs if metrics.get("annotation_ratio")}
    sizes = _sizes(runs)
    pairs = [
        ("command", f"`{command}`"),
        ("preset", base.preset),
        ("images", f"{base.size} x {base.size}, scored at their own size"),
        ("classes", f"{base.classes}, the background counted" if base.classes else ""),
        ("networks", _networks(base)),
        ("training", f"{base.epochs} epochs, batch {base.batch_size}, {_optimiser(base)}"),
        ("entropy term", f"weight {base.entropy:g}" if base.entropy else ""),
        ("random moves", _moves(base)),
        ("weight of ACCL", _by_method(adversarial, lambda c: f"{c.accl_weight:g}")),
        ("reference masks", _by_method(adversarial, _taken_for_real)),
        ("discriminator sees", _by_method(adversarial, _seen)),
        ("size bounds", f"{base.bounds}: {sizes}" if sizes else str(base.bounds)),
        ("weak labels", _weak_labels(base)),
        ("labelled pixels", ", ".join(f"{100 * ratio:.3g} %" for ratio in sorted(ratios))),
        ("seeds", ", ".join(str(seed) for seed in sorted({config.seed for config in configs}))),
        ("backend", ", ".join(sorted({f"{run['backend']} on {run['device']}" for run in runs}))),
        ("time", f"{sum(seconds) / 60:.1f} minutes of training, summed over {len(runs)} runs"),
        ("versions", ", ".join(f"{k} {v}" for k, v in runs[0].get("versions", {}).items())),
    ]
    return [(key, value) for key, value in pairs if value]


def _by_method(configs: Sequence[TrainConfig], value: Callable[[TrainConfig], str]) -> str:
    """A value of each config behind its method's name, each pair once."""
    pairs = (f"{paper.METHOD_LABELS[config.method]} {value(config)}" for config in configs)
    return ", ".join(dict.fromkeys(pairs))


def _seen(config: TrainConfig) -> str:
    """What the discriminator sees."""
    return "image and mask" if config.sees_image else "the mask alone"


def _taken_for_real(config: TrainConfig) -> str:
    """The discriminator's reference masks."""
    kind, options = config.reference_kind, config.references
    if kind in ("folder", "auto") or (kind == "augmented" and options.folder):
        origin = f"those in {options.folder or 'references/'}"
    elif kind == "augmented":
        origin = f"{options.painted} painted ones"
    else:
        origin = kind
    if kind == "augmented":
        return f"{options.count} made from {origin}"
    if kind == "auto":
        return f"{origin} ({options.count} made of fewer than {FEW_MASKS})"
    return origin


def _sizes(runs: Sequence[Mapping]) -> str:
    """The size bounds that the runs trained with, of each class where there are several."""
    found = [metrics["bounds"] for metrics in runs if metrics.get("bounds")]
    if not found or not isinstance(found[0], Mapping):
        pairs = sorted({_sided(*bounds) for bounds in found})
        return ", ".join(_size_range(*pair) for pair in pairs)
    names = runs[0].get("class_names")
    return ", ".join(
        f"{class_title(index, names)} {_size_range(*_sided(*pair))}"
        for index, pair in found[0].items()
        if pair
    )


def _sided(lower: float | None, upper: float | None) -> tuple[float, float]:
    """Size bounds as metrics.json has them, null where a side is free, as numbers."""
    return -math.inf if lower is None else lower, math.inf if upper is None else upper


def _size_range(lower: float, upper: float) -> str:
    if math.isinf(lower):
        return "any size" if math.isinf(upper) else f"at most {upper:g} pixels"
    return f"at least {lower:g} pixels" if math.isinf(upper) else f"{lower:g} to {upper:g} pixels"


def _moves(config: TrainConfig) -> str:
    """What is set of the random moves of the training images; "" where nothing moves."""
    options, still = asdict(config.image_moves), asdict(ImageMoves())
    moved = {key: value for key, value in options.items() if value != still[key]}
    return ", ".join(
        key if value is True else f"{key} {_or_measured(value)}" for key, value in moved.items()
    )


def _networks(config: TrainConfig) -> str:
    named = "" if config.network == "unet" else f"{config.network}, "
    prior = _or_measured(config.prior)
    return f"{named}width {config.width}, norm {config.norm}, prior {prior}"


def _optimiser(config: TrainConfig) -> str:
    name = {"adam": "Adam", "sgd": "SGD"}[config.optimizer]
    return f"{name} {config.lr:g}" + (", poly decay" if config.schedule == "poly" else "")


def _or_measured(value: float | tuple[float, ...] | None) -> str:
    """Numbers as given, or that the masks decide them."""
    if isinstance(value, tuple):
        return " ".join(f"{number:g}" for number in value)
    return "by the masks" if value is None else f"{value:g}"


def _weak_labels(config: TrainConfig) -> str:
    """Where the labelled pixels come from, with the options that count there."""
    weak = config.weak
    strategy = "erosion" if weak.strategy == "auto" else weak.strategy
    if weak.strategy in ("auto", "scribble") and (Path(config.data) / "train" / "weak").is_dir():
        return "read from weak/"
    if weak.ratio is not None:
        extent = f"to {100 * weak.ratio:g} %"
    elif strategy == "erosion":
        extent = f"{weak.iterations} iterations"
    elif strategy == "box":
        extent = f"margin {weak.margin} pixels"
    elif strategy == "skeleton":
        extent = f"stroke {weak.stroke:g}, jitter {weak.jitter:g}"
    else:
        extent = f"radius {weak.radius:g} pixels"
    more = ", topology kept" if weak.keep_topology else ""
    more += f", {100 * weak.wrong:g} % of them wrong" if weak.wrong else ""
    return f"{strategy}, {extent}{more}"


def protocol_notes(results: Results, paper_row: str | None) -> list[str]:
    """What a reader must know before comparing two numbers of the table."""
    runs = [metrics for by_seed in results.values() for metrics in by_seed.values()]
    unit, units = scored_unit(results), len(scored_units(runs[0]))
    several = "dsc_of" in runs[0]
    errors = [spread(unit_means({0: metrics})) for metrics in runs]
    typical = mean(errors)
    seeds = max(len(by_seed) for by_seed in results.values())
    decided = "every pixel of its most probable class" if several else "probability cut at 0.5"
    classes = ", then over the foreground classes" if several else ""
    article = "an" if unit == "image" else "a"
    notes = [
        f"Scores are of the last epoch, at each image's own size, {decided}; DSC is "
        f"taken by {unit} and averaged{classes}. No run and no epoch was chosen by the test "
        "images.",
        "Size ratio: all predicted over all true foreground pixels. Above 1 the foreground "
        "expands, below 1 it is suppressed.",
        "Rank r of sizes: Spearman's correlation of predicted and true size over the test images. "
        "Near 0 a method may meet the mean size and knows nothing of the single object's.",
        *_pairwise_note(results),
        "Both masks empty: DSC 1. One empty: DSC 0 and no distance; [n/m] beside HD95 says on how "
        "many of the scored images it is defined, so read it together with DSC.",
        "Size bounds come from the training masks unless the settings say otherwise.",
    ]
    if several:
        notes.insert(
            1,
            "Every score is the mean over the foreground classes; those stand apart under Classes, "
            f"each with its index in the masks. Where {article} {unit} has a class neither in its "
            "mask nor in its prediction, the DSC of that class is 1.",
        )
    if typical is not None:
        notes.append(
            f"{units} test {unit}s alone give the mean DSC a standard error of about "
            f"{100 * typical / units**0.5:.1f} points (the methods' mean); smaller differences "
            "between two methods may be chance."
        )
    notes.append(
        "One seed says nothing about the spread between trainings; use several."
        if seeds == 1
        else f"± is the sample standard deviation over {seeds} seeds."
    )
    if paper_row is not None:
        notes.append(
            f"Paper: its Table 1, {paper.ROW_TITLES[paper_row]}: one training, no validation "
            "split, alpha tuned on the test images, a draw of images that was never published. "
            "Compare level and order, not decimals."
        )
    return notes


def _pairwise_note(results: Results) -> list[str]:
    """What the column of that name means, with the value of the true masks beside."""
    masks = {
        metrics.get("mean_pairwise_dsc_of_masks")
        for runs in results.values()
        for metrics in runs.values()
    }
    if len(masks) != 1 or None in masks:
        return []
    return [
        "Mean pairwise DSC: mean DSC x100 between the predictions of different images; near 100 "
        "a method gives every image the same mask. Between the true masks it is "
        f"{100 * masks.pop():.1f}."
    ]


def run_warnings(results: Results) -> list[str]:
    """Warnings raised in the trainings, each with its run."""
    return [
        f"{paper.METHOD_LABELS.get(key, f'alpha {key}')}, seed {seed}: {warning}"
        for key, runs in results.items()
        for seed, metrics in sorted(runs.items())
        for warning in metrics.get("warnings") or []
    ]
