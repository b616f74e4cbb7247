// The gated CRF loss of Obukhov et al.: the exponents of its kernels, and what a pixel's sums over
// the window give. With the window's sums of k_ij x_j written K[x],
//   C >= 2:  L_i = K[1] - sum_c p_ic K[p_c],                dL/dp_ic ~ -K[p_c]
//   C = 1, two classes 1 - p and p:
//            L_i = p_i K[1 - p] + (1 - p_i) K[p],           dL/dp_i  ~ K[1 - p] - K[p]
// The second form subtracts nothing in L, so it loses no digits where p is near 0 or 1.
#pragma once

#include <cstdint>

#include "elementary.h"

namespace accl {

constexpr double kLog2OfE = 1.4426950408889634;

// The f of exp(-x^2 / (2 sigma^2)) = 2^(-x^2 f). It is limited to `largest`, a finite number, so
// that x = 0 gives 1 however small sigma is: infinity * 0 would be NaN.
inline double gaussian_factor(double sigma, double largest) {
  const double factor = kLog2OfE / 2 * (1 / sigma) * (1 / sigma);
  return factor < largest ? factor : largest;
}

// What the distance of two pixels, `steps` apart along each axis, adds to the exponent of 2.
inline double distance_exponent(const int64_t (&steps)[3], const double (&spacing)[3],
                                double sigma) {
  double squared = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const double step = double(steps[axis]) * spacing[axis] / sigma;
    squared += step * step;
  }
  return -kLog2OfE / 2 * squared;
}

// L_i of one class: sum over j of k_ij (p_i (1 - p_j) + (1 - p_i) p_j).
template <class T>
ACCL_HD T binary_disagreement(T p, T sum_of_p, T sum_of_complement) {
  return p * sum_of_complement + (T(1) - p) * sum_of_p;
}

// Its derivative by p_i: sum over j of k_ij (1 - 2 p_j).
template <class T>
ACCL_HD T binary_disagreement_slope(T sum_of_p, T sum_of_complement) {
  return sum_of_complement - sum_of_p;
}

} // namespace accl
