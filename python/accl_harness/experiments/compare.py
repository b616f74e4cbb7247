"""``accl compare``: methods x seeds, the table of the paper's form, figures and report.html."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ..config import TrainConfig
from ..data.dataset import load_split
from ..data.options import ReferenceOptions, reading_options
from ..data.phantom import write_phantom
from ..errors import UserError
from ..methods import METHODS
from ..report import paper
from ..report.document import write_comparison
from ..report.table import Results, build_table, terminal_sheet
from ..run import Run
from ..storage import locked
from .pool import default_jobs, refuse_other_runs, train_all

DEMO_SEEDS, DATA_SEEDS = (0,), (0, 1, 2)
PHANTOM = {"n_train": 60, "n_test": 20, "shape": "disc", "seed": 0}
DEMO_REFERENCES = ReferenceOptions(kind="augmented", painted=3)
"""The demo's methods beyond the paper know three masks, as a person would paint them."""

_BEYOND = ("second_stage", "crf", "size_prior", "size_balance", "soften", "d_noise")
"""Options of the terms that the paper's methods do not have."""


def compare(
    base: TrainConfig,
    *,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    paper_row: str | None = None,
    paper_settings: bool = False,
    command: str | None = None,
) -> Path:
    """Train every method with every seed and write table, figures and report under ``base.out``.

    Finished runs in ``OUT/runs`` are kept, interrupted ones go on.

    Args:
        base: options of every run; ``method`` and ``seed`` are set for each, ``out`` is the folder
            of the comparison. ``data=None`` makes a phantom set in ``OUT/phantom`` (preset
            ``demo``, whose methods beyond the paper take their reference masks from three painted
            ones). ``alpha`` counts for the methods with ACCL, ``size_weight`` for ``sccl``,
            ``references`` for the methods with masks of other images; without any of those it is
            refused. ``crf``, ``size_prior``, ``soften`` and ``d_noise`` count for the two methods
            beyond the paper.
        methods: names from ``methods.METHODS``; None takes the paper's seven and the
            two with the gated CRF.
        seeds: None takes 0 for the demo, else 0, 1, 2.
        jobs: trainings at a time, each with its share of the cores; None: one for each core on a
            CPU, one on a GPU.
        paper_row: ``acdc_lv``, ``cup``, ``disc`` or ``pupil`` puts that row of the paper's Table 1
            beside.
        paper_settings: with ``paper_row``, trains with its annotation ratio, size bounds and
            weights of ACCL, these times ``base.alpha_scale``.
        command: the command line, for the record; None takes ``sys.argv``.

    Returns:
        The folder ``base.out``.

    Raises:
        UserError: bad options or data, or a run folder of other settings.
        CheckFailed: some runs failed; table and report hold the others.
    """
    beside = paper.paper_row(paper_row)
    if paper_settings:
        _check_paper_settings(base, paper_row)
    if not base.out:
        raise UserError("--out: wanted the folder of the comparison")
    if seeds is None:
        seeds = DATA_SEEDS if base.data else DEMO_SEEDS
    base = prepare_data(base)
    configs = plan(base, methods, seeds, paper_row if paper_settings else None)
    for config in configs:
        config.check()
    jobs = check_jobs(jobs, base, len(configs))
    command = command or command_line()
    with alone_in(base.out):
        refuse_other_runs(configs)  # before the table of the earlier call could be written over
        try:
            train_all(configs, jobs=jobs)
        finally:
            results = collect(configs)
            if any(results.values()):
                table, out = build_table(results), Path(base.out)
                write_comparison(out, configs, results, table, beside, paper_row, command)
                show(table, beside, out)
    return Path(base.out)


def _check_paper_settings(base: TrainConfig, paper_row: str | None) -> None:
    if paper_row is None:
        raise UserError("--paper-settings: wanted --paper-row as well, which says whose settings")
    if base.alpha is not None:
        raise UserError("--paper-settings: wanted no --alpha, only --alpha-scale")


def alone_in(out: str) -> AbstractContextManager[None]:
    """Hold the folder of a comparison or a sweep, so that the same command never runs twice."""
    return locked(
        Path(out),
        f"another process is at work in {out}: wait until it ends, or give another --out",
    )


def check_jobs(jobs: int | None, base: TrainConfig, runs: int) -> int:
    """``jobs`` if it is a number of trainings, the default for None; never more than ``runs``.

    Raises:
        UserError: less than 1, or a training on several devices: that starts processes which
            repeat the whole command, so it is left to ``accl train``.
    """
    if base.devices != 1 or int(os.environ.get("WORLD_SIZE", 1)) != 1:
        raise UserError("--devices: wanted 1; many trainings go side by side with --jobs instead")
    if jobs is None:
        return default_jobs(base.accelerator, runs)
    if jobs < 1:
        raise UserError(f"--jobs: wanted at least 1, got {jobs}")
    return min(jobs, runs)


def plan(
    base: TrainConfig,
    methods: Sequence[str] | None,
    seeds: Sequence[int],
    paper_settings: str | None = None,
) -> list[TrainConfig]:
    """One config for each method and seed, in ``OUT/runs/<method>-seed<k>``; seeds outermost.

    With several seeds the first table is there after the first round of methods.

    Raises:
        UserError: an unknown method, or options that none of the methods has.
    """
    every = [name for name, row in METHODS.items() if not row.by_name]
    methods = every if methods is None else list(methods)
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise UserError(f"--methods: wanted some of {', '.join(METHODS)}, got {unknown or 'none'}")
    for name, values in (("--methods", methods), ("--seeds", list(seeds))):
        if not values or len(set(values)) != len(values):
            raise UserError(f"{name}: wanted different values, at least one, got {values}")
    _refuse_unused(base, methods)
    runs = Path(base.out) / "runs"
    return [
        _for_method(base, method, paper_settings).replace(
            seed=seed, out=str(runs / f"{method}-seed{seed}")
        )
        for seed in seeds
        for method in methods
    ]


def _refuse_unused(base: TrainConfig, methods: Sequence[str]) -> None:
    """An option that none of the methods would take is a mistake, not a default."""
    references = None if base.references == ReferenceOptions() else base.references
    adversarial = [name for name, row in METHODS.items() if row.accl]
    beyond = [name for name in METHODS if _is_beyond(name)]
    sized = [name for name in METHODS if TrainConfig(method=name).weight("size_penalty")]
    extra = {name: _set(base, name) for name in _BEYOND}
    for option, value, takers in (
        ("--alpha", base.alpha, adversarial),
        ("--size-weight", base.size_weight, sized),
        ("--references", references, [name for name in METHODS if _other_masks(name)]),
        *((f"--{name.replace('_', '-')}", value, beyond) for name, value in extra.items()),
    ):
        if value is not None and not set(takers) & set(methods):
            raise UserError(
                f"{option}: counts for {', '.join(takers)} alone, and --methods has "
                f"{', '.join(methods)}; accl train takes it for any method"
            )


def _is_beyond(method: str) -> bool:
    """Whether a method has the terms that the paper's methods do not have."""
    return TrainConfig(method=method).weight("crf") != 0


def _other_masks(method: str) -> bool:
    """Whether a method's reference masks are those of other images, which options may replace."""
    row = METHODS[method]
    asks = row.accl or _is_beyond(method) or row.data_term == "grown"
    return asks and row.reference_kind == "unpaired"


def _references(base: TrainConfig, method: str) -> ReferenceOptions:
    if not _other_masks(method):
        return ReferenceOptions()
    left_open = base.references == ReferenceOptions()
    of_demo = base.preset == "demo" and not METHODS[method].in_paper
    return DEMO_REFERENCES if of_demo and left_open else base.references


def _set(config: TrainConfig, name: str) -> object:
    """The option's value where it is not the default, else None."""
    value = getattr(config, name)
    return None if value == getattr(TrainConfig(), name) else value


def _for_method(base: TrainConfig, method: str, paper_settings: str | None) -> TrainConfig:
    row = METHODS[method]
    plain = TrainConfig(method=method)
    config = base.replace(
        method=method,
        alpha=base.alpha if row.accl else None,
        size_weight=base.size_weight if plain.weight("size_penalty") else None,
        references=_references(base, method),
        **({name: getattr(plain, name) for name in _BEYOND} if not _is_beyond(method) else {}),
    )
    if paper_settings is None:
        return config
    ratio, bounds, alphas = paper.SETTINGS[paper_settings]
    # The paper has no weight for a method of ours: that keeps its own.
    alpha = base.alpha_scale * alphas[method] if method in alphas else config.alpha
    return config.replace(weak=replace(config.weak, ratio=ratio), bounds=bounds, alpha=alpha)


def prepare_data(base: TrainConfig) -> TrainConfig:
    """``base`` with data: where none was named, a phantom set is written into ``OUT/phantom``."""
    if base.data is None:
        root = Path(base.out) / "phantom"
        with alone_in(base.out):
            if not root.is_dir():
                partial = root.with_name("phantom.partial")
                shutil.rmtree(partial, ignore_errors=True)
                write_phantom(partial, size=base.size, classes=base.classes, **PHANTOM)
                partial.rename(root)
        return base.replace(data=str(root))
    # Bad data shall be told before the first training, not by each of them.
    options = reading_options(base)
    load_split(base.data, "train", weak=base.weak, **options)
    load_split(base.data, "test", weak=None, **options)
    return base


def collect(configs: Sequence[TrainConfig]) -> Results:
    """Scores of the finished runs, method (in Table 1's order) -> seed -> metrics.json."""
    trained = {config.method for config in configs}
    results: dict[str, dict[int, Mapping]] = {name: {} for name in METHODS if name in trained}
    for config in configs:
        metrics = Run(config.out).metrics()
        if metrics is not None:
            results[config.method][config.seed] = metrics
    return results


def command_line() -> str:
    """The command as a person would type it again."""
    name = Path(sys.argv[0]).name
    name = "accl" if name in ("accl", "__main__.py") else f"python {name}"
    return shlex.join([name, *sys.argv[1:]]) if name == "accl" else name


def show(table: Mapping, beside: Mapping[str, float], out: Path) -> None:
    """Print the table's main columns and where the rest is."""
    console = Console()
    sheet = terminal_sheet(table, paper.METHOD_LABELS, beside)
    console.print(sheet.terminal("DSC x100 on the test images, mean ± spread over seeds"))
    for name in ("table.json", "table.md", "report.html"):
        console.print(f"written: {out / name}", highlight=False, soft_wrap=True, markup=False)
