#include "overlap.h"

namespace accl {

OverlapPairs::OverlapPairs(const SegmentationHeadBackwardInputs& in)
    : in_(in), options_(parse_overlap(in.overlap, in.logits)) {
  const OverlapOptions& o = options_;
  at::Tensor sums = *in.overlap_sums;
  if (o.batch) sums = sums.sum(0, true);
  const at::Tensor hit = sums.narrow(-1, 0, 1), predicted = sums.narrow(-1, 1, 1);
  const at::Tensor labelled = sums.narrow(-1, 2, 1);
  const at::Tensor denominator =
      hit + o.alpha * (predicted - hit) + o.beta * (labelled - hit) + o.smooth_denominator;
  // Where D is 0, the loss is constant.
  const at::Tensor empty = denominator == 0;
  inverse_ = at::where(empty, 0.0, at::where(empty, 1.0, denominator).reciprocal());
  ratio_ = (hit + o.smooth_numerator) * inverse_;

  at::Tensor weight = in.overlap_weight ? in.overlap_weight->to(sums.scalar_type()).view({1, -1, 1})
                                        : at::ones({1, 1, 1}, sums.options());
  weight = weight.expand_as(hit);
  if (!o.keep_absent) weight = at::where(labelled == 0, 0.0, weight);
  const at::Tensor all_labelled = in.overlap_sums->select(-1, 2);
  weight = at::where((all_labelled != 0).any(), weight, 0.0);
  if (o.first_class > 0) {
    const at::Tensor c = at::arange(hit.size(1), sums.options()).view({1, -1, 1});
    weight = at::where(c < o.first_class, 0.0, weight);
  }
  if (o.reduction == Reduction::kMean) {
    const at::Tensor total = weight.sum();
    weight = at::where(total == 0, 0.0, weight / total);
  }
  weight_ = weight;
  hit_ = at::arange(1, -1, -1, sums.options());
  slopes_ = hit_ * (1 - o.alpha - o.beta) + (1 - hit_) * o.alpha;
}

at::Tensor OverlapPairs::weighted(const at::Tensor& g) const {
  if (options_.reduction != Reduction::kNone) return weight_ * g;
  at::Tensor table = g.reshape_symint({weight_.sym_size(0), -1, 1});
  if (options_.first_class > 0) table = at::constant_pad_nd(table, {0, 0, options_.first_class, 0});
  return weight_ * table;
}

at::Tensor OverlapPairs::to_images(const at::Tensor& of_groups) const {
  std::vector<c10::SymInt> shape(of_groups.sym_sizes().begin(), of_groups.sym_sizes().end());
  shape[0] = in_.logits.sym_size(0);
  return of_groups.expand_symint(shape);
}

at::Tensor OverlapPairs::gradient() const {
  at::Tensor gradient;
  if (in_.grad_overlap) {
    // d(1 - T) = (T dD - d hit) / D
    gradient = to_images(weighted(*in_.grad_overlap) * (ratio_ * slopes_ - hit_) * inverse_);
  }
  if (in_.grad_overlap_sums) {
    const at::Tensor of_sums = in_.grad_overlap_sums->narrow(-1, 0, 2);
    gradient = gradient.defined() ? gradient + of_sums : of_sums;
  }
  return gradient;
}

OverlapPairs::Second OverlapPairs::second(const at::Tensor& u) const {
  Second out;
  if (in_.grad_overlap_sums) out.grad_overlap_sums = at::constant_pad_nd(u, {0, 1});
  if (!in_.grad_overlap) return out;
  // Along u, the loss 1 - T of a pair changes by -T' = (T D' - hit') / D. Its derivative by the
  // sums, with dT = (d hit - T dD) / D, is (dT D' + T' dD) / D; `labelled` is not differentiated.
  const at::Tensor of_group = options_.batch ? u.sum(0, true) : u;
  const at::Tensor hit_change = of_group.narrow(-1, 0, 1);
  const at::Tensor denominator_change = (of_group * slopes_).sum(-1, true);
  const at::Tensor ratio_change = (hit_change - ratio_ * denominator_change) * inverse_;
  const at::Tensor to_loss = -(weight_ * ratio_change);
  if (options_.reduction == Reduction::kNone) {
    const int64_t first = options_.first_class;
    out.grad_overlap = to_loss.slice(1, first).reshape_symint(in_.grad_overlap->sym_sizes());
  } else {
    out.grad_overlap = to_loss.sum();
  }
  const at::Tensor ratio_slope = (hit_ - ratio_ * slopes_) * inverse_;
  const at::Tensor to_sums = weighted(*in_.grad_overlap) *
                             (ratio_slope * denominator_change + ratio_change * slopes_) * inverse_;
  out.overlap_sums = to_images(at::constant_pad_nd(to_sums, {0, 1}));
  return out;
}

} // namespace accl
