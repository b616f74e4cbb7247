"""``accl sweep``: the paper's study of alpha (Figs. 11 to 13), and a search beyond the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ..config import TrainConfig
from ..errors import UserError
from ..methods import METHODS
from ..report import paper
from ..report.sweep import write_sweep
from ..report.table import Results
from ..run import Run
from ..versions import need
from .compare import DATA_SEEDS, DEMO_SEEDS, alone_in, check_jobs, command_line, prepare_data
from .pool import refuse_other_runs, train_all
from .search import search_alpha


def sweep(
    base: TrainConfig,
    *,
    alphas: Sequence[float] | None = None,
    search: int = 0,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    command: str | None = None,
) -> Path:
    """Train ``base.method`` once for each alpha and seed; write curve, panel, sweep.json and .md.

    Finished runs in ``OUT/runs`` are kept, interrupted ones go on.

    Args:
        base: options of every run, with a ``method`` that has ACCL; ``data=None`` makes a phantom
            set in ``OUT/phantom``, ``out`` is the folder of the sweep.
        alphas: weights of ACCL; None takes the paper's candidates for the method, or a third
            of its own weight to three times of it.
        search: this many further alphas, proposed by Optuna from the validation DSC of those
            before (needs ``validation`` above 0, so that no test image takes part in the choice);
            kept in ``OUT/optuna.db``.
        seeds: as in :func:`~.compare.compare`.
        jobs: as there.
        command: as there.

    Returns:
        The folder ``base.out``.

    Raises:
        UserError: bad options or data, or a run folder of other settings.
        CheckFailed: some runs failed; table and report hold the others.
    """
    if not base.out:
        raise UserError("--out: wanted the folder of the sweep")
    alphas = _checked_alphas(base, alphas)
    _check_search(base, search)
    if seeds is None:
        seeds = DATA_SEEDS if base.data else DEMO_SEEDS
    base = prepare_data(base)
    configs = [config for seed in seeds for config in plan(base, alphas, [seed])]
    for config in configs:
        config.check()
    jobs = check_jobs(jobs, base, len(configs))
    command = command or command_line()
    with alone_in(base.out):
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
                kept, notes = (None, []) if found is None else (asdict(found), [found.sentence()])
                write_sweep(base, configs, results, command, kept, notes)
    return Path(base.out)


def _checked_alphas(base: TrainConfig, alphas: Sequence[float] | None) -> list[float]:
    if not METHODS[base.method].accl:
        able = ", ".join(name for name, method in METHODS.items() if method.accl)
        raise UserError(f"--method: wanted one that alpha weighs ({able}), got {base.method}")
    if alphas is None:
        # For a method of ours, its own weight and steps to either side.
        own = METHODS[base.method].alpha
        steps = [float(f"{factor * own:.4g}") for factor in (1 / 3, 1, 3)]
        alphas = paper.ALPHA_STUDY.get(base.method, steps)
    alphas = list(alphas)
    if not alphas or len(set(alphas)) != len(alphas) or not all(alpha > 0 for alpha in alphas):
        raise UserError(f"--alphas: wanted different numbers above 0, got {alphas}")
    return alphas


def _check_search(base: TrainConfig, search: int) -> None:
    if search < 0:
        raise UserError(f"--search: wanted 0 or more trials, got {search}")
    if search and not base.validation:
        raise UserError(
            "--search: wanted --validation above 0 as well, such as 0.2: the search goes by "
            "validation images, never by test images"
        )
    if search:
        need("optuna", "--search", "search")


def plan(base: TrainConfig, alphas: Sequence[float], seeds: Sequence[int]) -> list[TrainConfig]:
    """One config for each alpha and seed, in ``OUT/runs/<method>-alpha<alpha>-seed<k>``."""
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
        metrics = Run(config.out).metrics()
        if metrics is not None:
            results.setdefault(f"{config.alpha:g}", {})[config.seed] = metrics
    return results
