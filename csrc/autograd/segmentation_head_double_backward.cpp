// The backward op computes, with J = dp/dz and A the gradient of p, including those of penalty and
// soft size,
//   grad_z = J A + k ((sum of q) p - q),  k = pixel weight * ce_scale * g_ce, 0 where unlabelled,
// where q_c is the factor of class c: the weight of the label's class, smoothed over the classes.
// This file differentiates it, given the gradient u of grad_z. It was derived by hand: letting
// autograd differentiate the first-order expression would save a dozen lines and take half as long
// again on small input. It is written in differentiable ATen, in the accumulation type, on logits
// flattened to [B, C, N].
#include "segmentation_head_double_backward.h"

#include <limits>

#include "../math/label_smoothing.h"

namespace accl {
namespace {

struct Probabilities {
  at::Tensor z; // [B, C, N]
  at::Tensor p;
  at::Tensor slope; // p (1 - p) formed without cancellation; only for C = 1

  explicit Probabilities(const at::Tensor& logits) : z(logits) {
    if (binary()) {
      p = z.sigmoid();
      slope = p * (-z).sigmoid();
    } else {
      p = z.softmax(1);
    }
  }
  bool binary() const { return z.sym_size(1) == 1; }

  // J x
  at::Tensor pull(const at::Tensor& x) const {
    if (binary()) return slope * x;
    return p * (x - (p * x).sum(1, true));
  }
  // Derivative of u.(J A) with respect to z.
  at::Tensor curve(const at::Tensor& u, const at::Tensor& a) const {
    if (binary()) return u * slope * -(z / 2).tanh() * a; // 1 - 2p = -tanh(z / 2)
    const at::Tensor q = u * a - u * (a * p).sum(1, true) - a * (u * p).sum(1, true);
    return pull(q);
  }
};

// What the labels say about each pixel, [B, 1, N].
struct Labelled {
  at::Tensor code;  // the class, or 0 where there is no label
  at::Tensor scale; // pixel weight * ce_scale; 0 where there is no label, NaN where it is invalid
  at::Tensor own;   // the part of q that only the label's class has
  at::Tensor share; // the part of q that every class has, [1, K, 1]; undefined without smoothing

  Labelled(const SegmentationHeadBackwardInputs& in, const at::Tensor& z) {
    const at::Tensor label =
        in.labels->reshape_symint({z.sym_size(0), 1, z.sym_size(2)}).to(at::kLong);
    const at::Tensor is_labelled = in.labels->scalar_type() == at::kBool
                                       ? at::ones_like(label, at::kBool)
                                       : label != in.ignore_index;
    const int64_t classes = z.sym_size(1).guard_int(__FILE__, __LINE__);
    const int64_t labels = classes == 1 ? 2 : classes;
    const at::Tensor is_class = (label >= 0).logical_and(label < labels);
    code = at::where(is_class.logical_and(is_labelled), label, 0);
    scale = in.pixel_weight ? in.pixel_weight->to(z.scalar_type()).reshape_symint(code.sym_sizes())
                            : at::ones_like(label, z.options());
    scale = at::where(is_class, scale, std::numeric_limits<double>::quiet_NaN());
    if (Reduction(in.ce_reduction) != Reduction::kNone) {
      scale = scale * in.ce_scale->view({-1, 1, 1});
    }
    // Unlabelled pixels get 0 and not NaN, because the third derivative multiplies them by 0.
    scale = at::where(is_labelled, scale, 0.0);
    const at::Tensor weight =
        in.weight ? in.weight->to(z.scalar_type()) : at::ones({labels}, z.options());
    const auto smoothing = label_smoothing_of(in.label_smoothing, classes);
    own = smoothing.own * weight.take(code);
    if (in.label_smoothing != 0) share = smoothing.share * weight.view({1, -1, 1});
  }

  // The sum of q over the classes.
  at::Tensor total() const { return share.defined() ? own + share.sum() : own; }

  // u.((sum of q) p - q)
  at::Tensor along(const at::Tensor& u, const Probabilities& of) const {
    if (of.binary()) {
      at::Tensor background = at::where(code == 0, own, 0.0);
      at::Tensor foreground = at::where(code == 1, own, 0.0);
      if (share.defined()) {
        background = background + share.select(1, 0);
        foreground = foreground + share.select(1, 1);
      }
      return u * (background * of.z.sigmoid() - foreground * (-of.z).sigmoid());
    }
    const at::Tensor of_p = total() * (u * of.p).sum(1, true) - own * u.gather(1, code);
    return share.defined() ? of_p - (u * share).sum(1, true) : of_p;
  }
};

// The excess of math/size.h, and the mask of where a bound is exceeded.
std::pair<at::Tensor, at::Tensor> size_excess(const SegmentationHeadBackwardInputs& in) {
  const at::Tensor& size = *in.soft_size;
  const at::Tensor bounds =
      in.bounds->to(size.scalar_type()).expand_symint({size.sym_size(0), size.sym_size(1), 2});
  const at::Tensor lower = bounds.select(-1, 0), upper = bounds.select(-1, 1);
  const at::Tensor below = (size < lower).logical_and(lower.isfinite());
  const at::Tensor above = (size > upper).logical_and(upper.isfinite());
  const at::Tensor bounded = lower.isfinite().logical_or(upper.isfinite());
  const at::Tensor inside = at::where(bounded, size - size, 0.0); // NaN for a NaN size
  const at::Tensor excess = at::where(below, size - lower, at::where(above, size - upper, inside));
  return {excess, below.logical_or(above)};
}

} // namespace

SegmentationHeadSecondDerivatives segmentation_head_double_backward(
    const SegmentationHeadBackwardInputs& in, const at::Tensor& grad_logits) {
  SegmentationHeadSecondDerivatives out;
  const auto type = accumulation_type(in.logits.scalar_type());
  const Probabilities probabilities(in.logits.to(type).flatten(2));
  const at::Tensor u = grad_logits.to(type).flatten(2);
  const at::Tensor pulled = probabilities.pull(u);

  at::Tensor a; // gradient of p, [B, C, N] or [B, C, 1]
  const auto add_to_a = [&a](const at::Tensor& term) { a = a.defined() ? a + term : term; };
  if (in.grad_probabilities) {
    add_to_a(in.grad_probabilities->to(type).flatten(2));
    out.grad_probabilities =
        pulled.to(in.logits.scalar_type()).reshape_symint(in.logits.sym_sizes());
  }
  const at::Tensor pulled_sum = pulled.sum(-1); // U: what reaches the soft sizes, [B, C]
  if (in.grad_soft_size) {
    add_to_a(in.grad_soft_size->unsqueeze(-1));
    out.grad_soft_size = pulled_sum;
  }
  if (in.grad_penalty && in.bounds) {
    const auto [excess, outside] = size_excess(in);
    const at::Tensor slope = 2 * excess * *in.penalty_scale;
    add_to_a((slope * *in.grad_penalty).unsqueeze(-1));
    const at::Tensor to_penalty = slope * pulled_sum;
    out.grad_penalty =
        Reduction(in.size_reduction) == Reduction::kNone ? to_penalty : to_penalty.sum();
    out.soft_size = at::where(outside, 2 * *in.penalty_scale * *in.grad_penalty * pulled_sum, 0.0);
  } else if (in.grad_penalty) {
    out.grad_penalty = at::zeros_like(*in.grad_penalty);
  }
  at::Tensor to_z = at::zeros_like(u);
  if (a.defined()) to_z = to_z + probabilities.curve(u, a.expand_as(u));

  if (in.grad_ce) {
    const Labelled label(in, probabilities.z);
    const bool mapped = Reduction(in.ce_reduction) == Reduction::kNone;
    const at::Tensor g = mapped ? in.grad_ce->reshape_symint(label.code.sym_sizes()) : *in.grad_ce;
    const at::Tensor factor = label.scale * label.total();
    const at::Tensor counts = factor != 0;
    to_z = to_z + at::where(counts, factor * g * pulled, 0.0);
    const at::Tensor to_ce = at::where(counts, label.scale * label.along(u, probabilities), 0.0);
    out.grad_ce = mapped ? to_ce.reshape_symint(in.grad_ce->sym_sizes()) : to_ce.sum();
  }
  out.logits = to_z.to(in.logits.scalar_type()).reshape_symint(in.logits.sym_sizes());
  return out;
}

} // namespace accl
