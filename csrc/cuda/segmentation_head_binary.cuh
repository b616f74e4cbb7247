// C = 1: forward sums and gradient of a chunk of an image.
#pragma once

#include "segmentation_head_finish.cuh"
#include "segmentation_head_labels.cuh"

namespace accl {
namespace cuda {

// A thread has two vectors, so that one is on its way from memory while the other is worked on.
template <class In>
using BinaryTile = Tile<2, kWidthOf<In>>;

// The bits of labelled_pixels() that belong to vector v.
template <class AnyTile>
__device__ __forceinline__ unsigned of_vector(unsigned pixels, int v) {
  return pixels >> (v * AnyTile::kWidth) & ((1u << AnyTile::kWidth) - 1);
}

// The arrays of pixels are all [B, N]: element `row` + n is pixel n of the image.
template <class In>
struct BinaryForward {
  typedef Accumulation<In> T;

  const SegmentationHeadForward& a;
  const PixelPlan& plan;
  const int64_t row;
  const bool dense; // every logit is read, not only those of labelled pixels
  T size = T(0);
  LabelSums<T> sums;

  __device__ BinaryForward(const SegmentationHeadForward& arguments, const PixelPlan& p, int64_t i)
      : a(arguments), plan(p), row(i * a.pixels), dense(a.probabilities || a.soft_size) {}

  template <class Pixels, int kWidth>
  __device__ __forceinline__ void load(const Pixels& tile, int v, In (&z)[kWidth]) const {
    tile.load(static_cast<const In*>(a.logits) + row, v, narrow<In>(T(0)), z);
  }

  template <class Pixels, int kWidth>
  __device__ __forceinline__ void probabilities(const Pixels& tile, int v, const In (&z)[kWidth]) {
    In p[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const T s = sigmoid(logistic_of<In>(widen(z[j])));
      if (tile.holds(v, j)) size += s;
      p[j] = narrow<In>(s);
    }
    if (a.probabilities) tile.store(static_cast<In*>(a.probabilities) + row, v, p);
  }

  __device__ __forceinline__ T pixel_loss(const Logistic<T>& l, int32_t code) const {
    if (!plan.smooths) return binary_cross_entropy(l, code == 1);
    const SmoothedLabel<T> label(a, plan, code);
    return smoothed_binary_cross_entropy(l, label.factor(0), label.factor(1));
  }

  template <class Pixels, int kWidth>
  __device__ __forceinline__ void cross_entropy(const Pixels& tile, int v, const In (&z)[kWidth],
                                                unsigned labelled) {
    T loss[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      loss[j] = T(0);
      if (!(labelled >> j & 1)) continue;
      const PixelLabel<T> label(a, plan, row + tile.at(v) + j);
      loss[j] = sums.add(label, pixel_loss(logistic_of<In>(widen(z[j])), label.code));
    }
    if (maps_losses(a)) tile.store(static_cast<T*>(a.ce) + row, v, loss);
  }

  template <class Pixels>
  __device__ __forceinline__ void add(const Pixels& tile) {
    constexpr int kVectors = Pixels::kVectors;
    In z[kVectors][Pixels::kWidth];
    if (dense) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) load(tile, v, z[v]);
    }
    const unsigned labelled = a.labels ? labelled_pixels(plan.labels, row, tile) : 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const unsigned some = of_vector<Pixels>(labelled, v);
      if (dense) {
        probabilities(tile, v, z[v]);
      } else if (some) {
        load(tile, v, z[v]);
      }
      if (some || maps_losses(a)) cross_entropy(tile, v, z[v], some);
    }
  }
};

template <class In>
__global__ void __launch_bounds__(kThreads, resident(sizeof(In) == 8 ? 8 : 10))
    binary_forward(const __grid_constant__ SegmentationHeadForward a,
                   const __grid_constant__ PixelPlan plan) {
  typedef Accumulation<In> T;
  for (int64_t i = blockIdx.x; i < plan.units; i += gridDim.x) {
    const Unit unit = unit_of(a, plan, i);
    BinaryForward<In> work(a, plan, unit.image);
    for_tiles<BinaryTile<In>>(unit.begin, unit.end, plan.aligned,
                              [&](const auto& tile) { work.add(tile); });
    T sums[3] = {work.size, work.sums.loss, work.sums.weight};
    block_sum(sums);
    if (threadIdx.x != 0) continue;
    T* to = chunk_sums_of_image<T>(a, plan.chunks, unit.image) + unit.chunk;
    if (a.soft_size) *to = sums[0], to += plan.chunks.count;
    if (a.labels) to[0] = sums[1], to[plan.chunks.count] = sums[2];
  }
  if (is_last_block(a.ticket)) finish<T>(a, plan.chunks);
}

template <class In>
struct BinaryBackward {
  typedef Accumulation<In> T;

  const SegmentationHeadBackward& a;
  const PixelPlan& plan;
  const int64_t image, row;
  const bool dense;       // a gradient comes through the probabilities or the soft sizes
  const T size_gradient;

  __device__ BinaryBackward(const SegmentationHeadBackward& arguments, const PixelPlan& p,
                            int64_t i)
      : a(arguments),
        plan(p),
        image(i),
        row(i * a.pixels),
        dense(a.grad_probabilities || a.grad_soft_size || a.grad_penalty),
        size_gradient(row_gradient<T>(a, i, 0)) {}

  template <class Pixels, int kWidth>
  __device__ __forceinline__ void load(const Pixels& tile, const void* from, int v,
                                       In (&x)[kWidth]) const {
    tile.load(static_cast<const In*>(from) + row, v, narrow<In>(T(0)), x);
  }

  __device__ __forceinline__ T pixel_slope(const Logistic<T>& l, int32_t code) const {
    if (!plan.smooths) return binary_cross_entropy_slope(l, code == 1);
    return SmoothedLabel<T>(a, plan, code).slope(1, sigmoid(l), sigmoid_complement(l));
  }

  template <class Pixels>
  __device__ __forceinline__ void write(const Pixels& tile) const {
    constexpr int kVectors = Pixels::kVectors, kWidth = Pixels::kWidth;
    In z[kVectors][kWidth], g[kVectors][kWidth];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) { // all loads start before the first value is used
#pragma unroll
      for (int j = 0; j < kWidth; ++j) g[v][j] = narrow<In>(T(0));
      if (dense) load(tile, a.logits, v, z[v]);
      if (a.grad_probabilities) load(tile, a.grad_probabilities, v, g[v]);
    }
    const unsigned labelled = a.grad_ce ? labelled_pixels(plan.labels, row, tile) : 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const unsigned some = of_vector<Pixels>(labelled, v);
      if (some && !dense) load(tile, a.logits, v, z[v]);
      In grad[kWidth];
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        T slope = T(0);
        if (dense) {
          slope = sigmoid_slope(logistic_of<In>(widen(z[v][j]))) * (widen(g[v][j]) + size_gradient);
        }
        if (some >> j & 1) {
          const PixelLabel<T> label = label_with_gradient<T>(a, plan, image, row + tile.at(v) + j);
          slope += times(label.factor, pixel_slope(logistic_of<In>(widen(z[v][j])), label.code));
        }
        grad[j] = narrow<In>(slope);
      }
      tile.store(static_cast<In*>(a.grad_logits) + row, v, grad);
    }
  }
};

template <class In>
__global__ void __launch_bounds__(kThreads, resident(sizeof(In) == 2 ? 12 : 10))
    binary_backward(const __grid_constant__ SegmentationHeadBackward a,
                    const __grid_constant__ PixelPlan plan) {
  for (int64_t i = blockIdx.x; i < plan.units; i += gridDim.x) {
    const Unit unit = unit_of(a, plan, i);
    const BinaryBackward<In> work(a, plan, unit.image);
    for_tiles<BinaryTile<In>>(unit.begin, unit.end, plan.aligned,
                              [&](const auto& tile) { work.write(tile); });
  }
}

} // namespace cuda
} // namespace accl
