// The overlap loss of each pair of image and class as a function of its sums (math/overlap.h), in
// differentiable ATen: what the second derivative of the pixel losses needs of it.
#pragma once

#include "../ops/checks.h"
#include "../ops/ops.h"

namespace accl {

class OverlapPairs {
 public:
  explicit OverlapPairs(const SegmentationHeadBackwardInputs& in);

  // Gradient of hit and predicted, [B, K, 2], from those of the loss and of the sums.
  at::Tensor gradient() const;

  // Gradients of the two inputs above, and of the sums [B, K, 3], given the gradient u of
  // gradient(). An undefined tensor where an input is absent.
  struct Second {
    at::Tensor grad_overlap, grad_overlap_sums, overlap_sums;
  };
  Second second(const at::Tensor& u) const;

 private:
  // g times the weight of each pair in the loss, [groups, K, 1]; a group is an image or the batch.
  at::Tensor weighted(const at::Tensor& g) const;
  at::Tensor to_images(const at::Tensor& of_groups) const;

  const SegmentationHeadBackwardInputs& in_;
  const OverlapOptions options_;
  // [groups, K, 1]: weight of the pair, 0 where it does not count; T; 1 / D.
  at::Tensor weight_, ratio_, inverse_;
  // [2]: derivatives of D by hit and by predicted; and [1, 0].
  at::Tensor slopes_, hit_;
};

} // namespace accl
