// Sixteen numbers at a time, on whatever vector width the instruction set has. The number of
// lanes is fixed, so that every instruction set adds in the same order; a head or tail shorter
// than sixteen goes through the same code by way of a padded buffer.
#pragma once

#include <cstdint>
#include <cstring>

#include "../../math/elementary.h"

#if defined(__AVX512F__)
#define ACCL_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define ACCL_VECTOR_BYTES 32
#else
#define ACCL_VECTOR_BYTES 16
#endif
#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace accl {
namespace ACCL_ISA { // each instruction set its own types: nothing here may be merged by the linker

constexpr int kLanes = 16;

#define ACCL_INLINE inline __attribute__((always_inline)) // for members; see ACCL_HD

template <class T>
struct Native;
template <>
struct Native<float> {
  typedef float type __attribute__((vector_size(ACCL_VECTOR_BYTES)));
  typedef int32_t mask __attribute__((vector_size(ACCL_VECTOR_BYTES)));
};
template <>
struct Native<double> {
  typedef double type __attribute__((vector_size(ACCL_VECTOR_BYTES)));
  typedef int64_t mask __attribute__((vector_size(ACCL_VECTOR_BYTES)));
};

template <class T>
struct Mask {
  static constexpr int kParts = kLanes * sizeof(T) / ACCL_VECTOR_BYTES;
  typename Native<T>::mask part[kParts];
};

template <class T>
struct Lanes {
  static constexpr int kParts = Mask<T>::kParts;
  static constexpr int kPerPart = kLanes / kParts;
  typename Native<T>::type part[kParts];

  Lanes() = default;
  ACCL_INLINE Lanes(T x) {
    for (int i = 0; i < kParts; ++i) part[i] = typename Native<T>::type{} + x;
  }
};

#define ACCL_LANES_OPERATOR(result, op)                                            \
  template <class T>                                                               \
  ACCL_HD result<T> operator op(const Lanes<T>& a, const Lanes<T>& b) {            \
    result<T> c;                                                                   \
    for (int i = 0; i < Lanes<T>::kParts; ++i) c.part[i] = a.part[i] op b.part[i]; \
    return c;                                                                      \
  }
ACCL_LANES_OPERATOR(Lanes, +)
ACCL_LANES_OPERATOR(Lanes, -)
ACCL_LANES_OPERATOR(Lanes, *)
ACCL_LANES_OPERATOR(Lanes, /)
ACCL_LANES_OPERATOR(Mask, >)
ACCL_LANES_OPERATOR(Mask, >=)
ACCL_LANES_OPERATOR(Mask, <)
ACCL_LANES_OPERATOR(Mask, ==)
#undef ACCL_LANES_OPERATOR

template <class T>
ACCL_HD Lanes<T> operator-(const Lanes<T>& a) {
  Lanes<T> c;
  for (int i = 0; i < Lanes<T>::kParts; ++i) c.part[i] = -a.part[i];
  return c;
}

template <class T>
ACCL_HD Lanes<T> select(const Mask<T>& mask, const Lanes<T>& yes, const Lanes<T>& no) {
  Lanes<T> c;
  for (int i = 0; i < Lanes<T>::kParts; ++i) c.part[i] = mask.part[i] ? yes.part[i] : no.part[i];
  return c;
}

template <class T>
ACCL_HD Lanes<T> abs_(const Lanes<T>& x) {
  Lanes<T> c;
  for (int i = 0; i < Lanes<T>::kParts; ++i) {
    // Clears the sign bit, also of -0 and NaN.
    typedef typename Native<T>::mask Bits;
    constexpr int kSign = sizeof(T) * 8 - 1;
    const Bits bits = (Bits)x.part[i] & ~((Bits{} + 1) << kSign);
    c.part[i] = (typename Native<T>::type)bits;
  }
  return c;
}

// Applies a scalar function lane by lane: double, and what is too rare to matter.
template <class T, class Function>
ACCL_HD Lanes<T> map(const Lanes<T>& x, const Function& function) {
  T values[kLanes];
  std::memcpy(values, &x, sizeof(values));
  for (int i = 0; i < kLanes; ++i) values[i] = function(values[i]);
  Lanes<T> c;
  std::memcpy(&c, values, sizeof(values));
  return c;
}

ACCL_HD Native<float>::type multiply_add(Native<float>::type a, Native<float>::type b,
                                         Native<float>::type c) {
#if defined(__AVX512F__)
  return (Native<float>::type)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Native<float>::type)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// The larger of limit and x; NaN where x is NaN. (maskz with every lane on: GCC 12 warns of its own
// undefined operand in the plain form.)
ACCL_HD Native<float>::type at_least(Native<float>::type limit, Native<float>::type x) {
#if defined(__AVX512F__)
  return (Native<float>::type)_mm512_maskz_max_ps(0xffff, (__m512)limit, (__m512)x);
#elif defined(__AVX2__)
  return (Native<float>::type)_mm256_max_ps((__m256)limit, (__m256)x);
#else
  return x < limit ? limit : x;
#endif
}

// p 2^n for n = shifted - shift, an integer; rounded once, also below the smallest normal number.
ACCL_HD Native<float>::type scale_by_power(Native<float>::type p, Native<float>::type shifted,
                                           Native<float>::type shift) {
#if defined(__AVX512F__)
  return (Native<float>::type)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)(shifted - shift));
#else
  typedef Native<float>::type F;
  typedef Native<float>::mask I;
  const I exponent = (I)shifted - (I)shift;
  const I half = exponent >> 1; // two factors that are normal numbers
  const F low = (F)((half + 127) << 23);
  const F high = (F)((exponent - half + 127) << 23);
  return p * low * high;
#endif
}

// exp by 2^n exp(r), |r| <= ln(2) / 2; the polynomial is Cephes' expf, within 2 ulp. For x <= 88.
ACCL_HD Lanes<float> exp_(const Lanes<float>& x) {
  typedef Native<float>::type F;
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

// log(1 + x), x in [0, 1]: 2 atanh(t), t = x / (2 + x), by its series in t^2 <= 1/9.
ACCL_HD Lanes<float> log1p_unit(const Lanes<float>& x) {
  typedef Native<float>::type F;
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

// ---------------------------------------------------------------------------------------------
// Memory: sixteen elements of an array, converted to the accumulation type and back.

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class In>
struct AccumulationOf {
  typedef float type;
};
template <>
struct AccumulationOf<double> {
  typedef double type;
};
template <class In>
using Accumulation = typename AccumulationOf<In>::type;

template <class T>
ACCL_HD Lanes<T> load(const T* from) {
  Lanes<T> x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}
template <class T>
ACCL_HD void store(T* to, const Lanes<T>& x) {
  std::memcpy(to, &x, sizeof(x));
}

ACCL_HD Lanes<float> load(const BFloat16* from) {
  uint32_t bits[kLanes];
  for (int i = 0; i < kLanes; ++i) bits[i] = uint32_t(from[i].bits) << 16;
  Lanes<float> x;
  std::memcpy(&x, bits, sizeof(x));
  return x;
}

ACCL_HD void store(BFloat16* to, const Lanes<float>& x) {
  constexpr int kPerPart = Lanes<float>::kPerPart;
  typedef uint32_t Bits __attribute__((vector_size(ACCL_VECTOR_BYTES)));
  typedef uint16_t Upper __attribute__((vector_size(ACCL_VECTOR_BYTES / 2)));
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
    const Bits bits = (Bits)x.part[i];
    const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; // to nearest, ties to even
    const Bits is_nan = (Bits)((bits & 0x7fffffff) > 0x7f800000);
    const Upper upper = __builtin_convertvector((is_nan & 0x7fc0) | (~is_nan & rounded), Upper);
    std::memcpy(to + i * kPerPart, &upper, sizeof(upper));
  }
}

#if defined(__F16C__)
ACCL_HD Lanes<float> load(const Half* from) {
  float values[kLanes];
  for (int i = 0; i < kLanes; i += 8) {
    __m128i half;
    std::memcpy(&half, from + i, sizeof(half));
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(half));
  }
  return load(values);
}

ACCL_HD void store(Half* to, const Lanes<float>& x) {
  float values[kLanes];
  store(values, x);
  for (int i = 0; i < kLanes; i += 8) {
    const __m128i half =
        _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    std::memcpy(to + i, &half, sizeof(half));
  }
}
#else
ACCL_HD float from_half(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16;
  const uint32_t magnitude = half & 0x7fff;
  float value;
  if (magnitude >= 0x7c00) { // infinite or NaN
    const uint32_t bits = 0x7f800000 | (magnitude & 0x3ff) << 13;
    std::memcpy(&value, &bits, 4);
  } else if (magnitude >= 0x400) {
    const uint32_t bits = (magnitude << 13) + ((127 - 15) << 23);
    std::memcpy(&value, &bits, 4);
  } else {
    value = float(magnitude) * 0x1p-24f; // subnormal
  }
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits |= sign;
  std::memcpy(&value, &bits, 4);
  return value;
}

ACCL_HD uint16_t to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (bits >= 0x477ff000) return uint16_t(sign | 0x7c00); // rounds to infinity
  if (bits < 0x38800000) { // subnormal: the addition rounds at the last place of a half
    float magnitude;
    std::memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, 4);
    return uint16_t(sign | (bits - 0x3f000000));
  }
  bits += 0xfff + ((bits >> 13) & 1); // to nearest, ties to even
  return uint16_t(sign | ((bits - ((127 - 15) << 23)) >> 13));
}

ACCL_HD Lanes<float> load(const Half* from) {
  float values[kLanes];
  for (int i = 0; i < kLanes; ++i) values[i] = from_half(from[i].bits);
  return load(values);
}
ACCL_HD void store(Half* to, const Lanes<float>& x) {
  float values[kLanes];
  store(values, x);
  for (int i = 0; i < kLanes; ++i) to[i].bits = to_half(values[i]);
}
#endif

// The first n <= 16 elements; the others are `padding` and are not stored.
template <class In>
ACCL_HD Lanes<Accumulation<In>> load_some(const In* from, int n, float padding = 0) {
  if (n == kLanes) return load(from);
  In buffer[kLanes] = {};
  std::memcpy(buffer, from, n * sizeof(In));
  Lanes<Accumulation<In>> x = load(buffer);
  Accumulation<In> values[kLanes];
  store(values, x);
  for (int i = n; i < kLanes; ++i) values[i] = padding;
  return load(values);
}

template <class In>
ACCL_HD void store_some(In* to, const Lanes<Accumulation<In>>& x, int n) {
  if (n == kLanes) return store(to, x);
  In buffer[kLanes];
  store(buffer, x);
  std::memcpy(to, buffer, n * sizeof(In));
}

// Sums over many lanes, in double and in a fixed order.
struct Sum {
  double lane[kLanes] = {};

  template <class T>
  ACCL_INLINE void add(const Lanes<T>& x) {
    T values[kLanes];
    store(values, x);
    for (int i = 0; i < kLanes; ++i) lane[i] += values[i];
  }

  ACCL_INLINE double total() const {
    double sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += lane[i];
    return sum;
  }
};

} // namespace ACCL_ISA
} // namespace accl
