"""One run from data to scores, and the scoring of a run that is there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ..classes import decide
from ..config import TrainConfig
from ..data.class_names import class_title
from ..data.dataset import Dataset
from ..data.fingerprint import fingerprint
from ..data.options import Slices
from ..data.pairing import has_split
from ..errors import UserError
from ..evaluation.evaluate import load_test, of_training, score_run, score_warnings
from ..report.live import LiveReport
from ..report.single import draw_curves, draw_run
from ..report.table import Sheet, number
from ..run import Run, ScoreFolder
from ..storage import folder_name
from ..training.curves import Row
from ..training.inference import TrainedRun, load_run, predict_probabilities
from ..training.session import Session, run_to_write, training_session

FACTS = ("seconds", "annotation_ratio", "bounds", "warnings", "measured")
"""What only the training knows and metrics.json holds."""


def run_training(
    config: TrainConfig,
    *,
    resume: bool = False,
    quiet: bool = False,
    live: bool = False,
    on_epoch: Callable[[Row], None] | None = None,
) -> Path:
    """Train, and score the result on the test split, where the data have one.

    Args:
        config: all options; ``data`` and ``out`` must be set.
        resume: go on from the last checkpoint in ``config.out``; start where there is none;
            leave a finished run as it is.
        quiet: show nothing on the terminal.
        live: write ``report.html`` again and again, for a browser to look at meanwhile.
        on_epoch: called with the row of metrics.csv after each epoch.

    Returns:
        The run folder, see :mod:`accl_harness.run`.

    Raises:
        UserError: bad options or data, ``out`` not empty without ``resume``, a run of other
            options or data to resume, another process that trains there, a full disk.
    """
    config.check()
    run = run_to_write(config, resume)
    if run.is_finished:
        return run.folder
    # Now, so that bad test images fail before the training.
    test = load_test(config) if has_split(config.data, "test") else None
    with training_session(config, resume=resume, quiet=quiet) as session:
        if test is None:
            session.progress.say(f"{config.data} has no folder test: nothing will be scored")
        # One process alone: a network of several is not to be asked by one of them.
        report = _live_report(run, session) if live and config.devices == 1 else None
        session.train(_both(report, on_epoch))
        if session.writes:
            _end(run, session, test)
            if report is not None:
                _last_report(report, run)
        session.finish()
    return run.folder


def _live_report(run: Run, session: Session) -> LiveReport:
    def predict(images: Dataset) -> list[np.ndarray]:
        return list(decide(predict_probabilities(session.trained(), images.images)).cpu().numpy())

    return LiveReport(run, session.config, session.images, predict)


def _both(*watchers: Callable[[Row], None] | None) -> Callable[[Row], None]:
    """Who looks at the row of each epoch, one after the other."""

    def look(row: Row) -> None:
        for watcher in watchers:
            if watcher is not None:
                watcher(row)

    return look


def _last_report(report: LiveReport, run: Run) -> None:
    metrics = run.metrics()
    rows = []
    if "dsc" in metrics:
        rows = [
            [name, number(metrics[key], scale=scale, digits=digits)]
            for name, key, scale, digits in _shown_scores(metrics)
        ]
    scores = Sheet(["score", "mean"], rows) if rows else None
    report.write(report.config.all_epochs, metrics["warnings"], scores)


def _end(run: Run, session: Session, test: Dataset | None) -> None:
    """Write scores, masks and figures; without test images the figures and what was trained."""
    trained = session.trained()
    if test is None:
        draw_curves(run, trained.config.method)
        run.save_metrics({**of_training(trained, trained.facts), "images": 0})
        return
    session.progress.say("scoring the test images")
    facts, first = dict(trained.facts), session.first_stage()
    if first is not None:
        scores = evaluate_run(first, test, out=run.folder / "first_stage", training=first.facts)
        facts["first_stage"] = {name: scores[name] for name in ("dsc", "size_ratio", "seconds")}
    metrics = evaluate_run(trained, test, out=run.folder, training=facts)
    for warning in metrics["warnings"]:
        if warning not in trained.facts["warnings"]:
            session.progress.warn(warning)


def evaluate_run(
    run: Path | str | TrainedRun,
    dataset,
    *,
    out: Path | None = None,
    training: Mapping | None = None,
) -> dict:
    """Score a run on a data set, see :func:`~accl_harness.evaluation.evaluate.score_run`.

    Args:
        run: run folder, or a trained network.
        dataset: ``data.Dataset`` with masks.
        out: where to write ``metrics.json``, ``per_image.csv``, ``predictions/`` and ``figures/``
            (worst cases; curves where ``out`` is the run itself); None writes nothing.
        training: what only the training knows. What is not given is taken from the run's own
            metrics.json or checkpoint, or is None.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: no run there, or the data set has no masks.
    """
    folder = Path(run) if isinstance(run, Path | str) else None
    trained = load_run(folder) if folder is not None else run
    known = Run(folder or trained.config.out).metrics() or trained.facts
    facts = {key: known[key] for key in FACTS if key in known} | dict(training or {})
    evaluation = score_run(trained, dataset, facts)
    if out is not None:
        target = ScoreFolder(out)
        target.folder.mkdir(parents=True, exist_ok=True)

        def draw() -> None:
            draw_run(target.folder, evaluation.metrics, dataset, evaluation.masks)

        evaluation.write(target, dataset, draw)
    return evaluation.metrics


def evaluate(
    run: Path,
    data: Path | None = None,
    *,
    split: str = "test",
    masks: str | None = None,
    mask_threshold: float | None = None,
    mask_value: int | None = None,
    mask_suffix: str | None = None,
    slices: Slices | None = None,
    patients: str | None = None,
    volumes: str | None = None,
    out: Path | None = None,
) -> dict:
    """``accl evaluate``: score a run on ``data/split`` and print the scores.

    Args:
        run: run folder of a finished or interrupted training.
        data: data set root; None scores on the data of the training.
        split: ``test`` or ``train``.
        masks: name of the mask folder; None keeps the training's.
        mask_threshold: mask values above it are the object; None keeps the training's on the
            training's data and wants masks of 0 and one other value elsewhere.
        mask_value: mask values equal to it are the object; None as for ``mask_threshold``.
        mask_suffix: what the masks' names have behind the images'; None keeps the training's.
        slices: axis of a volume's slices; None keeps the training's.
        patients: a regular expression that names the patient in a file's name; None keeps the
            training's where it finds something in every name.
        volumes: likewise the volume.
        out: folder for metrics.json, per_image.csv and predictions/; None writes to
            ``RUN/evaluation/<data>-<split>``, so the training's own metrics.json stays.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: no run, bad data, ``out`` is the run folder itself or holds the scores of other
            data.
    """
    config = Run(run).config()
    root = Path(data if data is not None else config.data)
    if out is not None and Path(out).resolve() == Path(run).resolve():
        raise UserError(f"--out: {out} is the run itself, whose own scores would be lost")
    if mask_threshold is not None and mask_value is not None:
        raise UserError("mask_threshold and mask_value both choose the object; give one of them")
    dataset = load_test(
        config,
        data,
        split=split,
        masks=masks,
        mask_threshold=mask_threshold,
        mask_value=mask_value,
        mask_suffix=mask_suffix,
        slices=slices,
        patients=patients,
        volumes=volumes,
    )
    digest = fingerprint(root, masks or config.masks)
    inside = Path(run) / "evaluation" / f"{folder_name(root)}-{split}"
    target = ScoreFolder(out if out is not None else inside)
    target.refuse_other_data(root, digest)
    metrics = evaluate_run(Path(run), dataset, out=target.folder)
    target.record_data(root, digest)
    _print_scores(metrics, dataset, target.folder)
    return metrics


def _print_scores(metrics: Mapping, dataset, target: Path) -> None:
    classes = list(metrics.get("dsc_per_class") or ())
    table = Table(title=f"{metrics['method']}, seed {metrics['seed']}: {metrics['images']} images")
    table.add_column("score")
    table.add_column("mean" if classes else "value", justify="right")
    for index in classes:
        table.add_column(class_title(index, metrics.get("class_names")), justify="right")
    for name, key, scale, digits in _shown_scores(metrics):
        of_class = metrics.get(f"{key}_per_class") or {}
        values = [metrics[key], *(of_class.get(index) for index in classes)]
        table.add_row(name, *(number(value, scale=scale, digits=digits) for value in values))
        if key == "dsc":
            low, high = metrics["dsc_interval"] or (None, None)
            interval = f"{number(low, scale=100)} to {number(high, scale=100)}"
            table.add_row(f"  95 % interval over {metrics.get('dsc_of', 'images')}", interval)
    console = Console()
    console.print(table)
    for warning in score_warnings(metrics):
        console.print(warning, style="yellow", markup=False)
    if not any(np.any(dataset.full_mask(i)) for i in range(len(dataset.names))):
        console.print("no mask holds an object: DSC 1 means that nothing was predicted, no more")
    console.print(f"written to {target}", highlight=False, soft_wrap=True, markup=False)


def _shown_scores(metrics: Mapping) -> list[tuple[str, str, float, int]]:
    """Name, key, factor and digits of the scores on the terminal."""
    of, unit = metrics.get("dsc_of"), metrics["distance_unit"]
    shown = [("DSC x100", "dsc", 100, 1)]
    if of is None and metrics["dsc_3d"] is not None:
        shown.append(("DSC x100 by volume", "dsc_3d", 100, 1))
    if of == "volumes":
        shown = [("DSC x100 by volume", "dsc", 100, 1), ("DSC x100 by image", "dsc_2d", 100, 1)]
    shown += [
        (f"HD95 ({unit})", "hd95", 1, 2),
        (f"ASD ({unit})", "asd", 1, 2),
        ("precision x100", "precision", 100, 1),
        ("recall x100", "recall", 100, 1),
        ("size ratio", "size_ratio", 1, 2),
        ("rank correlation of sizes", "size_correlation", 1, 2),
    ]
    if metrics["mean_pairwise_dsc"] is not None:
        shown.append(("mean pairwise DSC of predictions x100", "mean_pairwise_dsc", 100, 1))
        shown.append(("mean pairwise DSC of true masks x100", "mean_pairwise_dsc_of_masks", 100, 1))
    return shown
