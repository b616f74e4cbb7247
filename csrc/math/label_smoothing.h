// Cross-entropy with label smoothing e, as torch's F.cross_entropy defines it. Instead of the label
// alone every class c costs -log p_c, with the factor
//   q_c = w_c ((1 - e) [c = y] + e / K),  K = max(C, 2);
// C = 1 is two classes of logits 0 and z. The derivative with respect to z_k is
// (sum of q) p_k - q_k.
#pragma once

#include "logistic.h"

namespace accl {

template <class T>
struct LabelSmoothing {
  T own; // 1 - e, which the label's class has besides its share
  T share; // e / K, which every class has
};

ACCL_HD LabelSmoothing<double> label_smoothing_of(double smoothing, int64_t classes) {
  return {1 - smoothing, smoothing / double(classes < 2 ? 2 : classes)};
}

// q_0 (-log(1 - s)) + q_1 (-log s), formed without subtraction, so that large |z| loses no digits.
template <class T>
ACCL_HD T smoothed_binary_cross_entropy(const Logistic<T>& l, T background, T foreground) {
  const T linear = times(select(l.z > T(0), background, foreground), abs_(l.z));
  return linear + times(background + foreground, log1p_unit(l.e));
}

// With softmax the loss is times(sum of q, log(1 + others)) plus this term for each class.
template <class T>
ACCL_HD T smoothed_softmax_term(T factor, T logit, T top) {
  return times(factor, top - logit);
}

// (sum of q) p - q, written as (sum of the other q) p - q (1 - p). `complement` is 1 - p, which the
// caller formed without subtraction.
template <class T>
ACCL_HD T smoothed_cross_entropy_slope(T factor, T other_factors, T p, T complement) {
  return times(other_factors, p) - times(factor, complement);
}

} // namespace accl
