// From the sums of the pairs of image and class to the overlap loss, and from its gradient to
// theirs. T is the accumulation type, and Sum the type of the sums: the loss is computed from the
// unrounded ones, because near T = 1 it is a small difference.
#pragma once

#include "../math/overlap.h"

namespace accl {
namespace cpu {

template <class T, class Sum>
class OverlapPairs {
 public:
  // sums: [B, K, 3]
  OverlapPairs(const SegmentationHeadArguments& arguments, const Sum* sums)
      : a(arguments), o(a.overlap), sums_(sums) {
    for (int64_t pair = 0; pair < a.images * labels(); ++pair) {
      labelled_ |= sums_[pair * 3 + 2] != 0;
    }
  }

  // A group is an image, or with `batch` all of them.
  int64_t groups() const { return o.batch ? 1 : a.images; }
  int64_t labels() const { return overlap_labels(a.classes); }

  OverlapSums<double> sums(int64_t group, int64_t c) const {
    OverlapSums<double> s = {0, 0, 0};
    for (int64_t image = group; image < (o.batch ? a.images : group + 1); ++image) {
      const Sum* const of = sums_ + (image * labels() + c) * 3;
      s.hit += of[0], s.predicted += of[1], s.labelled += of[2];
    }
    return s;
  }

  // 0 for all where nothing is labelled.
  double weight(int64_t c, const OverlapSums<double>& s) const {
    if (!labelled_) return 0;
    const T* const weight = static_cast<const T*>(a.overlap_weight);
    return overlap_weight(o, s, weight ? double(weight[c]) : 1.0);
  }

  // Position of a pair in the table of reduction none.
  int64_t at(int64_t group, int64_t c) const {
    return group * (labels() - o.first_class) + c - o.first_class;
  }

  // Calls function(group, c, sums, weight) for each pair that counts or has weight 0.
  template <class Function>
  void for_pairs(const Function& function) const {
    for (int64_t group = 0; group < groups(); ++group) {
      for (int64_t c = o.first_class; c < labels(); ++c) {
        const OverlapSums<double> s = sums(group, c);
        function(group, c, s, weight(c, s));
      }
    }
  }

  double total_weight() const {
    double total = 0;
    for_pairs([&](int64_t, int64_t, const OverlapSums<double>&, double w) { total += w; });
    return total;
  }

  void write_loss(T* loss) const {
    double total = 0;
    for_pairs([&](int64_t group, int64_t c, const OverlapSums<double>& s, double w) {
      const double weighted = times(w, overlap_loss(o, s));
      if (o.reduction == Reduction::kNone) loss[at(group, c)] = T(weighted);
      total += weighted;
    });
    if (o.reduction == Reduction::kNone) return;
    *loss = T(times(scale(), total));
  }

  // Gradients of each image's hit and predicted, [B, K, 2]. Either incoming gradient may be null.
  void write_gradient(const T* grad_loss, const T* grad_sums, double* gradient) const {
    for (int64_t pair = 0; pair < a.images * labels(); ++pair) {
      for (int k = 0; k < 2; ++k) gradient[pair * 2 + k] = grad_sums ? grad_sums[pair * 3 + k] : 0;
    }
    if (!grad_loss) return;
    const double scale_of_all = scale();
    for_pairs([&](int64_t group, int64_t c, const OverlapSums<double>& s, double w) {
      if (w == 0 || scale_of_all == 0) return;
      const double g = grad_loss[o.reduction == Reduction::kNone ? at(group, c) : 0];
      const OverlapSlopes<double> slopes = overlap_slopes(o, s);
      for (int64_t image = group; image < (o.batch ? a.images : group + 1); ++image) {
        double* const of = gradient + (image * labels() + c) * 2;
        of[0] += g * w * scale_of_all * slopes.hit;
        of[1] += g * w * scale_of_all * slopes.predicted;
      }
    });
  }

 private:
  // Factor of the weighted losses: 1, or for the mean 1 over the weights of all pairs.
  double scale() const {
    if (o.reduction != Reduction::kMean) return 1;
    const double total = total_weight();
    return total == 0 ? 0 : 1 / total;
  }

  const SegmentationHeadArguments& a;
  const OverlapOptions& o;
  const Sum* const sums_;
  bool labelled_ = false;
};

} // namespace cpu
} // namespace accl
