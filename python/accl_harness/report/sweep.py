"""`accl sweep`: the paper's study of alpha (Figs. 11 to 13), and a search beyond the grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def sweep(
    base,
    *,
    alphas: Sequence[float] | None = None,
    search: int = 0,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    command: str | None = None,
) -> Path:
    """Trains `base.method` once for each alpha and seed; writes curve, panel, sweep.json and .md.

    Args:
        base: `config.TrainConfig` with `data`, `method` (one with ACCL) and `out`.
        alphas: weights of ACCL; None takes the paper's candidates for the method.
        search: this many further trials by Optuna (storage in `OUT/optuna.db`), 0 for none.
        seeds, jobs, command: as in `report.compare.compare`.

    Finished runs in `OUT/runs` are kept, interrupted ones go on. Returns the folder `base.out`.
    """
