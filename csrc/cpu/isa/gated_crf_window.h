// The kernels k_ij of the gated CRF loss, and their sums over the windows of a vector of pixels, on
// a tile that was copied to scratch (gated_crf_loss.cpp).
#pragma once

#include "../gated_crf_loss.h"
#include "exp2.h"

namespace accl {
namespace ACCL_ISA {

// A vector of x. The compiler drops x - 0, which is x for every x. It could not drop 0 + x, because
// 0 + -0 is 0.
template <class T>
ACCL_HD Vector<T> broadcast(T x) {
  return x - Vector<T>{};
}

template <class T>
struct Padded {
  const cpu::Window& window;
  const T* image; // [channels] of the padded tile
  const T* marks; // 1 for a source
  int64_t stride; // elements of a channel
  int64_t channels; // of the image
  const T* center; // [channels] of the row, without the zeros: a destination may be no source
  int64_t row; // elements of a row's channel
};

// The structs named ...Kernel compute k_ij. Their at(n, at) takes entry n of the window's table,
// and `at`, the neighbour's index in the padded tile. This one has only kernels that do not look at
// the image.
template <class T>
struct FlatKernel {
  const T* const flat;
  ACCL_INLINE FlatKernel(const Padded<T>& p, int64_t)
      : flat(static_cast<const T*>(p.window.flat)) {}
  ACCL_INLINE Vector<T> at(int64_t n, int64_t) const { return broadcast(flat[n]); }
};

template <class T>
ACCL_HD Vector<T> squared_difference(const Padded<T>& p, int64_t column, int64_t at) {
  Vector<T> d = load_vector(p.center + column) - load_vector(p.image + at);
  Vector<T> squared = d * d;
  for (int64_t c = 1; c < p.channels; ++c) {
    d = load_vector(p.center + c * p.row + column) - load_vector(p.image + c * p.stride + at);
    squared = multiply_add(d, d, squared);
  }
  return squared;
}

// One kernel and one channel: the common case.
template <class T>
struct GreyKernel {
  const T* const image;
  const T* const exponent;
  const Vector<T> center;
  const T factor;
  ACCL_INLINE GreyKernel(const Padded<T>& p, int64_t column)
      : image(p.image),
        exponent(static_cast<const T*>(p.window.exponent[0])),
        center(load_vector(p.center + column)),
        factor(*static_cast<const T*>(p.window.factor)) {}
  ACCL_INLINE Vector<T> at(int64_t n, int64_t at) const {
    const Vector<T> d = center - load_vector(image + at);
    return exp2_of_negative<T>(multiply_add(d * d, broadcast(factor), broadcast(exponent[n])));
  }
};

template <class T>
struct AnyKernel {
  const Padded<T>& p;
  const int64_t column;
  ACCL_INLINE AnyKernel(const Padded<T>& padded, int64_t x) : p(padded), column(x) {}
  ACCL_INLINE Vector<T> at(int64_t n, int64_t at) const {
    const cpu::Window& w = p.window;
    Vector<T> k = {};
    if (w.flat) k = k + static_cast<const T*>(w.flat)[n];
    if (w.gated == 0) return k;
    const Vector<T> squared = squared_difference(p, column, at);
    for (int32_t m = 0; m < w.gated; ++m) {
      const T exponent = static_cast<const T*>(w.exponent[m])[n];
      const Vector<T> e = exp2_of_negative<T>(multiply_add(
          squared, broadcast(static_cast<const T*>(w.factor)[m]), broadcast(exponent)));
      k = multiply_add(e, broadcast(static_cast<const T*>(w.weight)[m]), k);
    }
    return k;
  }
};

// For pixels that are not finite. A neighbour that is no source is left out by selection, because
// NaN * 0 is NaN.
template <class T>
struct CarefulKernel : AnyKernel<T> {
  using AnyKernel<T>::AnyKernel;
  ACCL_INLINE Vector<T> at(int64_t n, int64_t at) const {
    const Vector<T> k = AnyKernel<T>::at(n, at);
    return load_vector(this->p.marks + at) > Vector<T>{} ? k : Vector<T>{};
  }
};

// With AVX-512 a weight is computed again in less time than it is written and read (8 classes: 0.87
// times as fast with kept weights; AVX2 1.4 times, baseline 1.5).
#if defined(__AVX512DQ__)
constexpr bool kKeepsWeights = false;
#else
constexpr bool kKeepsWeights = true;
#endif

// Keeps the k_ij of a vector of pixels, for sums that are not computed at the same time.
template <class T, class Kernel>
struct KeepingKernel {
  const Kernel kernel;
  T* const kept; // a vector for each entry of the window's table
  ACCL_INLINE Vector<T> at(int64_t n, int64_t at) const {
    const Vector<T> k = kernel.at(n, at);
    store_vector(kept + n * Lanes<T>::kPerPart, k);
    return k;
  }
};
template <class T>
struct KeptKernel {
  const T* const kept;
  ACCL_INLINE Vector<T> at(int64_t n, int64_t) const {
    return load_vector(kept + n * Lanes<T>::kPerPart);
  }
};

// sums[c] = sum over the window of k_ij x_jc, for a vector of pixels.
template <int kSums, class T, class Kernel>
void window_sums(const Padded<T>& padded, const Kernel& kernel, const T* const* x, int64_t at,
                 Vector<T>* sums) {
  Vector<T> total[kSums] = {};
  for (int64_t r = 0; r < padded.window.run_count; ++r) {
    const cpu::WindowRun run = padded.window.runs[r];
    Vector<T> part[kSums] = {}; // short sums first: long ones lose digits
    for (int64_t n = 0; n < run.count; ++n) {
      const int64_t neighbour = at + run.delta + n;
      const Vector<T> k = kernel.at(run.first + n, neighbour);
      for (int c = 0; c < kSums; ++c) {
        part[c] = multiply_add(k, load_vector(x[c] + neighbour), part[c]);
      }
    }
    for (int c = 0; c < kSums; ++c) total[c] = total[c] + part[c];
  }
  for (int c = 0; c < kSums; ++c) sums[c] = total[c];
}

template <class T, class Kernel>
void window_sums(int count, const Padded<T>& padded, const Kernel& kernel, const T* const* x,
                 int64_t at, Vector<T>* sums) {
  static_assert(cpu::kGatedCrfSums == 5, "one case for each number of sums");
  switch (count) {
    case 1: return window_sums<1>(padded, kernel, x, at, sums);
    case 2: return window_sums<2>(padded, kernel, x, at, sums);
    case 3: return window_sums<3>(padded, kernel, x, at, sums);
    case 4: return window_sums<4>(padded, kernel, x, at, sums);
    default: return window_sums<5>(padded, kernel, x, at, sums);
  }
}

} // namespace ACCL_ISA
} // namespace accl
