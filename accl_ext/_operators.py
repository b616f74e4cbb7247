"""The operators of the compiled library, or functions that say why it is missing."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from . import _library

_OPS = (
    "accl_loss",
    "accl_discriminator_loss",
    "partial_cross_entropy",
    "partial_overlap_loss",
    "size_penalty",
    "segmentation_head",
    "gated_crf_loss",
)


def _missing(reason: str):
    def raise_reason(*_):
        raise ImportError(
            f"accl_ext: the fused ops are not available: {reason} "
            "The same functions in pure PyTorch are in accl_ext.reference."
        )

    return raise_reason


def _load_ops() -> SimpleNamespace:
    reason = _library.load()
    if reason is not None:
        return SimpleNamespace(**dict.fromkeys(_OPS, _missing(reason)))
    return SimpleNamespace(**{name: getattr(torch.ops.accl_ext, name).default for name in _OPS})


operators = _load_ops()
