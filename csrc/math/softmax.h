// Softmax over classes, relative to the largest logit m (at class `top`): with e_k = exp(z_k - m),
// `others` is the sum of e_k over k != top, so 1 - p_top = others / (1 + others) does not cancel.
#pragma once

#include "elementary.h"

namespace accl {

template <class T>
ACCL_HD T softmax_exponential(T z, T top) {
  return exp_(z - top);
}

// Takes one more class into m and `others`, of the classes seen so far. `exponential` is
// exp(-|z - m|), and 1 where both are equal: infinities of one sign differ by NaN.
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

// d(-log p_y)/dz_k = p_k - [k = y]; for k = y as -(the other probabilities).
// `rest` is the sum of e_j over j != k.
template <class T, class Mask>
ACCL_HD T softmax_cross_entropy_slope(Mask is_label, T exponential, T rest, T scale) {
  return select(is_label, -rest * scale, exponential * scale);
}

// Row k of J A, J = diag(p) - p p^T. A enters relative to A_top and `dot` = sum_j p_j (A_j -
// A_top): the term of the dominating class is 0, not a difference of large numbers.
template <class T>
ACCL_HD T softmax_pullback(T p, T relative_gradient, T dot) {
  return p * (relative_gradient - dot);
}

} // namespace accl
