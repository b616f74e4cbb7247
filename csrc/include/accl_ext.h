// The operators for C++ programs: typed functions with the defaults of the Python functions of the
// same name, which document them. They go through torch's dispatcher, so autograd, autocast and
// every device work as in Python. Link accl_ext::accl_ext (find_package(accl_ext)).
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <limits>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

namespace accl_ext {

using OptionalTensor = std::optional<at::Tensor>;

namespace detail {

// The schema is compared with the signature when an operator is first called.
template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

} // namespace detail

inline at::Tensor accl_loss(const at::Tensor& scores, double target = 1.0,
                            std::string_view criterion = "lsgan",
                            std::string_view reduction = "mean") {
  using Signature = at::Tensor(const at::Tensor&, double, std::string_view, std::string_view);
  static const auto op = detail::find<Signature>("accl_ext::accl_loss");
  return op.call(scores, target, criterion, reduction);
}

inline at::Tensor accl_discriminator_loss(const at::Tensor& fake_scores,
                                          const at::Tensor& real_scores, double fake_target = 0.0,
                                          double real_target = 1.0,
                                          std::string_view criterion = "lsgan", double scale = 1.0,
                                          std::string_view reduction = "mean") {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, double, double,
                               std::string_view, double, std::string_view);
  static const auto op = detail::find<Signature>("accl_ext::accl_discriminator_loss");
  return op.call(fake_scores, real_scores, fake_target, real_target, criterion, scale, reduction);
}

struct LabelOptions {
  int64_t ignore_index = 255;
  OptionalTensor weight = std::nullopt;
  OptionalTensor pixel_weight = std::nullopt;
  double label_smoothing = 0.0;
};

inline at::Tensor partial_cross_entropy(const at::Tensor& logits, const at::Tensor& labels,
                                        const LabelOptions& options = {},
                                        std::string_view reduction = "mean") {
  using Signature = std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, int64_t, const OptionalTensor&, const OptionalTensor&,
      double, std::string_view);
  static const auto op = detail::find<Signature>("accl_ext::partial_cross_entropy");
  return std::get<0>(op.call(logits, labels, options.ignore_index, options.weight,
                             options.pixel_weight, options.label_smoothing, reduction));
}

// The options of partial_overlap_loss in Python.
struct OverlapOptions {
  double alpha = 0.5, beta = 0.5;
  double smooth_numerator = 0.0, smooth_denominator = 0.0;
  bool keep_absent = false; // absent="keep"
  std::optional<bool> include_background = std::nullopt;
  bool squared = false;
  bool batch = false;
  OptionalTensor weight = std::nullopt; // of each class

  // reduction: 0 mean, 1 sum, 2 none.
  std::vector<double> numbers(int reduction = 0) const {
    const double background = include_background ? double(*include_background) : -1.0;
    return {alpha,
            beta,
            smooth_numerator,
            smooth_denominator,
            double(keep_absent),
            background,
            double(squared),
            double(batch),
            double(reduction)};
  }
};

// Of the label options, ignore_index and pixel_weight count.
inline at::Tensor partial_overlap_loss(const at::Tensor& logits, const at::Tensor& labels,
                                       const OverlapOptions& overlap = {},
                                       const LabelOptions& options = {}) {
  using Signature = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&,
                                                       int64_t, const OptionalTensor&,
                                                       const OptionalTensor&, at::ArrayRef<double>);
  static const auto op = detail::find<Signature>("accl_ext::partial_overlap_loss");
  return std::get<0>(op.call(logits, labels, options.ignore_index, overlap.weight,
                             options.pixel_weight, overlap.numbers()));
}

// bounds: a tensor that broadcasts to [B, C, 2].
inline at::Tensor size_penalty(const at::Tensor& logits, const at::Tensor& bounds,
                               std::string_view normalize = "area",
                               std::string_view reduction = "mean") {
  using Signature = std::tuple<at::Tensor, at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, std::string_view, std::string_view);
  static const auto op = detail::find<Signature>("accl_ext::size_penalty");
  return std::get<0>(op.call(logits, bounds, normalize, reduction));
}

struct SegmentationHeadOutput {
  at::Tensor probabilities, partial_ce, size_penalty, soft_size;
  at::Tensor overlap; // undefined if it was not asked for
};

inline SegmentationHeadOutput segmentation_head(const at::Tensor& logits, const at::Tensor& labels,
                                                const OptionalTensor& bounds = std::nullopt,
                                                const LabelOptions& options = {},
                                                std::string_view normalize = "area",
                                                const OverlapOptions* overlap = nullptr) {
  using T = at::Tensor;
  using Signature = std::tuple<T, T, T, T, T, T, T, T>(
      const T&, const T&, const OptionalTensor&, int64_t, const OptionalTensor&,
      const OptionalTensor&, double, std::string_view, at::ArrayRef<double>, const OptionalTensor&);
  static const auto op = detail::find<Signature>("accl_ext::segmentation_head");
  const auto out = op.call(logits, labels, bounds, options.ignore_index, options.weight,
                           options.pixel_weight, options.label_smoothing, normalize,
                           overlap ? overlap->numbers() : std::vector<double>(),
                           overlap ? overlap->weight : std::nullopt);
  return {std::get<0>(out), std::get<1>(out), std::get<2>(out), std::get<3>(out),
          overlap ? std::get<6>(out) : T()};
}

struct GatedCRFOptions {
  int64_t radius = 5;
  // Three numbers for each kernel: weight, sigma_space, sigma_image.
  std::vector<double> kernels = {1.0, 6.0, 0.1};
  std::vector<double> spacing = {}; // empty: 1 along every axis
  OptionalTensor source_mask = std::nullopt;
  OptionalTensor destination_mask = std::nullopt;
};

inline at::Tensor gated_crf_loss(const at::Tensor& probabilities, const at::Tensor& image,
                                 const GatedCRFOptions& options = {},
                                 std::string_view reduction = "mean") {
  using Signature = std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, int64_t, at::ArrayRef<double>, at::ArrayRef<double>,
      const OptionalTensor&, const OptionalTensor&, std::string_view, bool);
  static const auto op = detail::find<Signature>("accl_ext::gated_crf_loss");
  const bool with_gradient = at::GradMode::is_enabled() && probabilities.requires_grad();
  return std::get<0>(op.call(probabilities, image, options.radius, options.kernels, options.spacing,
                             options.source_mask, options.destination_mask, reduction,
                             with_gradient));
}

} // namespace accl_ext
