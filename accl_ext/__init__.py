"""Fused losses for weakly supervised medical image segmentation with few labelled pixels.

The adversarial constrained-CNN loss (ACCL) of Zhang et al., masked partial cross-entropy and
overlap (Dice, Tversky, Jaccard), the soft-size penalty (SCCL) and the gated CRF loss, with first
and second derivatives, on CPU and CUDA. The same functions in pure PyTorch are in
:mod:`accl_ext.reference`, which needs no compiled library.
"""

from . import _import_torch, reference  # noqa: F401
from ._library import build_info
from ._version import __version__
from .functional import (
    SegmentationHeadOutput,
    SegmentationHeadOverlapOutput,
    accl_discriminator_loss,
    accl_loss,
    gated_crf_loss,
    partial_cross_entropy,
    partial_overlap_loss,
    segmentation_head,
    size_penalty,
    validate_labels,
)
from .modules import (
    ACCLDiscriminatorLoss,
    ACCLLoss,
    GatedCRFLoss,
    PartialCrossEntropyLoss,
    PartialOverlapLoss,
    SegmentationHead,
    SizePenalty,
)

__all__ = [
    "ACCLDiscriminatorLoss",
    "ACCLLoss",
    "GatedCRFLoss",
    "PartialCrossEntropyLoss",
    "PartialOverlapLoss",
    "SegmentationHead",
    "SegmentationHeadOutput",
    "SegmentationHeadOverlapOutput",
    "SizePenalty",
    "__version__",
    "accl_discriminator_loss",
    "accl_loss",
    "build_info",
    "gated_crf_loss",
    "partial_cross_entropy",
    "partial_overlap_loss",
    "reference",
    "segmentation_head",
    "size_penalty",
    "validate_labels",
]
