"""A search for alpha beyond the grid, by Optuna on the validation images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import TrainConfig
from ..errors import Damaged, UserError
from ..evaluation.metrics import mean
from ..run import Run
from ..storage import folder_name
from .pool import train_all

REACH = 10.0
Plan = Callable[[TrainConfig, Sequence[float], Sequence[int]], list[TrainConfig]]


@dataclass(frozen=True)
class Search:
    """What a search found; ``best`` may be one of the grid."""

    alphas: list[float]
    best: float
    validation_dsc: float

    def sentence(self) -> str:
        """What was found, for people."""
        return (
            f"Best alpha by the validation images: {self.best:g} "
            f"(validation DSC x100 {100 * self.validation_dsc:.1f}), "
            f"{len(self.alphas)} searched beyond the grid."
        )


def search_alpha(
    base: TrainConfig,
    alphas: Sequence[float],
    seeds: Sequence[int],
    trials: int,
    jobs: int,
    plan: Plan,
) -> Search:
    """Train ``trials`` further alphas, each proposed from the scores of those before.

    The score is the validation DSC of the last epoch, averaged over the seeds; the grid's runs
    count as the first trials. The range reaches ten times beyond the grid on both sides. Trials
    are kept in ``OUT/optuna.db``: one that was interrupted goes on first.

    Args:
        base: with ``validation`` above 0 and ``out``.
        alphas: the grid, already trained.
        seeds: each trial is trained once with every one of them.
        trials: further alphas in total, those of an earlier call included.
        jobs: trainings at a time.
        plan: configs of alphas and seeds.

    Returns:
        The searched alphas and the best of them and the grid.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = optuna.trial.TrialState
    space = optuna.distributions.FloatDistribution(
        min(alphas) / REACH, max(alphas) * REACH, log=True
    )
    study = _open_study(base)
    _add_grid(study, alphas, space, lambda alpha: _score(plan(base, [alpha], seeds)))

    def searched(state) -> list:
        return [t for t in study.get_trials(states=[state]) if "grid" not in t.user_attrs]

    while True:
        running, done = searched(states.RUNNING), searched(states.COMPLETE)
        if running:
            number, alpha = running[0].number, running[0].params["alpha"]
        elif len(done) < trials:
            # Seeded by what is known, so that a resumed search proposes what this one would have.
            study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))
            trial = study.ask()
            value = trial.suggest_float("alpha", space.low, space.high, log=True)
            number, alpha = trial.number, value
        else:
            best = study.best_trial
            return Search(
                [_rounded(trial.params["alpha"]) for trial in done],
                _rounded(best.params["alpha"]),
                best.value,
            )
        configs = plan(base, [_rounded(alpha)], seeds)
        train_all(configs, jobs=min(jobs, len(configs)))
        study.tell(number, _score(configs))


def _add_grid(study, alphas: Sequence[float], space, score: Callable[[float], float]) -> None:
    """The grid's alphas as trials that are done, each once."""
    import optuna

    known = {trial.params["alpha"] for trial in study.trials}
    for alpha in alphas:
        if alpha not in known:
            trial = optuna.trial.create_trial(
                params={"alpha": alpha},
                distributions={"alpha": space},
                value=score(alpha),
                user_attrs={"grid": True},
            )
            study.add_trial(trial)


def _open_study(base: TrainConfig):
    """The trials of this and of earlier calls, kept in ``OUT/optuna.db``."""
    import optuna

    database = Path(base.out).resolve() / "optuna.db"
    try:
        return optuna.create_study(
            storage=f"sqlite:///{database}",
            study_name=f"{base.method} on {folder_name(base.data)}",
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # of SQLAlchemy, which is no dependency of ours
        advice = "delete it and give the same command again; runs that are there are kept"
        raise Damaged(database, f"cannot be read ({error})", advice) from error


def _rounded(alpha: float) -> float:
    """To three digits: what the run's folder is called is what it was trained with."""
    return float(f"{alpha:.3g}")


def _score(configs: Sequence[TrainConfig]) -> float:
    last = [rows[-1]["dsc"] for rows in (Run(config.out).curves() for config in configs) if rows]
    score = mean(last) if len(last) == len(configs) else None
    if score is None or not math.isfinite(score):
        raise UserError(f"{configs[0].out}: has no validation DSC to search by")
    return score
