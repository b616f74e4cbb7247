// Checks of arguments, shared by the real and the meta kernels: sizes may be symbolic.
// Messages name the argument, what was wanted and what came.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>
#include <string_view>

#include "../kernels.h"

namespace accl {

enum class Criterion : int64_t { kLsgan, kVanilla, kHinge };

Criterion parse_criterion(std::string_view criterion);
Reduction parse_reduction(std::string_view reduction);       // mean, sum, none
Reduction parse_label_reduction(std::string_view reduction); // mean, sum, none, image_mean
Normalization parse_normalization(std::string_view normalize);
// The backward ops get their options as the integers of these enums.
Criterion criterion_of(int64_t criterion);
Reduction reduction_of(int64_t reduction);
Reduction label_reduction_of(int64_t reduction);
Normalization normalization_of(int64_t normalize);
// The list of numbers that stands for OverlapOptions in the ops (kernels.h).
OverlapOptions parse_overlap(at::ArrayRef<double> numbers, const at::Tensor& logits);

DType kernel_dtype(at::ScalarType dtype);
LabelType kernel_label_type(at::ScalarType dtype);
at::ScalarType accumulation_type(at::ScalarType dtype);

std::string python_name(at::ScalarType dtype); // "float32", not "Float"
void check_device(const at::Tensor& tensor, const char* argument, const at::Tensor& other,
                  const char* other_argument);
// A map has one value for each pixel: [B, *S] or [B, 1, *S].
void check_map(const at::Tensor& logits, const at::Tensor& map, const char* argument,
               const char* logits_argument = "logits");
void check_scores(const at::Tensor& scores, const char* argument);
void check_score_pair(const at::Tensor& fake, const at::Tensor& real, Reduction reduction);
void check_logits(const at::Tensor& logits, const char* argument = "logits");
void check_labels(const at::Tensor& logits, const at::Tensor& labels);
void check_weight(const at::Tensor& logits, const std::optional<at::Tensor>& weight,
                  const char* argument = "weight");
void check_pixel_weight(const at::Tensor& logits, const std::optional<at::Tensor>& pixel_weight);
void check_label_smoothing(double label_smoothing);
void check_bounds(const at::Tensor& logits, const at::Tensor& bounds);
// A gradient has the shape and dtype of the output that it belongs to.
void check_gradient(const at::Tensor& gradient, const char* argument, c10::SymIntArrayRef shape,
                    at::ScalarType dtype, const at::Tensor& like);

[[noreturn]] void throw_invalid_label(int64_t value, int64_t classes, int64_t ignore_index);

} // namespace accl
