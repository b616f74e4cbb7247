// Second derivatives of the pixel losses.
#pragma once

#include "../ops/checks.h"
#include "../ops/ops.h"

namespace accl {

// Gradients with respect to the differentiable inputs of the backward op.
struct SegmentationHeadSecondDerivatives {
  at::Tensor grad_probabilities, grad_ce, grad_penalty, grad_soft_size, logits, soft_size;
  at::Tensor grad_overlap, grad_overlap_sums, overlap_sums;
};

// grad_logits: gradient of the result of _segmentation_head_backward, [B, C, *S].
SegmentationHeadSecondDerivatives segmentation_head_double_backward(
    const SegmentationHeadBackwardInputs& in, const at::Tensor& grad_logits);

} // namespace accl
