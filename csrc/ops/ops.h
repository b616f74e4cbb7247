// The ops of the library as C++ functions; their schemas stand in library.cpp.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

namespace accl {

using OptionalTensor = std::optional<at::Tensor>;

at::Tensor accl_loss(const at::Tensor& scores, double target, std::string_view criterion,
                     std::string_view reduction);
at::Tensor accl_loss_backward(const at::Tensor& grad_loss, const at::Tensor& scores, double target,
                              int64_t criterion, int64_t reduction);

at::Tensor accl_discriminator_loss(const at::Tensor& fake_scores, const at::Tensor& real_scores,
                                   double fake_target, double real_target,
                                   std::string_view criterion, double scale,
                                   std::string_view reduction);
// A gradient that output_mask leaves out is not computed; the result is an undefined tensor.
std::tuple<at::Tensor, at::Tensor> accl_discriminator_loss_backward(
    const at::Tensor& grad_loss, const at::Tensor& fake_scores, const at::Tensor& real_scores,
    double fake_target, double real_target, int64_t criterion, double scale, int64_t reduction,
    std::array<bool, 2> output_mask);

// Returns loss, and the factor of each image's sum in it [B].
std::tuple<at::Tensor, at::Tensor> partial_cross_entropy(
    const at::Tensor& logits, const at::Tensor& labels, int64_t ignore_index,
    const OptionalTensor& weight, const OptionalTensor& pixel_weight, double label_smoothing,
    std::string_view reduction);

// Returns loss, and the sums of each pair of image and label [B, K, 3] (kernels.h).
std::tuple<at::Tensor, at::Tensor> partial_overlap_loss(
    const at::Tensor& logits, const at::Tensor& labels, int64_t ignore_index,
    const OptionalTensor& weight, const OptionalTensor& pixel_weight, at::ArrayRef<double> overlap);

// Returns penalty, soft size [B, C], and the factor of each squared excess [].
std::tuple<at::Tensor, at::Tensor, at::Tensor> size_penalty(const at::Tensor& logits,
                                                            const at::Tensor& bounds,
                                                            std::string_view normalize,
                                                            std::string_view reduction);

// probabilities, partial_ce, size_penalty, soft_size, the two factors above, and the overlap's loss
// and sums; those two are empty if `overlap` is.
using SegmentationHeadOutputs = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor,
                                           at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
SegmentationHeadOutputs segmentation_head(const at::Tensor& logits, const at::Tensor& labels,
                                          const OptionalTensor& bounds, int64_t ignore_index,
                                          const OptionalTensor& weight,
                                          const OptionalTensor& pixel_weight,
                                          double label_smoothing, std::string_view normalize,
                                          at::ArrayRef<double> overlap,
                                          const OptionalTensor& overlap_weight);

// A list of numbers that keeps them: an ArrayRef only points to them.
struct Numbers : std::vector<double> {
  Numbers() = default;
  Numbers(at::ArrayRef<double> numbers) : std::vector<double>(numbers.begin(), numbers.end()) {}
};

// The arguments of _segmentation_head_backward by name, in the order of its schema. The options are
// the integers of the enums in kernels.h.
struct SegmentationHeadBackwardInputs {
  OptionalTensor grad_probabilities, grad_ce, grad_penalty, grad_soft_size;
  at::Tensor logits;
  OptionalTensor labels, bounds, soft_size, ce_scale, penalty_scale;
  int64_t ignore_index = 255;
  OptionalTensor weight, pixel_weight;
  double label_smoothing = 0;
  int64_t normalize = 0, ce_reduction = 0, size_reduction = 0;
  OptionalTensor grad_overlap, grad_overlap_sums, overlap_sums;
  Numbers overlap;
  OptionalTensor overlap_weight;
};

// Gradient of the logits for all four ops above. Work is done only for gradients that are given.
at::Tensor segmentation_head_backward(const SegmentationHeadBackwardInputs& in);

using SegmentationHeadBackwardOp = at::Tensor(
    const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
    const at::Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
    const OptionalTensor&, const OptionalTensor&, int64_t, const OptionalTensor&,
    const OptionalTensor&, double, int64_t, int64_t, int64_t, const OptionalTensor&,
    const OptionalTensor&, const OptionalTensor&, at::ArrayRef<double>, const OptionalTensor&);

// The dispatcher passes each argument by itself. This makes the struct of them and calls the
// function that takes it.
template <class Op>
struct ByName;
template <class... Arguments>
struct ByName<at::Tensor(Arguments...)> {
  template <at::Tensor (*function)(const SegmentationHeadBackwardInputs&)>
  static at::Tensor call(Arguments... arguments) {
    return function(SegmentationHeadBackwardInputs{arguments...});
  }
};

// Returns the loss, and its gradient with respect to the probabilities in the accumulation type.
// The gradient is empty if it was not asked for, and for reduction none. kernels: three numbers
// each, weight, sigma_space and sigma_image. spacing: empty means 1 along every axis.
std::tuple<at::Tensor, at::Tensor> gated_crf_loss(
    const at::Tensor& probabilities, const at::Tensor& image, int64_t radius,
    at::ArrayRef<double> kernels, at::ArrayRef<double> spacing, const OptionalTensor& source_mask,
    const OptionalTensor& destination_mask, std::string_view reduction, bool with_gradient);

// sums_i = sum_j k_ij values_j over the sources j, for the destinations i. All derivatives of the
// loss are made of it. It is linear; exchanging the two masks gives its adjoint.
at::Tensor gated_crf_gather(const at::Tensor& values, const at::Tensor& image, int64_t radius,
                            at::ArrayRef<double> kernels, at::ArrayRef<double> spacing,
                            const OptionalTensor& source_mask,
                            const OptionalTensor& destination_mask);

} // namespace accl
