// The ops of the library as C++ functions; their schemas stand in library.cpp.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string_view>
#include <tuple>

namespace accl {

using OptionalTensor = std::optional<at::Tensor>;

at::Tensor accl_loss(const at::Tensor& scores, double target, std::string_view criterion,
                     std::string_view reduction);
at::Tensor accl_loss_backward(const at::Tensor& grad_loss, const at::Tensor& scores, double target,
                              std::string_view criterion, std::string_view reduction);

at::Tensor accl_discriminator_loss(const at::Tensor& fake_scores, const at::Tensor& real_scores,
                                   double fake_target, double real_target,
                                   std::string_view criterion, double scale,
                                   std::string_view reduction);
std::tuple<at::Tensor, at::Tensor> accl_discriminator_loss_backward(
    const at::Tensor& grad_loss, const at::Tensor& fake_scores, const at::Tensor& real_scores,
    double fake_target, double real_target, std::string_view criterion, double scale,
    std::string_view reduction);

// loss, and the factor of each image's sum in it [B]
std::tuple<at::Tensor, at::Tensor> partial_cross_entropy(const at::Tensor& logits,
                                                         const at::Tensor& labels,
                                                         int64_t ignore_index,
                                                         const OptionalTensor& weight,
                                                         std::string_view reduction);

// penalty, soft size [B, C], and the factor of each squared excess []
std::tuple<at::Tensor, at::Tensor, at::Tensor> size_penalty(const at::Tensor& logits,
                                                            const at::Tensor& bounds,
                                                            std::string_view normalize,
                                                            std::string_view reduction);

// probabilities, partial_ce, size_penalty, soft_size, and both factors
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
segmentation_head(const at::Tensor& logits, const at::Tensor& labels, const OptionalTensor& bounds,
                  int64_t ignore_index, const OptionalTensor& weight, std::string_view normalize);

// Gradient of the logits for all three of the above. A gradient that is absent costs nothing.
at::Tensor segmentation_head_backward(
    const OptionalTensor& grad_probabilities, const OptionalTensor& grad_ce,
    const OptionalTensor& grad_penalty, const OptionalTensor& grad_soft_size,
    const at::Tensor& logits, const OptionalTensor& labels, const OptionalTensor& bounds,
    const OptionalTensor& soft_size, const OptionalTensor& ce_scale,
    const OptionalTensor& penalty_scale, int64_t ignore_index, const OptionalTensor& weight,
    std::string_view normalize, std::string_view ce_reduction, std::string_view size_reduction);

} // namespace accl
