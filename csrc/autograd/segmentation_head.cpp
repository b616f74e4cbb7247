// Derivatives of segmentation_head and its parts. All call one backward op. It needs the soft size
// and the sums of the overlap, which are saved as outputs of the forward op, so that their
// dependence on the logits stays in the graph. The scales have no derivative. They do not leave
// forward() as outputs, because compiled autograd cannot mark an output as not differentiable.
#include "handles.h"
#include "segmentation_head_double_backward.h"

namespace accl {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Inputs = SegmentationHeadBackwardInputs;

ACCL_OP(partial_cross_entropy, decltype(partial_cross_entropy), "partial_cross_entropy")
ACCL_OP(partial_overlap_loss, decltype(partial_overlap_loss), "partial_overlap_loss")
ACCL_OP(size_penalty, decltype(size_penalty), "size_penalty")
ACCL_OP(segmentation_head, decltype(segmentation_head), "segmentation_head")
ACCL_OP(backward, SegmentationHeadBackwardOp, "_segmentation_head_backward")

at::Tensor dispatch_backward(const Inputs& in) {
  return call_backward(in.grad_probabilities, in.grad_ce, in.grad_penalty, in.grad_soft_size,
                       in.logits, in.labels, in.bounds, in.soft_size, in.ce_scale, in.penalty_scale,
                       in.ignore_index, in.weight, in.pixel_weight, in.label_smoothing,
                       in.normalize, in.ce_reduction, in.size_reduction, in.grad_overlap,
                       in.grad_overlap_sums, in.overlap_sums, in.overlap, in.overlap_weight);
}

// Keeps in ctx what backward needs, and what is known in the forward pass already.
void save(AutogradContext* ctx, const Inputs& in) {
  ctx->set_materialize_grads(false);
  ctx->save_for_backward(
      {or_undefined(in.grad_probabilities), or_undefined(in.grad_ce), or_undefined(in.grad_penalty),
       or_undefined(in.grad_soft_size), in.logits, or_undefined(in.labels), or_undefined(in.bounds),
       or_undefined(in.soft_size), or_undefined(in.ce_scale), or_undefined(in.penalty_scale),
       or_undefined(in.weight), or_undefined(in.pixel_weight), or_undefined(in.grad_overlap),
       or_undefined(in.grad_overlap_sums), or_undefined(in.overlap_sums),
       or_undefined(in.overlap_weight)});
  ctx->saved_data["ignore_index"] = in.ignore_index;
  ctx->saved_data["label_smoothing"] = in.label_smoothing;
  ctx->saved_data["normalize"] = in.normalize;
  ctx->saved_data["ce_reduction"] = in.ce_reduction;
  ctx->saved_data["size_reduction"] = in.size_reduction;
  ctx->saved_data["overlap"] = std::vector<double>(in.overlap);
}

Inputs load(AutogradContext* ctx) {
  const variable_list s = ctx->get_saved_variables();
  Inputs in;
  in.grad_probabilities = optional(s[0]);
  in.grad_ce = optional(s[1]);
  in.grad_penalty = optional(s[2]);
  in.grad_soft_size = optional(s[3]);
  in.logits = s[4];
  in.labels = optional(s[5]);
  in.bounds = optional(s[6]);
  in.soft_size = optional(s[7]);
  in.ce_scale = optional(s[8]);
  in.penalty_scale = optional(s[9]);
  in.weight = optional(s[10]);
  in.pixel_weight = optional(s[11]);
  in.grad_overlap = optional(s[12]);
  in.grad_overlap_sums = optional(s[13]);
  in.overlap_sums = optional(s[14]);
  in.overlap_weight = optional(s[15]);
  in.ignore_index = ctx->saved_data["ignore_index"].toInt();
  in.label_smoothing = ctx->saved_data["label_smoothing"].toDouble();
  in.normalize = ctx->saved_data["normalize"].toInt();
  in.ce_reduction = ctx->saved_data["ce_reduction"].toInt();
  in.size_reduction = ctx->saved_data["size_reduction"].toInt();
  in.overlap = Numbers(ctx->saved_data["overlap"].toDoubleVector());
  return in;
}

// The first arguments repeat the differentiable members of `in`, because apply() finds tensors
// among its arguments but not inside structs.
struct Backward : TraceableFunction<Backward> {
  static at::Tensor forward(AutogradContext* ctx, const OptionalTensor& /*grad_probabilities*/,
                            const OptionalTensor& /*grad_ce*/,
                            const OptionalTensor& /*grad_penalty*/,
                            const OptionalTensor& /*grad_soft_size*/, const at::Tensor& /*logits*/,
                            const OptionalTensor& /*soft_size*/,
                            const OptionalTensor& /*grad_overlap*/,
                            const OptionalTensor& /*grad_overlap_sums*/,
                            const OptionalTensor& /*overlap_sums*/, const Inputs& in) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    save(ctx, in);
    return dispatch_backward(in);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& u) {
    if (!u[0].defined()) return variable_list(10);
    const SegmentationHeadSecondDerivatives d = segmentation_head_double_backward(load(ctx), u[0]);
    return {
        d.grad_probabilities, d.grad_ce,      d.grad_penalty,      d.grad_soft_size, d.logits,
        d.soft_size,          d.grad_overlap, d.grad_overlap_sums, d.overlap_sums,   at::Tensor()};
  }
};

at::Tensor backward_autograd(const Inputs& in) {
  const auto wanted = [](const OptionalTensor& t) { return t.has_value() && needs_graph(*t); };
  if (needs_graph(in.logits) || wanted(in.grad_probabilities) || wanted(in.grad_ce) ||
      wanted(in.grad_penalty) || wanted(in.grad_soft_size) || wanted(in.soft_size) ||
      wanted(in.grad_overlap) || wanted(in.grad_overlap_sums) || wanted(in.overlap_sums)) {
    return Backward::apply(in.grad_probabilities, in.grad_ce, in.grad_penalty, in.grad_soft_size,
                           in.logits, in.soft_size, in.grad_overlap, in.grad_overlap_sums,
                           in.overlap_sums, in);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return dispatch_backward(in);
}

// Gradients for `arguments` inputs. Only the first one, the logits, has a gradient.
variable_list gradient_of_logits(const Inputs& in, size_t arguments) {
  variable_list result(arguments);
  if (in.grad_probabilities || in.grad_ce || in.grad_penalty || in.grad_soft_size ||
      in.grad_overlap || in.grad_overlap_sums) {
    result[0] = dispatch_backward(in);
  }
  return result;
}

struct PartialCrossEntropy : TraceableFunction<PartialCrossEntropy> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& logits,
                            const at::Tensor& labels, int64_t ignore_index,
                            const OptionalTensor& weight, const OptionalTensor& pixel_weight,
                            double label_smoothing, std::string_view reduction, at::Tensor* scale) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    at::Tensor loss;
    std::tie(loss, *scale) = call_partial_cross_entropy(logits, labels, ignore_index, weight,
                                                        pixel_weight, label_smoothing, reduction);
    Inputs in;
    in.logits = logits;
    in.labels = labels;
    in.ce_scale = *scale;
    in.ignore_index = ignore_index;
    in.weight = weight;
    in.pixel_weight = pixel_weight;
    in.label_smoothing = label_smoothing;
    in.ce_reduction = int64_t(parse_label_reduction(reduction));
    save(ctx, in);
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    Inputs in = load(ctx);
    in.grad_ce = optional(g[0]);
    return gradient_of_logits(in, 8);
  }
};

struct PartialOverlapLoss : TraceableFunction<PartialOverlapLoss> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits,
                               const at::Tensor& labels, int64_t ignore_index,
                               const OptionalTensor& weight, const OptionalTensor& pixel_weight,
                               at::ArrayRef<double> overlap) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto [loss, sums] =
        call_partial_overlap_loss(logits, labels, ignore_index, weight, pixel_weight, overlap);
    Inputs in;
    in.logits = logits;
    in.labels = labels;
    in.ignore_index = ignore_index;
    in.pixel_weight = pixel_weight;
    in.overlap_sums = sums;
    in.overlap = overlap;
    in.overlap_weight = weight;
    save(ctx, in);
    return {loss, sums};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    Inputs in = load(ctx);
    in.grad_overlap = optional(g[0]);
    in.grad_overlap_sums = optional(g[1]);
    return gradient_of_logits(in, 6);
  }
};

struct SizePenalty : TraceableFunction<SizePenalty> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits,
                               const at::Tensor& bounds, std::string_view normalize,
                               std::string_view reduction, at::Tensor* scale) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    at::Tensor penalty, soft_size;
    std::tie(penalty, soft_size, *scale) = call_size_penalty(logits, bounds, normalize, reduction);
    Inputs in;
    in.logits = logits;
    in.bounds = bounds;
    in.soft_size = soft_size;
    in.penalty_scale = *scale;
    in.normalize = int64_t(parse_normalization(normalize));
    in.size_reduction = int64_t(parse_reduction(reduction));
    save(ctx, in);
    return {penalty, soft_size};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    Inputs in = load(ctx);
    in.grad_penalty = optional(g[0]);
    in.grad_soft_size = optional(g[1]);
    return gradient_of_logits(in, 5);
  }
};

struct SegmentationHead : TraceableFunction<SegmentationHead> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& logits,
                               const at::Tensor& labels, const OptionalTensor& bounds,
                               int64_t ignore_index, const OptionalTensor& weight,
                               const OptionalTensor& pixel_weight, double label_smoothing,
                               std::string_view normalize, at::ArrayRef<double> overlap,
                               const OptionalTensor& overlap_weight,
                               SegmentationHeadOutputs* outputs) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    *outputs = call_segmentation_head(logits, labels, bounds, ignore_index, weight, pixel_weight,
                                      label_smoothing, normalize, overlap, overlap_weight);
    const auto& [probabilities, ce, penalty, soft_size, ce_scale, penalty_scale, overlap_loss,
                 overlap_sums] = *outputs;
    Inputs in;
    in.logits = logits;
    in.labels = labels;
    in.bounds = bounds;
    in.soft_size = soft_size;
    in.ce_scale = ce_scale;
    in.penalty_scale = penalty_scale;
    in.ignore_index = ignore_index;
    in.weight = weight;
    in.pixel_weight = pixel_weight;
    in.label_smoothing = label_smoothing;
    in.normalize = int64_t(parse_normalization(normalize));
    if (!overlap.empty()) {
      in.overlap_sums = overlap_sums;
      in.overlap = overlap;
      in.overlap_weight = overlap_weight;
    }
    save(ctx, in);
    if (overlap.empty()) return {probabilities, ce, penalty, soft_size};
    return {probabilities, ce, penalty, soft_size, overlap_loss, overlap_sums};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    Inputs in = load(ctx);
    in.grad_probabilities = optional(g[0]);
    in.grad_ce = optional(g[1]);
    in.grad_penalty = optional(g[2]);
    in.grad_soft_size = optional(g[3]);
    if (g.size() > 4) {
      in.grad_overlap = optional(g[4]);
      in.grad_overlap_sums = optional(g[5]);
    }
    return gradient_of_logits(in, 11);
  }
};

std::tuple<at::Tensor, at::Tensor> partial_cross_entropy_autograd(
    const at::Tensor& logits, const at::Tensor& labels, int64_t ignore_index,
    const OptionalTensor& weight, const OptionalTensor& pixel_weight, double label_smoothing,
    std::string_view reduction) {
  if (needs_graph(logits)) {
    at::Tensor scale;
    at::Tensor loss = PartialCrossEntropy::apply(logits, labels, ignore_index, weight, pixel_weight,
                                                 label_smoothing, reduction, &scale);
    return {loss, scale};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_partial_cross_entropy(logits, labels, ignore_index, weight, pixel_weight,
                                    label_smoothing, reduction);
}

std::tuple<at::Tensor, at::Tensor> partial_overlap_loss_autograd(const at::Tensor& logits,
                                                                 const at::Tensor& labels,
                                                                 int64_t ignore_index,
                                                                 const OptionalTensor& weight,
                                                                 const OptionalTensor& pixel_weight,
                                                                 at::ArrayRef<double> overlap) {
  if (needs_graph(logits)) {
    const variable_list out =
        PartialOverlapLoss::apply(logits, labels, ignore_index, weight, pixel_weight, overlap);
    return {out[0], out[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_partial_overlap_loss(logits, labels, ignore_index, weight, pixel_weight, overlap);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> size_penalty_autograd(const at::Tensor& logits,
                                                                     const at::Tensor& bounds,
                                                                     std::string_view normalize,
                                                                     std::string_view reduction) {
  if (needs_graph(logits)) {
    at::Tensor scale;
    const variable_list out = SizePenalty::apply(logits, bounds, normalize, reduction, &scale);
    return {out[0], out[1], scale};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_size_penalty(logits, bounds, normalize, reduction);
}

SegmentationHeadOutputs segmentation_head_autograd(
    const at::Tensor& logits, const at::Tensor& labels, const OptionalTensor& bounds,
    int64_t ignore_index, const OptionalTensor& weight, const OptionalTensor& pixel_weight,
    double label_smoothing, std::string_view normalize, at::ArrayRef<double> overlap,
    const OptionalTensor& overlap_weight) {
  if (needs_graph(logits)) {
    SegmentationHeadOutputs outputs;
    const variable_list out =
        SegmentationHead::apply(logits, labels, bounds, ignore_index, weight, pixel_weight,
                                label_smoothing, normalize, overlap, overlap_weight, &outputs);
    std::get<0>(outputs) = out[0];
    std::get<1>(outputs) = out[1];
    std::get<2>(outputs) = out[2];
    std::get<3>(outputs) = out[3];
    if (out.size() > 4) std::get<6>(outputs) = out[4], std::get<7>(outputs) = out[5];
    return outputs;
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_segmentation_head(logits, labels, bounds, ignore_index, weight, pixel_weight,
                                label_smoothing, normalize, overlap, overlap_weight);
}

} // namespace

TORCH_LIBRARY_IMPL(accl_ext, Autograd, m) {
  m.impl("partial_cross_entropy", partial_cross_entropy_autograd);
  m.impl("partial_overlap_loss", partial_overlap_loss_autograd);
  m.impl("size_penalty", size_penalty_autograd);
  m.impl("segmentation_head", segmentation_head_autograd);
  m.impl("_segmentation_head_backward",
         ByName<SegmentationHeadBackwardOp>::call<backward_autograd>);
}

} // namespace accl
