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
#include "overlap.h"

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
  at::Tensor pixel; // the pixel's weight; 0 where there is no label, NaN where it is invalid
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
    pixel = in.pixel_weight ? in.pixel_weight->to(z.scalar_type()).reshape_symint(code.sym_sizes())
                            : at::ones_like(label, z.options());
    pixel = at::where(is_class, pixel, std::numeric_limits<double>::quiet_NaN());
    // Unlabelled pixels get 0 and not NaN, because the third derivative multiplies them by 0.
    pixel = at::where(is_labelled, pixel, 0.0);
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

// Of the overlap: returns what goes to the logits, and fills in the rest. With G the gradients of
// hit and predicted and w the weight of a pixel, the gradient of p_k is
//   w (G_hit [k = y] + m G_predicted),  m = 1, or 2 p_k where squared,
// so u reaches the sums as hit_k = sum of w [k = y] (J u)_k and predicted_k = sum of w m (J u)_k.
at::Tensor add_overlap(const SegmentationHeadBackwardInputs& in, const Labelled& label,
                       const Probabilities& probabilities, const at::Tensor& u,
                       const at::Tensor& pulled, SegmentationHeadSecondDerivatives& out) {
  const OverlapPairs pairs(in);
  const bool squared = parse_overlap(in.overlap, in.logits).squared;
  const bool binary = probabilities.binary();
  const at::Tensor classes =
      at::arange(in.overlap_sums->size(1), label.code.options()).view({1, -1, 1});
  const at::Tensor is_label = label.code == classes; // [B, K, N]
  const at::Tensor counts = label.pixel != 0;
  // One class is two, whose probabilities change against each other.
  const auto both = [&](const at::Tensor& of_object, const at::Tensor& of_background) {
    return binary ? at::cat({of_background, of_object}, 1) : of_object;
  };
  const auto difference = [&](const at::Tensor& x) {
    return binary ? x.narrow(1, 1, 1) - x.narrow(1, 0, 1) : x;
  };
  const at::Tensor p = both(probabilities.p, (-probabilities.z).sigmoid());
  const at::Tensor pulled_both = both(pulled, -pulled);
  const at::Tensor hit_factor = at::where(is_label.logical_and(counts), label.pixel, 0.0);
  const at::Tensor factor = squared ? label.pixel * 2 * p : label.pixel.expand_as(p);
  const at::Tensor predicted_factor = at::where(counts, factor, 0.0);

  const at::Tensor gradient = pairs.gradient();
  const at::Tensor of_hit = gradient.narrow(-1, 0, 1), of_predicted = gradient.narrow(-1, 1, 1);
  const at::Tensor a = difference(hit_factor * of_hit + predicted_factor * of_predicted);
  at::Tensor to_z = probabilities.curve(u, a);
  if (squared) {
    to_z = to_z + probabilities.pull(difference(2 * label.pixel * of_predicted * pulled_both));
  }
  const auto sum = [&](const at::Tensor& by) {
    return at::where(counts, by * pulled_both, 0.0).sum(-1, true);
  };
  const OverlapPairs::Second second =
      pairs.second(at::cat({sum(hit_factor), sum(predicted_factor)}, -1));
  out.grad_overlap = second.grad_overlap;
  out.grad_overlap_sums = second.grad_overlap_sums;
  out.overlap_sums = second.overlap_sums;
  return at::where(counts, to_z, 0.0);
}

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

  const bool with_overlap = in.grad_overlap || in.grad_overlap_sums;
  if (!in.grad_ce && !with_overlap) {
    out.logits = to_z.to(in.logits.scalar_type()).reshape_symint(in.logits.sym_sizes());
    return out;
  }
  const Labelled label(in, probabilities.z);
  if (with_overlap) to_z = to_z + add_overlap(in, label, probabilities, u, pulled, out);
  if (in.grad_ce) {
    const at::Tensor scale = Reduction(in.ce_reduction) == Reduction::kNone
                                 ? label.pixel
                                 : label.pixel * in.ce_scale->view({-1, 1, 1});
    const bool mapped = Reduction(in.ce_reduction) == Reduction::kNone;
    const at::Tensor g = mapped ? in.grad_ce->reshape_symint(label.code.sym_sizes()) : *in.grad_ce;
    const at::Tensor factor = scale * label.total();
    const at::Tensor counts = factor != 0;
    to_z = to_z + at::where(counts, factor * g * pulled, 0.0);
    const at::Tensor to_ce = at::where(counts, scale * label.along(u, probabilities), 0.0);
    out.grad_ce = mapped ? to_ce.reshape_symint(in.grad_ce->sym_sizes()) : to_ce.sum();
  }
  out.logits = to_z.to(in.logits.scalar_type()).reshape_symint(in.logits.sym_sizes());
  return out;
}

} // namespace accl
