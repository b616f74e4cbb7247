// Second derivatives of the pixel losses.
#pragma once

#include "../ops/checks.h"

namespace accl {

// Inputs of _segmentation_head_backward, as saved for its own backward. Undefined where absent.
struct SegmentationHeadGradientInputs {
  at::Tensor grad_probabilities, grad_ce, grad_penalty, grad_soft_size;
  at::Tensor logits, labels, bounds, soft_size, ce_scale, penalty_scale, weight;
  int64_t ignore_index;
  Reduction ce_reduction, size_reduction;
};

// Gradients with respect to the differentiable ones.
struct SegmentationHeadSecondDerivatives {
  at::Tensor grad_probabilities, grad_ce, grad_penalty, grad_soft_size, logits, soft_size;
};

// grad_logits: gradient of the result of _segmentation_head_backward, [B, C, *S].
SegmentationHeadSecondDerivatives segmentation_head_double_backward(
    const SegmentationHeadGradientInputs& in, const at::Tensor& grad_logits);

} // namespace accl
