// Sixteen numbers at a time, on whatever vector width the instruction set has: their arithmetic.
// The number of lanes is fixed, so that every instruction set adds in the same order. Fewer numbers
// than sixteen go through the same code in a padded buffer (memory.h).
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
namespace ACCL_ISA { // types of its own, so that the linker merges nothing between instruction sets

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
using Vector = typename Native<T>::type; // as wide as the registers

template <class T>
struct Mask {
  static constexpr int kParts = kLanes * sizeof(T) / ACCL_VECTOR_BYTES;
  typename Native<T>::mask part[kParts];
};

template <class T>
struct Lanes {
  static constexpr int kParts = Mask<T>::kParts;
  static constexpr int kPerPart = kLanes / kParts; // elements of a register
  Vector<T> part[kParts];

  Lanes() = default;
  ACCL_INLINE Lanes(T x) {
    for (int i = 0; i < kParts; ++i) part[i] = Vector<T>{} + x;
  }
};

// One register at a time. A copy of all of Lanes is compiled to pieces of 16 bytes; where a wider
// register is then read from those pieces, it waits until they have left the store buffer.
template <class T>
ACCL_HD Vector<T> load_vector(const T* from) {
  Vector<T> x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}
template <class T>
ACCL_HD void store_vector(T* to, const Vector<T>& x) {
  std::memcpy(to, &x, sizeof(x));
}

template <class T>
ACCL_HD Lanes<T> load(const T* from) {
  Lanes<T> x;
  for (int i = 0; i < Lanes<T>::kParts; ++i) x.part[i] = load_vector(from + i * Lanes<T>::kPerPart);
  return x;
}
template <class T>
ACCL_HD void store(T* to, const Lanes<T>& x) {
  for (int i = 0; i < Lanes<T>::kParts; ++i) store_vector(to + i * Lanes<T>::kPerPart, x.part[i]);
}

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
    c.part[i] = (Vector<T>)bits;
  }
  return c;
}

// Applies a scalar function lane by lane: for double, and for what is too rare to need vectors.
template <class T, class Function>
ACCL_HD Lanes<T> map(const Lanes<T>& x, const Function& function) {
  T values[kLanes];
  store(values, x);
  for (int i = 0; i < kLanes; ++i) values[i] = function(values[i]);
  return load(values);
}

// a * b + c, rounded once where the instruction set can do so, else twice.
ACCL_HD Vector<float> multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Vector<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
ACCL_HD Vector<double> multiply_add(Vector<double> a, Vector<double> b, Vector<double> c) {
#if defined(__AVX512F__)
  return (Vector<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (Vector<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

// The larger of limit and x, and NaN where x is NaN. The form with a mask is used with every lane
// on, because GCC 12 warns about the undefined operand inside its own plain form.
ACCL_HD Vector<float> at_least(Vector<float> limit, Vector<float> x) {
#if defined(__AVX512F__)
  return (Vector<float>)_mm512_maskz_max_ps(0xffff, (__m512)limit, (__m512)x);
#elif defined(__AVX2__)
  return (Vector<float>)_mm256_max_ps((__m256)limit, (__m256)x);
#else
  return x < limit ? limit : x;
#endif
}
ACCL_HD Vector<double> at_least(Vector<double> limit, Vector<double> x) {
#if defined(__AVX512F__)
  return (Vector<double>)_mm512_maskz_max_pd(0xff, (__m512d)limit, (__m512d)x);
#elif defined(__AVX2__)
  return (Vector<double>)_mm256_max_pd((__m256d)limit, (__m256d)x);
#else
  return x < limit ? limit : x;
#endif
}

// A sum of many numbers, in double and in a fixed order.
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
