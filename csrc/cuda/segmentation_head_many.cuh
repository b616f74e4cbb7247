// C > 8: the logits of a pixel do not fit the registers of a thread. They are read twice: once for
// the largest and the sum of the exponentials, once for what follows from them.
#pragma once

#include "../math/softmax.h"
#include "segmentation_head_finish.cuh"
#include "segmentation_head_labels.cuh"

namespace accl {
namespace cuda {

template <class In>
using ManyTile = Tile<1, kWidthOf<In>>;

template <class In, class Pixels>
__device__ __forceinline__ void load_wide(const SegmentationHeadArguments& a, const void* base,
                                          int64_t image, int64_t c, const Pixels& tile,
                                          Accumulation<In> (&x)[Pixels::kWidth]) {
  In raw[Pixels::kWidth];
  tile.load(row_of<const In>(a, base, image, c), 0, narrow<In>(Accumulation<In>(0)), raw);
#pragma unroll
  for (int j = 0; j < Pixels::kWidth; ++j) x[j] = widen(raw[j]);
}

// exp(-|z - top|), and 1 where both are equal: the difference of equal infinities is NaN.
template <class In>
__device__ __forceinline__ Accumulation<In> exponential_apart(Accumulation<In> z,
                                                              Accumulation<In> top) {
  return z == top ? Accumulation<In>(1) : exponential<In>(-abs_(z - top));
}

constexpr int kClassGroup = 32; // classes whose sums are in shared memory at a time

template <class In>
struct ManyForward {
  typedef Accumulation<In> T;
  typedef ManyTile<In> Pixels;
  static constexpr int kWidth = Pixels::kWidth;

  const SegmentationHeadForward& a;
  const PixelPlan& plan;
  const int64_t image;
  T* const chunk_sums;       // [sums, chunks] at this chunk
  const int64_t chunk_count; // stride of chunk_sums
  const bool dense;          // every logit is read, not only those of labelled pixels
  LabelSums<T> sums;

  __device__ ManyForward(const SegmentationHeadForward& arguments, const PixelPlan& p,
                         const Unit& unit)
      : a(arguments),
        plan(p),
        image(unit.image),
        chunk_sums(chunk_sums_of_image<T>(a, plan.chunks, unit.image) + unit.chunk),
        chunk_count(plan.chunks.count),
        dense(a.probabilities || a.soft_size) {}

  // The largest logit and the sum of the other exponentials, of each pixel.
  __device__ __forceinline__ void reduce_classes(const Pixels& tile, T (&top)[kWidth],
                                                 T (&others)[kWidth]) const {
    load_wide<In>(a, a.logits, image, 0, tile, top);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) others[j] = T(0);
#pragma unroll 2
    for (int32_t c = 1; c < a.classes; ++c) {
      T z[kWidth];
      load_wide<In>(a, a.logits, image, c, tile, z);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        softmax_join(z[j], exponential_apart<In>(z[j], top[j]), top[j], others[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) others[j] += top[j] - top[j]; // NaN if the top is infinite
  }

  __device__ __forceinline__ T cross_entropy(int64_t pixel, T top, T others) {
    const PixelLabel<T> label(a, plan, image * a.pixels + pixel);
    const auto logit = [&](int64_t c) {
      return widen(row_of<const In>(a, a.logits, image, c)[pixel]);
    };
    if (!plan.smooths) {
      const T of_label = logit(label.code < 0 ? 0 : label.code);
      return sums.add(label, softmax_cross_entropy(of_label, top, others));
    }
    const SmoothedLabel<T> smoothed(a, plan, label.code);
    T loss = times(smoothed.all_factors(), log1p_(others));
#pragma unroll 1
    for (int32_t c = 0; c < a.classes; ++c) {
      loss += smoothed_softmax_term(smoothed.factor(c), logit(c), top);
    }
    return sums.add(label, loss);
  }

  // Probabilities of all classes. Their sums over the tile are added to those of earlier tiles.
  __device__ __forceinline__ void probabilities(const Pixels& tile, bool first,
                                                const T (&top)[kWidth],
                                                const T (&scale)[kWidth]) const {
    ACCL_SHARED(T, of_warp, kClassGroup * kWarps);
    for (int64_t group = 0; group < a.classes; group += kClassGroup) {
      const int count = int(a.classes - group < kClassGroup ? a.classes - group : kClassGroup);
      __syncthreads(); // the sums of the group before are read before this one's overwrite them
      for (int i = 0; i < count; ++i) {
        T z[kWidth], size = T(0);
        In p[kWidth];
        load_wide<In>(a, a.logits, image, group + i, tile, z);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          const T s = exponential<In>(z[j] - top[j]) * scale[j];
          size += s;
          p[j] = narrow<In>(s);
        }
        if (a.probabilities) tile.store(row_of<In>(a, a.probabilities, image, group + i), 0, p);
        size = warp_sum(size);
        if (threadIdx.x % kWarp == 0) of_warp[i * kWarps + threadIdx.x / kWarp] = size;
      }
      if (!a.soft_size) continue;
      __syncthreads(); // every warp's sums are written before any thread adds them
      for (int i = threadIdx.x; i < count; i += kThreads) {
        T* const to = chunk_sums + (group + i) * chunk_count;
        T size = first ? T(0) : *to; // which this same thread wrote
        for (int warp = 0; warp < kWarps; ++warp) size += of_warp[i * kWarps + warp];
        *to = size;
      }
    }
  }

  __device__ __forceinline__ void add(const Pixels& tile, bool first) {
    const unsigned labelled = a.labels ? labelled_pixels(plan.labels, image * a.pixels, tile) : 0;
    T top[kWidth] = {}, others[kWidth] = {}, scale[kWidth], loss[kWidth] = {};
    if (dense || labelled) reduce_classes(tile, top, others);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      if (labelled >> j & 1) loss[j] = cross_entropy(tile.at(0) + j, top[j], others[j]);
      scale[j] = tile.holds(0, j) ? softmax_scale(others[j]) : T(0);
    }
    if (maps_losses(a)) tile.store(static_cast<T*>(a.ce) + image * a.pixels, 0, loss);
    if (dense) probabilities(tile, first, top, scale);
  }
};

template <class In>
__global__ void __launch_bounds__(kThreads, resident(sizeof(In) == 8 ? 7 : 10))
    many_forward(const __grid_constant__ SegmentationHeadForward a,
                 const __grid_constant__ PixelPlan plan) {
  typedef Accumulation<In> T;
  for (int64_t i = blockIdx.x; i < plan.units; i += gridDim.x) {
    const Unit unit = unit_of(a, plan, i);
    ManyForward<In> work(a, plan, unit);
    for (int64_t at = unit.begin; at < unit.end; at += ManyTile<In>::kElements) {
      work.add(ManyTile<In>(at, unit.end, plan.aligned), at == unit.begin);
    }
    if (!a.labels) continue;
    T sums[2] = {work.sums.loss, work.sums.weight};
    block_sum(sums);
    if (threadIdx.x != 0) continue;
    T* const to = work.chunk_sums + sizes_of_image(a) * plan.chunks.count;
    to[0] = sums[0], to[plan.chunks.count] = sums[1];
  }
  if (is_last_block(a.ticket)) finish<T>(a, plan.chunks);
}

// A block computes the gradients of this many rows once, and those of further rows at every use.
constexpr int kKeptRows = 256;

template <class In>
struct ManyBackward {
  typedef Accumulation<In> T;
  typedef ManyTile<In> Pixels;
  static constexpr int kWidth = Pixels::kWidth;

  const SegmentationHeadBackward& a;
  const PixelPlan& plan;
  const int64_t image;
  const T* const kept; // [kKeptRows], gradients of the soft sizes, in shared memory
  const bool dense;    // a gradient comes through the probabilities or the soft sizes

  __device__ ManyBackward(const SegmentationHeadBackward& arguments, const PixelPlan& p, int64_t i,
                          const T* row_gradients)
      : a(arguments),
        plan(p),
        image(i),
        kept(row_gradients),
        dense(a.grad_probabilities || a.grad_soft_size || a.grad_penalty) {}

  // Gradient of class c's probabilities: the incoming map, plus the gradient of the soft size V.
  __device__ __forceinline__ void load_gradient(const Pixels& tile, int32_t c,
                                                T (&g)[kWidth]) const {
    const T row = c < kKeptRows ? kept[c] : row_gradient<T>(a, image, c);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) g[j] = T(0);
    if (a.grad_probabilities) load_wide<In>(a, a.grad_probabilities, image, c, tile, g);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) g[j] += row;
  }

  // Sums over the classes of a pixel; see math/softmax.h.
  struct Reduced {
    T top, others;
    int32_t top_class;
    T top_grad; // of the probability of the top class
    T dot;      // sum of exp(z_k - top) (grad_k - top_grad)
  };

  __device__ __forceinline__ void reduce_classes(const Pixels& tile,
                                                 Reduced (&reduced)[kWidth]) const {
    T z[kWidth], g[kWidth] = {};
    load_wide<In>(a, a.logits, image, 0, tile, z);
    if (dense) load_gradient(tile, 0, g);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) reduced[j] = {z[j], T(0), 0, g[j], T(0)};
    for (int32_t c = 1; c < a.classes; ++c) {
      load_wide<In>(a, a.logits, image, c, tile, z);
      if (dense) load_gradient(tile, c, g);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        Reduced& r = reduced[j];
        const T e = exponential_apart<In>(z[j], r.top);
        const bool is_top = z[j] > r.top;
        softmax_join(z[j], e, r.top, r.others);
        if (is_top) {
          r.dot = r.dot * e + r.others * (r.top_grad - g[j]);
          r.top_grad = g[j], r.top_class = c;
        } else {
          r.dot += e * (g[j] - r.top_grad);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      reduced[j].others += reduced[j].top - reduced[j].top; // NaN if the top is infinite
    }
  }

  __device__ __forceinline__ T pixel_slope(int32_t code, int32_t c, T e, T rest, T scale) const {
    if (!plan.smooths) return softmax_cross_entropy_slope(code == c, e, rest, scale);
    return SmoothedLabel<T>(a, plan, code).slope(c, e * scale, rest * scale);
  }

  __device__ __forceinline__ void write(const Pixels& tile) const {
    const unsigned labelled = a.grad_ce ? labelled_pixels(plan.labels, image * a.pixels, tile) : 0;
    Reduced reduced[kWidth];
    PixelLabel<T> label[kWidth];
    if (dense || labelled) {
      reduce_classes(tile, reduced);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (!(labelled >> j & 1)) continue;
        label[j] = label_with_gradient<T>(a, plan, image, image * a.pixels + tile.at(0) + j);
      }
    }
    for (int32_t c = 0; c < a.classes; ++c) {
      In narrowed[kWidth];
      T z[kWidth], g[kWidth] = {}, grad[kWidth] = {};
      if (dense || labelled) load_wide<In>(a, a.logits, image, c, tile, z);
      if (dense) load_gradient(tile, c, g);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (dense || labelled) {
          const Reduced& r = reduced[j];
          const T e = exponential<In>(z[j] - r.top), scale = softmax_scale(r.others);
          if (dense) grad[j] = softmax_pullback(e * scale, g[j] - r.top_grad, r.dot * scale);
          if (labelled >> j & 1) {
            const T rest = r.top_class == c ? r.others : T(1) + r.others - e;
            grad[j] += times(label[j].factor, pixel_slope(label[j].code, c, e, rest, scale));
          }
        }
        narrowed[j] = narrow<In>(grad[j]);
      }
      tile.store(row_of<In>(a, a.grad_logits, image, c), 0, narrowed);
    }
  }
};

template <class In>
__global__ void __launch_bounds__(kThreads)
    many_backward(const __grid_constant__ SegmentationHeadBackward a,
                  const __grid_constant__ PixelPlan plan) {
  typedef Accumulation<In> T;
  ACCL_SHARED(T, kept, kKeptRows);
  for (int64_t i = blockIdx.x; i < plan.units; i += gridDim.x) {
    const Unit unit = unit_of(a, plan, i);
    for (int c = threadIdx.x; c < kKeptRows && c < a.classes; c += kThreads) {
      kept[c] = row_gradient<T>(a, unit.image, c);
    }
    __syncthreads(); // the rows' gradients are written before any thread uses them
    const ManyBackward<In> work(a, plan, unit.image, kept);
    for (int64_t at = unit.begin; at < unit.end; at += ManyTile<In>::kElements) {
      work.write(ManyTile<In>(at, unit.end, plan.aligned));
    }
    __syncthreads(); // all are used before the next image's overwrite them
  }
}

} // namespace cuda
} // namespace accl
