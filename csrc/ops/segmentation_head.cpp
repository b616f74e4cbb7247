// segmentation_head, partial_cross_entropy and size_penalty: check, allocate, launch.
#include "checks.h"
#include "launch.h"
#include "ops.h"

namespace accl {
namespace {

at::TensorOptions accumulation(const at::Tensor& logits) {
  return logits.options().dtype(accumulation_type(logits.scalar_type()));
}

// [B, *S]
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

// Contiguous tensors that the raw pointers of the arguments point into.
struct Inputs {
  at::Tensor logits;
  at::Tensor labels;
  at::Tensor weight;
  at::Tensor bounds;

  explicit Inputs(const at::Tensor& x) : logits(x.contiguous()) {}

  void fill(SegmentationHeadArguments& a) const {
    a.images = logits.size(0);
    a.classes = logits.size(1);
    a.pixels = a.images == 0 ? 0 : logits.numel() / (a.images * a.classes);
    a.dtype = kernel_dtype(logits.scalar_type());
    a.logits = logits.const_data_ptr();
  }

  void fill_labels(SegmentationHeadArguments& a, const at::Tensor& given, int64_t ignore_index,
                   const OptionalTensor& given_weight, Reduction reduction) {
    labels = given.contiguous();
    a.labels = labels.const_data_ptr();
    a.label_type = kernel_label_type(labels.scalar_type());
    a.ignore_index = ignore_index;
    a.ce_reduction = reduction;
    if (!given_weight.has_value()) return;
    weight = given_weight->to(accumulation_type(logits.scalar_type())).contiguous();
    a.weight = weight.const_data_ptr();
  }

  void fill_bounds(SegmentationHeadArguments& a, const at::Tensor& given,
                   Normalization normalization, Reduction reduction) {
    bounds = given.to(accumulation_type(logits.scalar_type()))
                 .expand({logits.size(0), logits.size(1), 2});
    a.bounds = bounds.const_data_ptr();
    for (int i = 0; i < 3; ++i) a.bounds_stride[i] = bounds.stride(i);
    a.normalization = normalization;
    a.size_reduction = reduction;
  }
};

void run_forward(SegmentationHeadForward& a, const Inputs& in) {
  if (in.logits.is_cuda()) {
    const at::Tensor scratch =
        cuda_scratch(cuda::segmentation_head_partials(a),
                     accumulation_type(in.logits.scalar_type()), in.logits, &a.partials, &a.ticket);
    return launch_cuda(cuda::segmentation_head_forward, a, in.logits);
  }
  const int64_t invalid = cpu::segmentation_head_forward(a);
  if (invalid < 0) return;
  throw_invalid_label(in.labels.flatten()[invalid].item().toLong(), a.classes, a.ignore_index);
}

} // namespace

std::tuple<at::Tensor, at::Tensor> partial_cross_entropy(const at::Tensor& logits,
                                                         const at::Tensor& labels,
                                                         int64_t ignore_index,
                                                         const OptionalTensor& weight,
                                                         std::string_view reduction_name) {
  check_logits(logits);
  check_labels(logits, labels);
  check_weight(logits, weight);
  const Reduction reduction = parse_label_reduction(reduction_name);
  at::Tensor loss = allocate_cross_entropy(logits, reduction);
  at::Tensor scale = allocate_per_image(logits);
  if (logits.is_meta()) return {loss, scale};
  if (logits.numel() == 0) return {loss.zero_(), scale.zero_()};
  Inputs in(logits);
  SegmentationHeadForward a;
  in.fill(a);
  in.fill_labels(a, labels, ignore_index, weight, reduction);
  a.ce = loss.data_ptr();
  a.ce_scale = scale.data_ptr();
  run_forward(a, in);
  return {loss, scale};
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

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
segmentation_head(const at::Tensor& logits, const at::Tensor& labels, const OptionalTensor& bounds,
                  int64_t ignore_index, const OptionalTensor& weight, std::string_view normalize) {
  check_logits(logits);
  check_labels(logits, labels);
  check_weight(logits, weight);
  const Normalization normalization = parse_normalization(normalize);
  if (bounds.has_value()) check_bounds(logits, *bounds);
  at::Tensor probabilities = at::empty_symint(logits.sym_sizes(), logits.options());
  at::Tensor ce = at::empty({}, accumulation(logits));
  at::Tensor penalty = at::empty({}, accumulation(logits));
  at::Tensor soft_size = allocate_per_pair(logits);
  at::Tensor ce_scale = allocate_per_image(logits);
  at::Tensor penalty_scale = at::empty({}, accumulation(logits));
  if (!logits.is_meta()) {
    if (logits.numel() == 0) {
      ce.zero_(), penalty.zero_(), soft_size.zero_(), ce_scale.zero_(), penalty_scale.zero_();
    } else {
      Inputs in(logits);
      SegmentationHeadForward a;
      in.fill(a);
      in.fill_labels(a, labels, ignore_index, weight, Reduction::kMean);
      if (bounds.has_value()) in.fill_bounds(a, *bounds, normalization, Reduction::kMean);
      a.probabilities = probabilities.data_ptr();
      a.ce = ce.data_ptr();
      a.ce_scale = ce_scale.data_ptr();
      a.penalty = penalty.data_ptr();
      a.penalty_scale = penalty_scale.data_ptr();
      a.soft_size = soft_size.data_ptr();
      run_forward(a, in);
    }
  }
  return {probabilities, ce, penalty, soft_size, ce_scale, penalty_scale};
}

at::Tensor segmentation_head_backward(
    const OptionalTensor& grad_probabilities, const OptionalTensor& grad_ce,
    const OptionalTensor& grad_penalty, const OptionalTensor& grad_soft_size,
    const at::Tensor& logits, const OptionalTensor& labels, const OptionalTensor& bounds,
    const OptionalTensor& soft_size, const OptionalTensor& ce_scale,
    const OptionalTensor& penalty_scale, int64_t ignore_index, const OptionalTensor& weight,
    std::string_view normalize, std::string_view ce_reduction_name,
    std::string_view size_reduction_name) {
  check_logits(logits);
  const Normalization normalization = parse_normalization(normalize);
  const Reduction ce_reduction = parse_label_reduction(ce_reduction_name);
  const Reduction size_reduction = parse_reduction(size_reduction_name);
  const at::ScalarType type = accumulation_type(logits.scalar_type());
  const std::vector<c10::SymInt> pair_shape = {logits.sym_size(0), logits.sym_size(1)};
  if (grad_probabilities.has_value()) {
    check_gradient(*grad_probabilities, "grad_probabilities", logits.sym_sizes(),
                   logits.scalar_type(), logits);
  }
  if (grad_ce.has_value()) {
    TORCH_CHECK_VALUE(labels.has_value() && ce_scale.has_value(),
                      "grad_ce needs labels and ce_scale");
    check_labels(logits, *labels);
    check_weight(logits, weight);
    const std::vector<c10::SymInt> shape =
        ce_reduction == Reduction::kNone ? map_shape(logits) : std::vector<c10::SymInt>();
    check_gradient(*grad_ce, "grad_ce", shape, type, logits);
    check_gradient(*ce_scale, "ce_scale", {logits.sym_size(0)}, type, logits);
  }
  if (grad_penalty.has_value()) {
    TORCH_CHECK_VALUE(soft_size.has_value() && penalty_scale.has_value(),
                      "grad_penalty needs soft_size and penalty_scale");
    if (bounds.has_value()) check_bounds(logits, *bounds);
    check_gradient(*grad_penalty, "grad_penalty",
                   size_reduction == Reduction::kNone ? c10::SymIntArrayRef(pair_shape)
                                                      : c10::SymIntArrayRef(),
                   type, logits);
    check_gradient(*soft_size, "soft_size", pair_shape, type, logits);
    check_gradient(*penalty_scale, "penalty_scale", {}, type, logits);
  }
  if (grad_soft_size.has_value()) {
    check_gradient(*grad_soft_size, "grad_soft_size", pair_shape, type, logits);
  }
  at::Tensor grad_logits = at::empty_symint(logits.sym_sizes(), logits.options());
  if (logits.is_meta() || logits.numel() == 0) return grad_logits;

  Inputs in(logits);
  SegmentationHeadBackward a;
  in.fill(a);
  a.grad_logits = grad_logits.data_ptr();
  std::vector<at::Tensor> kept;
  const auto pointer = [&kept](const OptionalTensor& tensor) {
    kept.push_back(tensor->contiguous());
    return kept.back().const_data_ptr();
  };
  if (grad_probabilities.has_value()) a.grad_probabilities = pointer(grad_probabilities);
  if (grad_soft_size.has_value()) a.grad_soft_size = pointer(grad_soft_size);
  if (grad_ce.has_value()) {
    in.fill_labels(a, *labels, ignore_index, weight, ce_reduction);
    a.grad_ce = pointer(grad_ce);
    a.ce_scale = pointer(ce_scale);
  }
  if (grad_penalty.has_value() && bounds.has_value()) { // without bounds the penalty is constant
    in.fill_bounds(a, *bounds, normalization, size_reduction);
    a.grad_penalty = pointer(grad_penalty);
    a.soft_size = pointer(soft_size);
    a.penalty_scale = pointer(penalty_scale);
  }
  if (in.logits.is_cuda()) {
    launch_cuda(cuda::segmentation_head_backward, a, in.logits);
  } else {
    cpu::segmentation_head_backward(a);
  }
  return grad_logits;
}

} // namespace accl
