// Derivatives of segmentation_head, partial_cross_entropy and size_penalty. All three call one
// backward op. The soft size, needed there, is an output of the forward op saved as such: so its
// own dependence on the logits stays in the graph.
#include "handles.h"
#include "segmentation_head_double_backward.h"

namespace accl {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

ACCL_OP(partial_cross_entropy, "partial_cross_entropy")
ACCL_OP(size_penalty, "size_penalty")
ACCL_OP(segmentation_head, "segmentation_head")
ACCL_OP(segmentation_head_backward, "_segmentation_head_backward")

struct Options {
  int64_t ignore_index = 255;
  Normalization normalization = Normalization::kArea;
  Reduction ce_reduction = Reduction::kMean;
  Reduction size_reduction = Reduction::kMean;

  void save(AutogradContext* ctx) const {
    ctx->saved_data["ignore_index"] = ignore_index;
    ctx->saved_data["options"] =
        (int64_t(normalization) * 8 + int64_t(ce_reduction)) * 8 + int64_t(size_reduction);
  }
  static Options load(AutogradContext* ctx) {
    const int64_t packed = ctx->saved_data["options"].toInt();
    return {ctx->saved_data["ignore_index"].toInt(), Normalization(packed / 64),
            Reduction(packed / 8 % 8), Reduction(packed % 8)};
  }
};

struct SegmentationHeadBackwardFunction : Function<SegmentationHeadBackwardFunction> {
  static at::Tensor forward(AutogradContext* ctx, const OptionalTensor& grad_probabilities,
                            const OptionalTensor& grad_ce, const OptionalTensor& grad_penalty,
                            const OptionalTensor& grad_soft_size, const at::Tensor& logits,
                            const OptionalTensor& labels, const OptionalTensor& bounds,
                            const OptionalTensor& soft_size, const OptionalTensor& ce_scale,
                            const OptionalTensor& penalty_scale, int64_t ignore_index,
                            const OptionalTensor& weight, std::string_view normalize,
                            std::string_view ce_reduction, std::string_view size_reduction) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({or_undefined(grad_probabilities), or_undefined(grad_ce),
                            or_undefined(grad_penalty), or_undefined(grad_soft_size), logits,
                            or_undefined(labels), or_undefined(bounds), or_undefined(soft_size),
                            or_undefined(ce_scale), or_undefined(penalty_scale),
                            or_undefined(weight)});
    Options{ignore_index, parse_normalization(normalize), parse_label_reduction(ce_reduction),
            parse_reduction(size_reduction)}
        .save(ctx);
    return call_segmentation_head_backward(grad_probabilities, grad_ce, grad_penalty,
                                           grad_soft_size, logits, labels, bounds, soft_size,
                                           ce_scale, penalty_scale, ignore_index, weight, normalize,
                                           ce_reduction, size_reduction);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& u) {
    variable_list result(15);
    if (!u[0].defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    const Options o = Options::load(ctx);
    const SegmentationHeadSecondDerivatives d = segmentation_head_double_backward(
        {s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], o.ignore_index,
         o.ce_reduction, o.size_reduction},
        u[0]);
    result[0] = d.grad_probabilities;
    result[1] = d.grad_ce;
    result[2] = d.grad_penalty;
    result[3] = d.grad_soft_size;
    result[4] = d.logits;
    result[7] = d.soft_size;
    return result;
  }
};

// Calls the backward op with the gradients that came; undefined ones stay absent.
at::Tensor call_backward(const Options& o, const at::Tensor& grad_probabilities,
                         const at::Tensor& grad_ce, const at::Tensor& grad_penalty,
                         const at::Tensor& grad_soft_size, const at::Tensor& logits,
                         const at::Tensor& labels, const at::Tensor& bounds,
                         const at::Tensor& soft_size, const at::Tensor& ce_scale,
                         const at::Tensor& penalty_scale, const at::Tensor& weight) {
  return call_segmentation_head_backward(
      optional(grad_probabilities), optional(grad_ce), optional(grad_penalty),
      optional(grad_soft_size), logits, optional(labels), optional(bounds), optional(soft_size),
      optional(ce_scale), optional(penalty_scale), o.ignore_index, optional(weight),
      name(o.normalization), name(o.ce_reduction), name(o.size_reduction));
}

struct PartialCrossEntropy : Function<PartialCrossEntropy> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits,
                               const at::Tensor& labels, int64_t ignore_index,
                               const OptionalTensor& weight, std::string_view reduction) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    auto [loss, scale] =
        call_partial_cross_entropy(logits, labels, ignore_index, weight, reduction);
    ctx->save_for_backward({logits, labels, or_undefined(weight), scale});
    ctx->mark_non_differentiable({scale});
    Options options;
    options.ignore_index = ignore_index;
    options.ce_reduction = parse_label_reduction(reduction);
    options.save(ctx);
    return {loss, scale};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    variable_list result(5);
    if (!g[0].defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    result[0] =
        call_backward(Options::load(ctx), {}, g[0], {}, {}, s[0], s[1], {}, {}, s[3], {}, s[2]);
    return result;
  }
};

struct SizePenalty : Function<SizePenalty> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits,
                               const at::Tensor& bounds, std::string_view normalize,
                               std::string_view reduction) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    auto [penalty, soft_size, scale] = call_size_penalty(logits, bounds, normalize, reduction);
    ctx->save_for_backward({logits, bounds, soft_size, scale});
    ctx->mark_non_differentiable({scale});
    Options options;
    options.normalization = parse_normalization(normalize);
    options.size_reduction = parse_reduction(reduction);
    options.save(ctx);
    return {penalty, soft_size, scale};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    variable_list result(4);
    if (!g[0].defined() && !g[1].defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    result[0] =
        call_backward(Options::load(ctx), {}, {}, g[0], g[1], s[0], {}, s[1], s[2], {}, s[3], {});
    return result;
  }
};

struct SegmentationHead : Function<SegmentationHead> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits,
                               const at::Tensor& labels, const OptionalTensor& bounds,
                               int64_t ignore_index, const OptionalTensor& weight,
                               std::string_view normalize) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    auto [probabilities, ce, penalty, soft_size, ce_scale, penalty_scale] =
        call_segmentation_head(logits, labels, bounds, ignore_index, weight, normalize);
    ctx->save_for_backward({logits, labels, or_undefined(bounds), or_undefined(weight), soft_size,
                            ce_scale, penalty_scale});
    ctx->mark_non_differentiable({ce_scale, penalty_scale});
    Options options;
    options.ignore_index = ignore_index;
    options.normalization = parse_normalization(normalize);
    options.save(ctx);
    return {probabilities, ce, penalty, soft_size, ce_scale, penalty_scale};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    variable_list result(6);
    if (!g[0].defined() && !g[1].defined() && !g[2].defined() && !g[3].defined()) return result;
    const variable_list s = ctx->get_saved_variables();
    result[0] = call_backward(Options::load(ctx), g[0], g[1], g[2], g[3], s[0], s[1], s[2], s[4],
                              s[5], s[6], s[3]);
    return result;
  }
};

std::tuple<at::Tensor, at::Tensor> partial_cross_entropy_autograd(const at::Tensor& logits,
                                                                  const at::Tensor& labels,
                                                                  int64_t ignore_index,
                                                                  const OptionalTensor& weight,
                                                                  std::string_view reduction) {
  if (needs_graph(logits)) {
    const variable_list out =
        PartialCrossEntropy::apply(logits, labels, ignore_index, weight, reduction);
    return {out[0], out[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_partial_cross_entropy(logits, labels, ignore_index, weight, reduction);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> size_penalty_autograd(const at::Tensor& logits,
                                                                     const at::Tensor& bounds,
                                                                     std::string_view normalize,
                                                                     std::string_view reduction) {
  if (needs_graph(logits)) {
    const variable_list out = SizePenalty::apply(logits, bounds, normalize, reduction);
    return {out[0], out[1], out[2]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_size_penalty(logits, bounds, normalize, reduction);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
segmentation_head_autograd(const at::Tensor& logits, const at::Tensor& labels,
                           const OptionalTensor& bounds, int64_t ignore_index,
                           const OptionalTensor& weight, std::string_view normalize) {
  if (needs_graph(logits)) {
    const variable_list out =
        SegmentationHead::apply(logits, labels, bounds, ignore_index, weight, normalize);
    return {out[0], out[1], out[2], out[3], out[4], out[5]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_segmentation_head(logits, labels, bounds, ignore_index, weight, normalize);
}

at::Tensor segmentation_head_backward_autograd(
    const OptionalTensor& grad_probabilities, const OptionalTensor& grad_ce,
    const OptionalTensor& grad_penalty, const OptionalTensor& grad_soft_size,
    const at::Tensor& logits, const OptionalTensor& labels, const OptionalTensor& bounds,
    const OptionalTensor& soft_size, const OptionalTensor& ce_scale,
    const OptionalTensor& penalty_scale, int64_t ignore_index, const OptionalTensor& weight,
    std::string_view normalize, std::string_view ce_reduction, std::string_view size_reduction) {
  const auto wanted = [](const OptionalTensor& t) { return t.has_value() && needs_graph(*t); };
  if (needs_graph(logits) || wanted(grad_probabilities) || wanted(grad_ce) ||
      wanted(grad_penalty) || wanted(grad_soft_size) || wanted(soft_size)) {
    return SegmentationHeadBackwardFunction::apply(grad_probabilities, grad_ce, grad_penalty,
                                                   grad_soft_size, logits, labels, bounds,
                                                   soft_size, ce_scale, penalty_scale, ignore_index,
                                                   weight, normalize, ce_reduction, size_reduction);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_segmentation_head_backward(
      grad_probabilities, grad_ce, grad_penalty, grad_soft_size, logits, labels, bounds, soft_size,
      ce_scale, penalty_scale, ignore_index, weight, normalize, ce_reduction, size_reduction);
}

} // namespace

TORCH_LIBRARY_IMPL(accl_ext, Autograd, m) {
  m.impl("partial_cross_entropy", partial_cross_entropy_autograd);
  m.impl("size_penalty", size_penalty_autograd);
  m.impl("segmentation_head", segmentation_head_autograd);
  m.impl("_segmentation_head_backward", segmentation_head_backward_autograd);
}

} // namespace accl
