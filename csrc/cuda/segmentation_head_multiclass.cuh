// C = 2 to 8 (float64: to 4): a thread keeps the logits of all classes of its pixels in registers,
// so that memory is read once.
#pragma once

#include "../math/softmax.h"
#include "segmentation_head_finish.cuh"
#include "segmentation_head_labels.cuh"

namespace accl {
namespace cuda {

template <class In>
using MulticlassTile = Tile<1, kWidthOf<In>>;

// True if class c exists, of the kClasses for which a kernel has room. with_kernel_classes() takes
// the smallest kernel that fits, so the compiler knows of most classes that they exist.
template <class In, int kClasses>
__device__ __forceinline__ bool has_class(const SegmentationHeadArguments& a, int c) {
  constexpr int kLeast = sizeof(In) == 8 ? 2 : kClasses / 2 + (kClasses > 2);
  return c < kLeast || c < a.classes;
}

// Loads the logits, or another array [B, C, N], of a thread's pixels. Classes that do not exist get
// `no_class`.
template <class In, int kClasses, class Pixels>
__device__ __forceinline__ void load_classes(const SegmentationHeadArguments& a, const void* base,
                                             int64_t image, const Pixels& tile,
                                             Accumulation<In> no_class,
                                             In (&x)[kClasses][Pixels::kWidth]) {
  const In* row = row_of<const In>(a, base, image, 0);
#pragma unroll
  for (int c = 0; c < kClasses; ++c, row += a.pixels) {
    if (has_class<In, kClasses>(a, c)) {
      tile.load(row, 0, narrow<In>(Accumulation<In>(0)), x[c]);
    } else {
#pragma unroll
      for (int j = 0; j < Pixels::kWidth; ++j) x[c][j] = narrow<In>(no_class);
    }
  }
}

template <class In, int kClasses, class Pixels>
__device__ __forceinline__ void store_classes(const SegmentationHeadArguments& a, void* base,
                                              int64_t image, const Pixels& tile,
                                              const In (&x)[kClasses][Pixels::kWidth]) {
  In* row = row_of<In>(a, base, image, 0);
#pragma unroll
  for (int c = 0; c < kClasses; ++c, row += a.pixels) {
    if (has_class<In, kClasses>(a, c)) tile.store(row, 0, x[c]);
  }
}

// Entry `at` of an array that stays in registers, or the last entry if `at` is larger. An index
// known only at run time would need addresses, which registers do not have.
template <class T, int kCount>
__device__ __forceinline__ T pick(const T (&x)[kCount], int at) {
  T picked = x[kCount - 1];
#pragma unroll
  for (int i = 0; i < kCount - 1; ++i) picked = select(at == i, x[i], picked);
  return picked;
}

// Softmax of one pixel; see math/softmax.h.
template <class T, int kClasses>
struct Softmax {
  T top;
  int top_class;
  T e[kClasses];
  T other[kClasses]; // e, but 0 for the top class
  T others;
};

template <class In, int kClasses>
__device__ __forceinline__ Softmax<Accumulation<In>, kClasses> softmax_of(
    const Accumulation<In> (&z)[kClasses]) {
  typedef Accumulation<In> T;
  T top = z[0], others = T(0);
  int top_class = 0;
#pragma unroll
  for (int c = 1; c < kClasses; ++c) {
    const bool larger = z[c] > top;
    top = select(larger, z[c], top), top_class = select(larger, c, top_class);
  }
  Softmax<T, kClasses> softmax;
#pragma unroll
  for (int c = 0; c < kClasses; ++c) {
    const T e = exponential<In>(z[c] - top);
    const T other = select(top_class == c, T(0), e);
    others += other;
    softmax.e[c] = e, softmax.other[c] = other;
  }
  softmax.top = top, softmax.top_class = top_class;
  softmax.others = others + (top - top); // NaN for an infinite or NaN logit on top
  return softmax;
}

template <class In, int kClasses>
struct MulticlassForward {
  typedef Accumulation<In> T;

  const SegmentationHeadForward& a;
  const PixelPlan& plan;
  const int64_t image;
  const bool dense; // every logit is read, not only those of labelled pixels
  T size[kClasses] = {};
  LabelSums<T> sums;

  __device__ MulticlassForward(const SegmentationHeadForward& arguments, const PixelPlan& p,
                               int64_t i)
      : a(arguments), plan(p), image(i), dense(a.probabilities || a.soft_size) {}

  __device__ __forceinline__ T smoothed(int32_t code, const T (&z)[kClasses],
                                        const Softmax<T, kClasses>& softmax) const {
    const SmoothedLabel<T> label(a, plan, code);
    T loss = times(label.all_factors(), log1p_(softmax.others));
#pragma unroll
    for (int c = 0; c < kClasses; ++c) {
      if (has_class<In, kClasses>(a, c))
        loss += smoothed_softmax_term(label.factor(c), z[c], softmax.top);
    }
    return loss;
  }

  __device__ __forceinline__ T cross_entropy(int64_t pixel, const T (&z)[kClasses],
                                             const Softmax<T, kClasses>& softmax) {
    const PixelLabel<T> label(a, plan, image * a.pixels + pixel);
    if (plan.smooths) return sums.add(label, smoothed(label.code, z, softmax));
    const T of_label = pick(z, label.code < 0 ? 0 : label.code);
    return sums.add(label, softmax_cross_entropy(of_label, softmax.top, softmax.others));
  }

  template <class Pixels>
  __device__ __forceinline__ void add(const Pixels& tile) {
    constexpr int kWidth = Pixels::kWidth;
    const unsigned labelled = a.labels ? labelled_pixels(plan.labels, image * a.pixels, tile) : 0;
    T loss[kWidth] = {};
    if (dense || labelled) {
      In x[kClasses][kWidth]; // logits, then probabilities
      load_classes<In>(a, a.logits, image, tile, T(-INFINITY), x);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        T z[kClasses];
#pragma unroll
        for (int c = 0; c < kClasses; ++c) z[c] = widen(x[c][j]);
        const Softmax<T, kClasses> softmax = softmax_of<In>(z);
        const T scale = softmax_scale(softmax.others);
#pragma unroll
        for (int c = 0; c < kClasses; ++c) {
          const T p = softmax.e[c] * scale;
          size[c] += p;
          x[c][j] = narrow<In>(p);
        }
        if (labelled >> j & 1) loss[j] = cross_entropy(tile.at(0) + j, z, softmax);
      }
      if (a.probabilities) store_classes<In>(a, a.probabilities, image, tile, x);
    }
    if (maps_losses(a)) tile.store(static_cast<T*>(a.ce) + image * a.pixels, 0, loss);
  }
};

template <class In, int kClasses>
__global__ void __launch_bounds__(kThreads)
    multiclass_forward(const __grid_constant__ SegmentationHeadForward a,
                       const __grid_constant__ PixelPlan plan) {
  typedef Accumulation<In> T;
  for (int64_t i = blockIdx.x; i < plan.units; i += gridDim.x) {
    const Unit unit = unit_of(a, plan, i);
    MulticlassForward<In, kClasses> work(a, plan, unit.image);
    for_tiles<MulticlassTile<In>>(unit.begin, unit.end, plan.aligned,
                                  [&](const auto& tile) { work.add(tile); });
    T sums[kClasses + 2];
#pragma unroll
    for (int c = 0; c < kClasses; ++c) sums[c] = work.size[c];
    sums[kClasses] = work.sums.loss, sums[kClasses + 1] = work.sums.weight;
    block_sum(sums);
    if (threadIdx.x != 0) continue;
    T* to = chunk_sums_of_image<T>(a, plan.chunks, unit.image) + unit.chunk;
#pragma unroll
    for (int c = 0; c < kClasses; ++c) {
      if (a.soft_size && has_class<In, kClasses>(a, c)) *to = sums[c], to += plan.chunks.count;
    }
    if (a.labels) to[0] = sums[kClasses], to[plan.chunks.count] = sums[kClasses + 1];
  }
  if (is_last_block(a.ticket)) finish<T>(a, plan.chunks);
}

template <class In, int kClasses>
struct MulticlassBackward {
  typedef Accumulation<In> T;

  const SegmentationHeadBackward& a;
  const PixelPlan& plan;
  const int64_t image;
  const T* const rows; // [C], gradients of the soft sizes, in shared memory
  const bool dense;    // a gradient comes through the probabilities or the soft sizes

  __device__ MulticlassBackward(const SegmentationHeadBackward& arguments, const PixelPlan& p,
                                int64_t i, const T* row_gradients)
      : a(arguments),
        plan(p),
        image(i),
        rows(row_gradients),
        dense(a.grad_probabilities || a.grad_soft_size || a.grad_penalty) {}

  // Gradient of one pixel's logits from `g`, that of its probabilities.
  __device__ __forceinline__ void through_probabilities(const Softmax<T, kClasses>& softmax,
                                                        T scale, const T (&g)[kClasses],
                                                        T (&grad)[kClasses]) const {
    const T top = pick(g, softmax.top_class);
    T dot = T(0);
#pragma unroll
    for (int c = 0; c < kClasses; ++c) dot += softmax.other[c] * (g[c] - top);
#pragma unroll
    for (int c = 0; c < kClasses; ++c) {
      grad[c] = softmax_pullback(softmax.e[c] * scale, g[c] - top, dot * scale);
    }
  }

  __device__ __forceinline__ void through_cross_entropy(int64_t pixel,
                                                        const Softmax<T, kClasses>& softmax,
                                                        T scale, T (&grad)[kClasses]) const {
    const PixelLabel<T> label = label_with_gradient<T>(a, plan, image, image * a.pixels + pixel);
    const auto add = [&](const auto& slope) {
#pragma unroll
      for (int c = 0; c < kClasses; ++c) {
        const T e = softmax.e[c];
        const T rest = softmax.top_class == c ? softmax.others : T(1) + softmax.others - e;
        if (has_class<In, kClasses>(a, c)) grad[c] += times(label.factor, slope(c, e, rest));
      }
    };
    if (!plan.smooths) {
      add([&](int c, T e, T rest) {
        return softmax_cross_entropy_slope(label.code == c, e, rest, scale);
      });
    } else {
      const SmoothedLabel<T> smoothed(a, plan, label.code);
      add([&](int c, T e, T rest) { return smoothed.slope(c, e * scale, rest * scale); });
    }
  }

  template <class Pixels>
  __device__ __forceinline__ void write(const Pixels& tile) const {
    constexpr int kWidth = Pixels::kWidth;
    const unsigned labelled = a.grad_ce ? labelled_pixels(plan.labels, image * a.pixels, tile) : 0;
    In x[kClasses][kWidth]; // logits, then gradients
    if (dense || labelled) {
      In incoming[kClasses][kWidth] = {};
      load_classes<In>(a, a.logits, image, tile, T(-INFINITY), x);
      if (a.grad_probabilities) {
        load_classes<In>(a, a.grad_probabilities, image, tile, T(0), incoming);
      }
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        T z[kClasses], g[kClasses], grad[kClasses] = {};
#pragma unroll
        for (int c = 0; c < kClasses; ++c) {
          z[c] = widen(x[c][j]);
          g[c] = widen(incoming[c][j]) + rows[c];
        }
        const Softmax<T, kClasses> softmax = softmax_of<In>(z);
        const T scale = softmax_scale(softmax.others);
        if (dense) through_probabilities(softmax, scale, g, grad);
        if (labelled >> j & 1) through_cross_entropy(tile.at(0) + j, softmax, scale, grad);
#pragma unroll
        for (int c = 0; c < kClasses; ++c) x[c][j] = narrow<In>(grad[c]);
      }
    } else {
#pragma unroll
      for (int c = 0; c < kClasses; ++c) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) x[c][j] = narrow<In>(T(0));
      }
    }
    store_classes<In>(a, a.grad_logits, image, tile, x);
  }
};

template <class In, int kClasses>
__global__ void __launch_bounds__(kThreads)
    multiclass_backward(const __grid_constant__ SegmentationHeadBackward a,
                        const __grid_constant__ PixelPlan plan) {
  typedef Accumulation<In> T;
  ACCL_SHARED(T, rows, kClasses);
  for (int64_t i = blockIdx.x; i < plan.units; i += gridDim.x) {
    const Unit unit = unit_of(a, plan, i);
    if (threadIdx.x < kClasses) {
      rows[threadIdx.x] =
          int(threadIdx.x) < a.classes ? row_gradient<T>(a, unit.image, threadIdx.x) : T(0);
    }
    __syncthreads(); // the rows' gradients are written before any thread uses them
    const MulticlassBackward<In, kClasses> work(a, plan, unit.image, rows);
    for_tiles<MulticlassTile<In>>(unit.begin, unit.end, plan.aligned,
                                  [&](const auto& tile) { work.write(tile); });
    __syncthreads(); // all are used before the next image's overwrite them
  }
}

} // namespace cuda
} // namespace accl
