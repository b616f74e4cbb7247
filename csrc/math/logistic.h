// Sigmoid, its slope, softplus and the binary cross-entropy, all formed from e = exp(-|z|), so that
// nothing cancels or overflows. Formed from s itself, s(1 - s) would be 0 at z = 20 in float32.
#pragma once

#include "elementary.h"

namespace accl {

template <class T>
struct Logistic {
  T z;
  T e; // exp(-|z|), in [0, 1]
  T r; // 1 / (1 + e)
};

// For a caller that has e already.
template <class T>
ACCL_HD Logistic<T> logistic(T z, T e) {
  return {z, e, T(1) / (T(1) + e)};
}

template <class T>
ACCL_HD Logistic<T> logistic(T z) {
  return logistic(z, exp_(-abs_(z)));
}

// s, the sigmoid of z
template <class T>
ACCL_HD T sigmoid(const Logistic<T>& l) {
  return select(l.z >= T(0), l.r, l.e * l.r);
}

// 1 - s, formed without subtraction
template <class T>
ACCL_HD T sigmoid_complement(const Logistic<T>& l) {
  return select(l.z >= T(0), l.e * l.r, l.r);
}

// ds/dz = s(1 - s)
template <class T>
ACCL_HD T sigmoid_slope(const Logistic<T>& l) {
  return l.e * l.r * l.r;
}

// log(1 + exp(t)) for t = z or t = -z
template <class T>
ACCL_HD T softplus(T t, T e) {
  return select(t > T(0), t, T(0)) + log1p_unit(e);
}

// l(y^, s) of eqs. (1), (2), (4) for C = 1: -log s where foreground, -log(1 - s) where background.
// The mask is a bool for a number, a vector of masks for a vector.
template <class T, class Mask>
ACCL_HD T binary_cross_entropy(const Logistic<T>& l, Mask foreground) {
  return softplus(select(foreground, -l.z, l.z), l.e);
}

// Its derivative s - y.
template <class T, class Mask>
ACCL_HD T binary_cross_entropy_slope(const Logistic<T>& l, Mask foreground) {
  return select(foreground, -sigmoid_complement(l), sigmoid(l));
}

} // namespace accl
