"""Cases for the CUDA sources on CPU threads: inputs, and what the float64 reference makes of them.

``python cases.py scores|pixels|pairs OUT [--few]`` writes a file that cases.h reads: for each case
its number of fields, then name length, byte length, name and bytes of each field.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fields import DTYPES, LABEL_REDUCTIONS, LABELS, NORMALIZATIONS, SIZE_REDUCTIONS, SIZES, write
from pair_cases import pair_case, pair_cases
from pixel_cases import pixel_cases
from pixels import Pixels
from score_cases import TERMS, score_case, score_cases

# What makes further cases of the same form: import cases.
__all__ = [
    "DTYPES",
    "LABELS",
    "LABEL_REDUCTIONS",
    "NORMALIZATIONS",
    "SIZES",
    "SIZE_REDUCTIONS",
    "TERMS",
    "Pixels",
    "pair_case",
    "score_case",
    "write",
]

MAKERS = {"scores": score_cases, "pixels": pixel_cases, "pairs": pair_cases}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=list(MAKERS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--few", action="store_true", help="a selection, for slow sanitizers")
    options = parser.parse_args()
    write(options.out, MAKERS[options.kind](options.few))
