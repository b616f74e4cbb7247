// 2^x for x <= 0, on a vector of the instruction set's own width.
#pragma once

#include "lanes.h"

namespace accl {
namespace ACCL_ISA {

// The polynomial q in 2^f = 1 + f q(f) for |f| <= 1/2, with the least relative error of 2^f: 4.3e-7
// for float, 3.0e-16 for double.
template <class T>
struct Exp2;
template <>
struct Exp2<float> {
  static constexpr int kMantissa = 23;
  static constexpr int kBias = 127;
  static constexpr float kSmallest = 0x1p-126f;
  static constexpr int kDegree = 5;
  static constexpr float kCoefficient[kDegree] = {1.11255093e-3f, 9.66628255e-3f, 5.55740047e-2f,
                                                  2.40223507e-1f, 6.93142831e-1f};
};
template <>
struct Exp2<double> {
  static constexpr int kMantissa = 52;
  static constexpr int kBias = 1023;
  static constexpr double kSmallest = 0x1p-1022;
  static constexpr int kDegree = 10;
  static constexpr double kCoefficient[kDegree] = {7.11175868755785227e-9, 1.02105064588161451e-7,
                                                   1.32152356347760388e-6, 1.52526477476959205e-5,
                                                   1.54035308008182562e-4, 1.33335582464807205e-3,
                                                   9.61812910738071427e-3, 5.5504108664346584e-2,
                                                   2.40226506959104722e-1, 6.93147180559951616e-1};
};

// 2^x is computed as p 2^n, where x = f + n and n is the nearest integer. AVX-512 has an
// instruction that gives f and one that gives p 2^n, and both are right for an infinite x too.
// Elsewhere n is added to the bits of p's exponent, because the units that multiply are busy.
#if defined(__AVX512DQ__)
ACCL_HD Vector<float> beyond_integer(Vector<float> x) {
  return (Vector<float>)_mm512_maskz_reduce_ps(0xffff, (__m512)x, 0);
}
ACCL_HD Vector<double> beyond_integer(Vector<double> x) {
  return (Vector<double>)_mm512_maskz_reduce_pd(0xff, (__m512d)x, 0);
}
ACCL_HD Vector<float> times_power_of_2(Vector<float> p, Vector<float> n) {
  return (Vector<float>)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)n);
}
ACCL_HD Vector<double> times_power_of_2(Vector<double> p, Vector<double> n) {
  return (Vector<double>)_mm512_maskz_scalef_pd(0xff, (__m512d)p, (__m512d)n);
}
#endif

// 2^x for x <= 0: exactly 1 at x = 0, and less than 2^-125 for x <= -126. NaN for a NaN whose last
// nine bits are 0, as the usual ones are.
template <class T>
ACCL_HD Vector<T> exp2_of_negative(Vector<T> x) {
  typedef Vector<T> V;
  typedef Exp2<T> E;
#if defined(__AVX512DQ__)
  const V f = beyond_integer(x);
#else
  typedef typename Native<T>::mask I;
  // Adding kShift rounds to an integer, which the low bits of the sum then hold.
  constexpr T kShift = T(int64_t(3) << (E::kMantissa - 1));
  constexpr T kLeast = T(1 - E::kBias);
  const V v = at_least(V{} + kLeast, x);
  const V shifted = v + kShift;
  const V f = v - (shifted - kShift);
#endif
  V q = V{} + E::kCoefficient[0];
  for (int i = 1; i < E::kDegree; ++i) q = multiply_add(q, f, V{} + E::kCoefficient[i]);
  const V p = multiply_add(q, f, V{} + T(1));
#if defined(__AVX512DQ__)
  return times_power_of_2(p, x - f);
#else
  // Subtracting the smallest normal number makes the result exactly 0 at the least x.
  return (V)((I)p + ((I)shifted << E::kMantissa)) - E::kSmallest;
#endif
}

} // namespace ACCL_ISA
} // namespace accl
