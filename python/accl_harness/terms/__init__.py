"""The terms of the training's objective: a file each, and this list.

A term is a file with its options, defaults, measurements and value, and a place in ``TERMS``; flag,
YAML, help, ``config.yaml``, column, curve and checkpoint follow from it.
"""

from .accl import ACCL
from .consistency import Consistency
from .data_term import DataTerm
from .entropy import Entropy
from .gated_crf import GatedCRF
from .size_balance import SizeBalance
from .size_penalty import SizePenalty
from .size_prior import SizePrior
from .term import Batch, Pass, Term

__all__ = ["TERMS", "Batch", "Pass", "Term", "terms_of"]

TERMS: tuple[type[Term], ...] = (
    DataTerm,
    SizePenalty,
    ACCL,
    SizePrior,
    SizeBalance,
    GatedCRF,
    Entropy,
    Consistency,
)
"""In the order in which a step computes and adds them."""


def terms_of(config) -> list[type[Term]]:
    """The terms that are on with these options."""
    return [term for term in TERMS if term.weight_of(config) != 0]
