// segmentation_head and its parts: check, allocate, launch.
#include "checks.h"
#include "launch.h"
#include "ops.h"

#include <c10/util/SmallVector.h>

namespace accl {
namespace {

at::TensorOptions accumulation(const at::Tensor& logits) {
  return logits.options().dtype(accumulation_type(logits.scalar_type()));
}

// [B, *S], the shape of a map with one value for each pixel.
std::vector<c10::SymInt> map_shape(const at::Tensor& logits) {
  std::vector<c10::SymInt> shape(logits.sym_sizes().begin(), logits.sym_sizes().end());
  shape.erase(shape.begin() + 1);
  return shape;
}

at::Tensor allocate_cross_entropy(const at::Tensor& logits, Reduction reduction) {
  if (reduction != Reduction::kNone) return at::empty({}, accumulation(logits));
  return at::empty_symint(map_shape(logits), accumulation(logits));
}

at::Tensor allocate_per_image(const at::Tensor& logits) {
  return at::empty_symint({logits.sym_size(0)}, accumulation(logits));
}

at::Tensor allocate_per_pair(const at::Tensor& logits) {
  return at::empty_symint({logits.sym_size(0), logits.sym_size(1)}, accumulation(logits));
}

at::Tensor allocate_overlap_sums(const at::Tensor& logits) {
  const c10::SymInt classes = logits.sym_size(1);
  const c10::SymInt labels = classes == 1 ? c10::SymInt(2) : classes;
  return at::empty_symint({logits.sym_size(0), labels, 3}, accumulation(logits));
}

std::vector<c10::SymInt> overlap_shape(const at::Tensor& logits, const OverlapOptions& o) {
  if (o.reduction != Reduction::kNone) return {};
  const c10::SymInt classes = logits.sym_size(1);
  const c10::SymInt counted = (classes == 1 ? c10::SymInt(2) : classes) - o.first_class;
  if (o.batch) return {counted};
  return {logits.sym_size(0), counted};
}

// The CUDA kernels do not compute the overlap yet.
void check_overlap_device(const at::Tensor& logits) {
  TORCH_CHECK_NOT_IMPLEMENTED(!logits.is_cuda(),
                              "the overlap has no CUDA kernel; accl_ext.partial_overlap_loss and "
                              "accl_ext.segmentation_head compute it there in plain PyTorch");
}

// Keeps the contiguous tensors that the raw pointers of the arguments point into.
class Inputs {
 public:
  explicit Inputs(const at::Tensor& x)
      : logits(x.contiguous()), type_(accumulation_type(x.scalar_type())) {}

  void fill(SegmentationHeadArguments& a) const {
    a.images = logits.size(0);
    a.classes = logits.size(1);
    a.pixels = a.images == 0 ? 0 : logits.numel() / (a.images * a.classes);
    a.dtype = kernel_dtype(logits.scalar_type());
    a.logits = logits.const_data_ptr();
  }

  void fill_labels(SegmentationHeadArguments& a, const at::Tensor& given, int64_t ignore_index,
                   const OptionalTensor& weight, const OptionalTensor& pixel_weight,
                   double label_smoothing, Reduction reduction) {
    labels = given.contiguous();
    a.labels = labels.const_data_ptr();
    a.label_type = kernel_label_type(labels.scalar_type());
    a.ignore_index = ignore_index;
    a.weight = wide(weight);
    a.pixel_weight = wide(pixel_weight);
    a.label_smoothing = label_smoothing;
    a.ce_reduction = reduction;
  }

  void fill_overlap(SegmentationHeadArguments& a, const OverlapOptions& options,
                    const OptionalTensor& weight) {
    a.overlap = options;
    a.overlap_weight = wide(weight);
  }

  void fill_bounds(SegmentationHeadArguments& a, const at::Tensor& given,
                   Normalization normalization, Reduction reduction) {
    const at::Tensor bounds = given.to(type_).expand({logits.size(0), logits.size(1), 2});
    kept_.push_back(bounds);
    a.bounds = bounds.const_data_ptr();
    for (int i = 0; i < 3; ++i) a.bounds_stride[i] = bounds.stride(i);
    a.normalization = normalization;
    a.size_reduction = reduction;
  }

  // A pointer to the contiguous elements, or null where no tensor is given.
  const void* dense(const OptionalTensor& given) {
    if (!given.has_value()) return nullptr;
    kept_.push_back(given->contiguous());
    return kept_.back().const_data_ptr();
  }
  // The same in the accumulation type.
  const void* wide(const OptionalTensor& given) {
    return given.has_value() ? dense(given->to(type_)) : nullptr;
  }

  const at::Tensor logits;
  at::Tensor labels;

 private:
  const at::ScalarType type_;
  c10::SmallVector<at::Tensor, 8> kept_;
};

void run_forward(SegmentationHeadForward& a, const Inputs& in) {
  if (in.logits.is_cuda()) {
    const at::Tensor scratch =
        cuda_scratch(cuda::segmentation_head_scratch(a), accumulation_type(in.logits.scalar_type()),
                     in.logits, &a.scratch, &a.ticket);
    return launch_cuda(cuda::segmentation_head_forward, a, in.logits);
  }
  const int64_t invalid = cpu::segmentation_head_forward(a);
  if (invalid < 0) return;
  throw_invalid_label(in.labels.flatten()[invalid].item().toLong(), a.classes, a.ignore_index);
}

} // namespace

std::tuple<at::Tensor, at::Tensor> partial_cross_entropy(
    const at::Tensor& logits, const at::Tensor& labels, int64_t ignore_index,
    const OptionalTensor& weight, const OptionalTensor& pixel_weight, double label_smoothing,
    std::string_view reduction_name) {
  check_logits(logits);
  check_labels(logits, labels);
  check_weight(logits, weight);
  check_pixel_weight(logits, pixel_weight);
  check_label_smoothing(label_smoothing);
  const Reduction reduction = parse_label_reduction(reduction_name);
  at::Tensor loss = allocate_cross_entropy(logits, reduction);
  at::Tensor scale = allocate_per_image(logits);
  if (logits.is_meta()) return {loss, scale};
  if (logits.numel() == 0) return {loss.zero_(), scale.zero_()};
  Inputs in(logits);
  SegmentationHeadForward a;
  in.fill(a);
  in.fill_labels(a, labels, ignore_index, weight, pixel_weight, label_smoothing, reduction);
  a.ce = loss.data_ptr();
  a.ce_scale = scale.data_ptr();
  run_forward(a, in);
  return {loss, scale};
}

std::tuple<at::Tensor, at::Tensor> partial_overlap_loss(const at::Tensor& logits,
                                                        const at::Tensor& labels,
                                                        int64_t ignore_index,
                                                        const OptionalTensor& weight,
                                                        const OptionalTensor& pixel_weight,
                                                        at::ArrayRef<double> overlap) {
  check_logits(logits);
  check_labels(logits, labels);
  check_weight(logits, weight);
  check_pixel_weight(logits, pixel_weight);
  const OverlapOptions options = parse_overlap(overlap, logits);
  check_overlap_device(logits);
  at::Tensor loss = at::empty_symint(overlap_shape(logits, options), accumulation(logits));
  at::Tensor sums = allocate_overlap_sums(logits);
  if (logits.is_meta()) return {loss, sums};
  if (logits.numel() == 0) return {loss.zero_(), sums.zero_()};
  Inputs in(logits);
  SegmentationHeadForward a;
  in.fill(a);
  in.fill_labels(a, labels, ignore_index, std::nullopt, pixel_weight, 0, Reduction::kMean);
  in.fill_overlap(a, options, weight);
  a.overlap_loss = loss.data_ptr();
  a.overlap_sums = sums.data_ptr();
  run_forward(a, in);
  return {loss, sums};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> size_penalty(const at::Tensor& logits,
                                                            const at::Tensor& bounds,
                                                            std::string_view normalize,
                                                            std::string_view reduction_name) {
  check_logits(logits);
  const Normalization normalization = parse_normalization(normalize);
  const Reduction reduction = parse_reduction(reduction_name);
  check_bounds(logits, bounds);
  at::Tensor soft_size = allocate_per_pair(logits);
  at::Tensor penalty = reduction == Reduction::kNone ? allocate_per_pair(logits)
                                                     : at::empty({}, accumulation(logits));
  at::Tensor scale = at::empty({}, accumulation(logits));
  if (logits.is_meta()) return {penalty, soft_size, scale};
  if (logits.numel() == 0) return {penalty.zero_(), soft_size.zero_(), scale.zero_()};
  Inputs in(logits);
  SegmentationHeadForward a;
  in.fill(a);
  in.fill_bounds(a, bounds, normalization, reduction);
  a.penalty = penalty.data_ptr();
  a.penalty_scale = scale.data_ptr();
  a.soft_size = soft_size.data_ptr();
  run_forward(a, in);
  return {penalty, soft_size, scale};
}

SegmentationHeadOutputs segmentation_head(const at::Tensor& logits, const at::Tensor& labels,
                                          const OptionalTensor& bounds, int64_t ignore_index,
                                          const OptionalTensor& weight,
                                          const OptionalTensor& pixel_weight,
                                          double label_smoothing, std::string_view normalize,
                                          at::ArrayRef<double> overlap,
                                          const OptionalTensor& overlap_weight) {
  check_logits(logits);
  check_labels(logits, labels);
  check_weight(logits, weight);
  check_pixel_weight(logits, pixel_weight);
  check_label_smoothing(label_smoothing);
  const Normalization normalization = parse_normalization(normalize);
  if (bounds.has_value()) check_bounds(logits, *bounds);
  const bool with_overlap = !overlap.empty();
  OverlapOptions options;
  at::Tensor overlap_loss = at::empty({0}, accumulation(logits));
  at::Tensor overlap_sums = at::empty({0}, accumulation(logits));
  if (with_overlap) {
    options = parse_overlap(overlap, logits);
    check_weight(logits, overlap_weight, "weight of overlap");
    check_overlap_device(logits);
    overlap_loss = at::empty_symint(overlap_shape(logits, options), accumulation(logits));
    overlap_sums = allocate_overlap_sums(logits);
  }
  at::Tensor probabilities = at::empty_symint(logits.sym_sizes(), logits.options());
  at::Tensor ce = at::empty({}, accumulation(logits));
  at::Tensor penalty = at::empty({}, accumulation(logits));
  at::Tensor soft_size = allocate_per_pair(logits);
  at::Tensor ce_scale = allocate_per_image(logits);
  at::Tensor penalty_scale = at::empty({}, accumulation(logits));
  if (!logits.is_meta()) {
    if (logits.numel() == 0) {
      ce.zero_(), penalty.zero_(), soft_size.zero_(), ce_scale.zero_(), penalty_scale.zero_();
      overlap_loss.zero_(), overlap_sums.zero_();
    } else {
      Inputs in(logits);
      SegmentationHeadForward a;
      in.fill(a);
      in.fill_labels(a, labels, ignore_index, weight, pixel_weight, label_smoothing,
                     Reduction::kMean);
      if (bounds.has_value()) in.fill_bounds(a, *bounds, normalization, Reduction::kMean);
      a.probabilities = probabilities.data_ptr();
      a.ce = ce.data_ptr();
      a.ce_scale = ce_scale.data_ptr();
      a.penalty = penalty.data_ptr();
      a.penalty_scale = penalty_scale.data_ptr();
      a.soft_size = soft_size.data_ptr();
      if (with_overlap) {
        in.fill_overlap(a, options, overlap_weight);
        a.overlap_loss = overlap_loss.data_ptr();
        a.overlap_sums = overlap_sums.data_ptr();
      }
      run_forward(a, in);
    }
  }
  return {probabilities, ce,           penalty,     soft_size, ce_scale,
          penalty_scale, overlap_loss, overlap_sums};
}

namespace {

const at::Tensor& required(const OptionalTensor& tensor, const char* gradient, const char* needs) {
  TORCH_CHECK_VALUE(tensor.has_value(), gradient, " needs ", needs);
  return *tensor;
}

void check_overlap_backward(const SegmentationHeadBackwardInputs& in, at::ScalarType type) {
  if (!in.grad_overlap.has_value() && !in.grad_overlap_sums.has_value()) return;
  const at::Tensor& logits = in.logits;
  const char* const gradient = in.grad_overlap.has_value() ? "grad_overlap" : "grad_overlap_sums";
  const char* const needs = "labels and overlap_sums";
  check_labels(logits, required(in.labels, gradient, needs));
  check_pixel_weight(logits, in.pixel_weight);
  check_weight(logits, in.overlap_weight, "overlap_weight");
  check_overlap_device(logits);
  const OverlapOptions options = parse_overlap(in.overlap, logits);
  const c10::SymInt classes = logits.sym_size(1);
  const std::vector<c10::SymInt> sums = {logits.sym_size(0),
                                         classes == 1 ? c10::SymInt(2) : classes, 3};
  check_gradient(required(in.overlap_sums, gradient, needs), "overlap_sums", sums, type, logits);
  if (in.grad_overlap.has_value()) {
    check_gradient(*in.grad_overlap, "grad_overlap", overlap_shape(logits, options), type, logits);
  }
  if (in.grad_overlap_sums.has_value()) {
    check_gradient(*in.grad_overlap_sums, "grad_overlap_sums", sums, type, logits);
  }
}

void check_backward(const SegmentationHeadBackwardInputs& in) {
  const at::Tensor& logits = in.logits;
  check_logits(logits);
  const at::ScalarType type = accumulation_type(logits.scalar_type());
  const std::vector<c10::SymInt> scalar, pairs = {logits.sym_size(0), logits.sym_size(1)};
  if (in.grad_probabilities.has_value()) {
    check_gradient(*in.grad_probabilities, "grad_probabilities", logits.sym_sizes(),
                   logits.scalar_type(), logits);
  }
  if (in.grad_ce.has_value()) {
    const char* const needs = "labels and ce_scale";
    check_labels(logits, required(in.labels, "grad_ce", needs));
    check_weight(logits, in.weight);
    check_pixel_weight(logits, in.pixel_weight);
    check_label_smoothing(in.label_smoothing);
    const bool mapped = label_reduction_of(in.ce_reduction) == Reduction::kNone;
    check_gradient(*in.grad_ce, "grad_ce", mapped ? map_shape(logits) : scalar, type, logits);
    check_gradient(required(in.ce_scale, "grad_ce", needs), "ce_scale", {logits.sym_size(0)}, type,
                   logits);
  }
  if (in.grad_penalty.has_value()) {
    const char* const needs = "soft_size and penalty_scale";
    if (in.bounds.has_value()) check_bounds(logits, *in.bounds);
    normalization_of(in.normalize);
    const bool mapped = reduction_of(in.size_reduction) == Reduction::kNone;
    check_gradient(*in.grad_penalty, "grad_penalty", mapped ? pairs : scalar, type, logits);
    check_gradient(required(in.soft_size, "grad_penalty", needs), "soft_size", pairs, type, logits);
    check_gradient(required(in.penalty_scale, "grad_penalty", needs), "penalty_scale", {}, type,
                   logits);
  }
  if (in.grad_soft_size.has_value()) {
    check_gradient(*in.grad_soft_size, "grad_soft_size", pairs, type, logits);
  }
  check_overlap_backward(in, type);
}

} // namespace

at::Tensor segmentation_head_backward(const SegmentationHeadBackwardInputs& in) {
  check_backward(in);
  at::Tensor grad_logits = at::empty_symint(in.logits.sym_sizes(), in.logits.options());
  if (in.logits.is_meta() || in.logits.numel() == 0) return grad_logits;
  Inputs inputs(in.logits);
  SegmentationHeadBackward a;
  inputs.fill(a);
  a.grad_logits = grad_logits.data_ptr();
  a.grad_probabilities = inputs.dense(in.grad_probabilities);
  a.grad_soft_size = inputs.dense(in.grad_soft_size);
  const bool with_overlap = in.grad_overlap.has_value() || in.grad_overlap_sums.has_value();
  if (in.grad_ce.has_value() || with_overlap) {
    inputs.fill_labels(a, *in.labels, in.ignore_index, in.weight, in.pixel_weight,
                       in.label_smoothing, Reduction(in.ce_reduction));
    a.grad_ce = inputs.dense(in.grad_ce);
    a.ce_scale = inputs.dense(in.ce_scale);
  }
  if (with_overlap) {
    inputs.fill_overlap(a, parse_overlap(in.overlap, in.logits), in.overlap_weight);
    a.overlap_sums = inputs.dense(in.overlap_sums);
    a.grad_overlap = inputs.dense(in.grad_overlap);
    a.grad_overlap_sums = inputs.dense(in.grad_overlap_sums);
  }
  // Without bounds the penalty is constant and has no gradient.
  if (in.grad_penalty.has_value() && in.bounds.has_value()) {
    inputs.fill_bounds(a, *in.bounds, Normalization(in.normalize), Reduction(in.size_reduction));
    a.grad_penalty = inputs.dense(in.grad_penalty);
    a.soft_size = inputs.dense(in.soft_size);
    a.penalty_scale = inputs.dense(in.penalty_scale);
  }
  if (inputs.logits.is_cuda()) {
    launch_cuda(cuda::segmentation_head_backward, a, inputs.logits);
  } else {
    cpu::segmentation_head_backward(a);
  }
  return grad_logits;
}

} // namespace accl
