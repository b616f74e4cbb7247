"""The paper's Table 1 and its alpha study, to stand beside ours; names of all methods."""

from __future__ import annotations

from ..errors import UserError

_ROWS = {
    "weak_ce": "Weak CE",
    "partial_ce": "Partial CE",
    "sccl": "SCCL",
    "partial_accl": "Partial ACCL",
    "unpaired_accl": "Unpaired ACCL",
    "paired_accl": "Paired ACCL",
    "fs_ce": "FS CE",
}
METHOD_LABELS = {
    **_ROWS,
    "sccl_crf": "SCCL + CRF †",
    "accl_crf": "ACCL + CRF †",
    "walker": "Random walker †",
}
ROW_SENTENCES = {
    "weak_ce": "every pixel without a label counts as background.",
    "partial_ce": "the labelled pixels alone.",
    "sccl": "the labelled pixels, and bounds of the size.",
    "partial_accl": "the labelled pixels, and a discriminator that takes each image's own weak "
    "mask for real.",
    "unpaired_accl": "the labelled pixels, and a discriminator that takes masks of other images "
    "for real.",
    "paired_accl": "the labelled pixels, and a discriminator that takes each image's full mask for "
    "real.",
    "fs_ce": "the full mask of every training image: what weak labels are measured against.",
    "sccl_crf": "not in the paper; SCCL, and a gated CRF: neighbours of like grey value get like "
    "labels.",
    "accl_crf": "not in the paper; the labelled pixels, the gated CRF, the mean size of the "
    "reference masks, and a discriminator that takes masks of other images for real, softened and "
    "in noise, and sees masks alone.",
    "walker": "not in the paper; masks grown from the labelled pixels by a random walker, with the "
    "mean size of the reference masks.",
}
"""What each row of the table is trained on."""

# DSC x100 by data set and method.
TABLE_1 = {
    "disc": dict(zip(_ROWS, (45.2, 23.0, 76.7, 78.5, 82.3, 83.2, 86.6), strict=True)),
    "cup": dict(zip(_ROWS, (35.1, 10.6, 68.0, 73.0, 81.1, 80.9, 84.0), strict=True)),
    "acdc_lv": dict(zip(_ROWS, (7.5, 4.8, 57.5, 59.9, 63.4, 66.2, 81.2), strict=True)),
    "pupil": dict(zip(_ROWS, (9.2, 1.3, 53.8, 72.7, 74.8, 75.9, 92.7), strict=True)),
}

ROW_TITLES = {
    "disc": "optic disc (ring), REFUGE",
    "cup": "optic cup, REFUGE",
    "acdc_lv": "LV endocardium, ACDC",
    "pupil": "pupil, ultrasound",
}

# Annotation ratio (fraction), name of the size bounds, alpha by method.
SETTINGS = {
    "disc": (
        0.0192,
        "paper_disc",
        {"partial_accl": 2.5e-3, "unpaired_accl": 2e-2, "paired_accl": 2e-2},
    ),
    "cup": (
        0.0052,
        "paper_cup",
        {"partial_accl": 1.5e-3, "unpaired_accl": 5e-2, "paired_accl": 5e-3},
    ),
    "acdc_lv": (
        0.0012,
        "paper_lv",
        {"partial_accl": 6e-4, "unpaired_accl": 5e-2, "paired_accl": 5e-2},
    ),
    "pupil": (
        0.0005,
        "paper_pupil",
        {"partial_accl": 1e-3, "unpaired_accl": 5e-3, "paired_accl": 5e-2},
    ),
}

# alpha -> DSC x100 on ACDC: the study of Figs. 11 to 13.
ALPHA_STUDY = {
    "partial_accl": {3e-4: 54.2, 6e-4: 59.9, 1e-3: 54.8, 2e-3: 43.4},
    "unpaired_accl": {5e-3: 60.9, 1e-2: 61.2, 2e-2: 61.3, 5e-2: 63.4},
    "paired_accl": {5e-3: 63.0, 1e-2: 59.3, 2e-2: 61.8, 5e-2: 66.2},
}


def paper_row(name: str | None) -> dict[str, float]:
    """DSC x100 by method of one row of Table 1; {} for None.

    Raises:
        UserError: no row of that name.
    """
    if name is None:
        return {}
    if name not in TABLE_1:
        raise UserError(f"--paper-row: wanted one of {', '.join(TABLE_1)}, got {name!r}")
    return TABLE_1[name]
