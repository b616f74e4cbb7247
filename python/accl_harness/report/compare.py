"""`accl compare`: methods x seeds, the table of the paper's form, figures and report.html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def compare(
    base,
    *,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    paper_row: str | None = None,
    command: str | None = None,
) -> Path:
    """Trains every method with every seed and writes table, figures and report under `base.out`.

    Args:
        base: `config.TrainConfig`; `method` and `seed` are set for each run, `out` is the folder
            of the comparison. `data=None` makes a phantom set in `OUT/phantom`, preset `demo`.
        methods: names from `methods.METHODS`; None takes all seven.
        seeds: None takes 0 for the demo, else 0, 1, 2.
        jobs: trainings at a time, each with its share of the cores; None: one for each core on a
            CPU, one on a GPU.
        paper_row: `acdc_lv`, `cup`, `disc` or `pupil` puts that row of the paper's Table 1 beside.
        command: the command line, for the record; None takes `sys.argv`.

    Finished runs in `OUT/runs` are kept, interrupted ones go on. Returns the folder `base.out`.
    """
