// exp and log(1 + x) of sixteen numbers: polynomials for float, the scalar functions for double.
#pragma once

#include "lanes.h"

namespace accl {
namespace ACCL_ISA {

// p 2^n, where n = shifted - shift is an integer. It is rounded only once, even if it is subnormal.
ACCL_HD Vector<float> scale_by_power(Vector<float> p, Vector<float> shifted, Vector<float> shift) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)(shifted - shift));
#else
  typedef Vector<float> F;
  typedef Native<float>::mask I;
  const I exponent = (I)shifted - (I)shift;
  const I half = exponent >> 1; // 2^n as two factors, both of them normal numbers
  const F low = (F)((half + 127) << 23);
  const F high = (F)((exponent - half + 127) << 23);
  return p * low * high;
#endif
}

// exp(x) for x <= 88, as 2^n exp(r) with |r| <= ln(2) / 2. The polynomial is that of Cephes' expf;
// the result is within 2 ulp.
ACCL_HD Lanes<float> exp_(const Lanes<float>& x) {
  typedef Vector<float> F;
  Lanes<float> y;
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
    const F v = at_least(F{} - 105.0f, x.part[i]); // exp of -105 rounds to 0
    const F shift = F{} + 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer
    const F shifted = multiply_add(v, F{} + 1.44269504088896341f, shift);
    const F n = shifted - shift;
    F r = multiply_add(n, F{} - 0.693359375f, v);
    r = multiply_add(n, F{} + 2.12194440e-4f, r);
    F p = multiply_add(F{} + 1.9875691500e-4f, r, F{} + 1.3981999507e-3f);
    p = multiply_add(p, r, F{} + 8.3334519073e-3f);
    p = multiply_add(p, r, F{} + 4.1665795894e-2f);
    p = multiply_add(p, r, F{} + 1.6666665459e-1f);
    p = multiply_add(p, r, F{} + 5.0000001201e-1f);
    p = multiply_add(p, r * r, r + 1.0f);
    y.part[i] = scale_by_power(p, shifted, shift);
  }
  return y;
}

// log(1 + x) for x in [0, 1], as 2 atanh(t) with t = x / (2 + x), by its series in t^2 <= 1/9.
ACCL_HD Lanes<float> log1p_unit(const Lanes<float>& x) {
  typedef Vector<float> F;
  Lanes<float> y;
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
    const F t = x.part[i] / (x.part[i] + 2.0f);
    const F s = t * t;
    F p = F{} + 1.0f / 17;
    p = multiply_add(p, s, F{} + 1.0f / 15);
    p = multiply_add(p, s, F{} + 1.0f / 13);
    p = multiply_add(p, s, F{} + 1.0f / 11);
    p = multiply_add(p, s, F{} + 1.0f / 9);
    p = multiply_add(p, s, F{} + 1.0f / 7);
    p = multiply_add(p, s, F{} + 1.0f / 5);
    p = multiply_add(p, s, F{} + 1.0f / 3);
    const F twice = t + t;
    y.part[i] = multiply_add(p, s * twice, twice);
  }
  return y;
}

ACCL_HD Lanes<double> exp_(const Lanes<double>& x) {
  return map(x, [](double v) { return accl::exp_(v); });
}
ACCL_HD Lanes<double> log1p_unit(const Lanes<double>& x) {
  return map(x, [](double v) { return accl::log1p_(v); });
}
template <class T>
ACCL_HD Lanes<T> log1p_(const Lanes<T>& x) {
  return map(x, [](T v) { return accl::log1p_(v); });
}

} // namespace ACCL_ISA
} // namespace accl
