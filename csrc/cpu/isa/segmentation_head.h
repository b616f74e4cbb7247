// Up to sixteen pixels of a block, neighbours or picked by position, and their softmax.
#pragma once

#include "../../math/softmax.h"
#include "exp_log.h"
#include "memory.h"

namespace accl {
namespace ACCL_ISA {

// Neighbours [at, at + n), n <= 16.
struct Run {
  int at;
  int n;

  template <class In>
  ACCL_INLINE Lanes<Accumulation<In>> read(const In* block, float padding = 0) const {
    return load_some(block + at, n, padding);
  }
  template <class In>
  ACCL_INLINE void write(In* block, const Lanes<Accumulation<In>>& x) const {
    store_some(block + at, x, n);
  }
};

// Calls function(Run) over a block. The compiler knows that all runs but the last have 16 pixels.
template <class Function>
ACCL_HD void for_runs(int count, const Function& function) {
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) function(Run{i, kLanes});
  if (i < count) function(Run{i, count - i});
}

// Pixels at[0], ..., at[n - 1], n <= 16.
struct Picked {
  const int16_t* at;
  int n;

  template <class In>
  ACCL_INLINE Lanes<Accumulation<In>> read(const In* block) const {
    In values[kLanes] = {};
    for (int i = 0; i < n; ++i) values[i] = block[at[i]];
    return load(values);
  }
  template <class In>
  ACCL_INLINE void write(In* block, const Lanes<Accumulation<In>>& x) const {
    In values[kLanes];
    store(values, x);
    for (int i = 0; i < n; ++i) block[at[i]] = values[i];
  }
};

template <class T>
struct Softmax {
  Lanes<T> top;       // largest logit
  Lanes<T> top_class; // its first class
  Lanes<T> others;    // sum of exp(z - top) over the other classes
  Lanes<T> scale;     // 1 / (1 + others)

  ACCL_INLINE Mask<T> is_top(int64_t c) const { return top_class == Lanes<T>(T(c)); }
  // e with 0 for the top class. That 0 is NaN if a logit is NaN or the top is infinite.
  ACCL_INLINE Lanes<T> without_top(int64_t c, const Lanes<T>& e) const {
    return select(is_top(c), e - e, e);
  }
};

// block: the logits of class 0; those of class c lie c * stride further.
// exponentials [classes, 16] receives exp(z - top).
template <class In, class Pixels, class T>
ACCL_HD Softmax<T> softmax(const In* block, int64_t stride, int64_t classes, const Pixels& pixels,
                           T* exponentials) {
  Softmax<T> s;
  s.top = pixels.read(block);
  s.top_class = Lanes<T>(0);
  store(exponentials, s.top);
  for (int64_t c = 1; c < classes; ++c) {
    const Lanes<T> z = pixels.read(block + c * stride);
    store(exponentials + c * kLanes, z);
    const Mask<T> above = z > s.top;
    s.top = select(above, z, s.top);
    s.top_class = select(above, Lanes<T>(T(c)), s.top_class);
  }
  s.others = Lanes<T>(0);
  for (int64_t c = 0; c < classes; ++c) {
    const Lanes<T> e = softmax_exponential(load(exponentials + c * kLanes), s.top);
    store(exponentials + c * kLanes, e);
    s.others = s.others + s.without_top(c, e);
  }
  s.scale = softmax_scale(s.others);
  return s;
}

} // namespace ACCL_ISA
} // namespace accl
