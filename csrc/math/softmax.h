// Softmax over classes, relative to the largest logit `top`: with e_k = exp(z_k - top), `others` is
// the sum of e_k over all other classes. The probability of the top class is 1 / (1 + others), and
// 1 minus it is others / (1 + others), which takes no subtraction.
#pragma once

#include "elementary.h"

namespace accl {

template <class T>
ACCL_HD T softmax_exponential(T z, T top) {
  return exp_(z - top);
}

// Takes one more class with logit z into `top` and `others` of the classes before it. `exponential`
// is exp(-|z - top|). The caller gives 1 where both are equal, since their difference is NaN if
// both are infinite.
template <class T>
ACCL_HD void softmax_join(T z, T exponential, T& top, T& others) {
  others = z > top ? (others + T(1)) * exponential : others + exponential;
  top = z > top ? z : top;
}

template <class T>
ACCL_HD T softmax_scale(T others) {
  return T(1) / (T(1) + others);
}

// -log p_y = log(sum exp z) - z_y
template <class T>
ACCL_HD T softmax_cross_entropy(T label_logit, T top, T others) {
  return log1p_(others) + (top - label_logit);
}

// d(-log p_y)/dz_k = p_k - [k = y], which for k = y is minus the sum of the other probabilities.
// `rest` is the sum of e_j over j != k.
template <class T, class Mask>
ACCL_HD T softmax_cross_entropy_slope(Mask is_label, T exponential, T rest, T scale) {
  return select(is_label, -rest * scale, exponential * scale);
}

// Row k of J A, with J = diag(p) - p p^T. `relative_gradient` is A_k - A_top and `dot` is the sum
// of p_j (A_j - A_top) over j: the top class then adds exactly 0, not a difference of large
// numbers.
template <class T>
ACCL_HD T softmax_pullback(T p, T relative_gradient, T dot) {
  return p * (relative_gradient - dot);
}

} // namespace accl
