// The end of the forward kernels on pixels, where the last block makes the sums of the chunks into
// soft sizes, cross-entropy and penalty, and into the scales that backward needs.
#pragma once

#include "reduce.cuh"
#include "segmentation_head.cuh"

namespace accl {
namespace cuda {

// The number of sums of an image. They are, in this order and as far as they are wanted: soft size
// of each class, cross-entropy, weight.
__device__ __forceinline__ int64_t sizes_of_image(const SegmentationHeadForward& a) {
  return a.soft_size ? a.classes : 0;
}
__device__ __forceinline__ int64_t sums_of_image(const SegmentationHeadForward& a) {
  return sizes_of_image(a) + (a.labels ? 2 : 0);
}

// a.scratch holds the sums of the chunks, [B, sums, chunks], then the cross-entropy and the weight
// of each image, [B, 2], which the last block adds up.
template <class T>
__device__ __forceinline__ T* chunk_sums_of_image(const SegmentationHeadForward& a,
                                                  const Chunks& chunks, int64_t image) {
  return static_cast<T*>(a.scratch) + image * sums_of_image(a) * chunks.count;
}

template <class T>
__device__ void finish_cross_entropy(const SegmentationHeadForward& a, const T* images) {
  T batch[2] = {T(0), T(0)}; // weight, images that have any
  for (int64_t image = threadIdx.x; image < a.images; image += kThreads) {
    const T weight = images[2 * image + 1];
    batch[0] += weight;
    batch[1] += T(weight != T(0));
  }
  block_sum(batch);
  T loss[1] = {T(0)};
  for (int64_t image = threadIdx.x; image < a.images; image += kThreads) {
    const T sum = images[2 * image];
    const T scale =
        cross_entropy_scale(a.ce_reduction, images[2 * image + 1], batch[0], int64_t(batch[1]));
    static_cast<T*>(a.ce_scale)[image] = scale;
    // A NaN shows even where the weights add to 0: the label was invalid.
    if (scale != T(0)) {
      loss[0] += sum * scale;
    } else if (sum != sum) {
      loss[0] = sum;
    }
  }
  block_sum(loss);
  if (threadIdx.x == 0 && a.ce_reduction != Reduction::kNone) *static_cast<T*>(a.ce) = loss[0];
}

template <class T>
__device__ void finish_penalty(const SegmentationHeadForward& a) {
  const T* const sizes = static_cast<const T*>(a.soft_size);
  const T pair_scale = size_scale<T>(a.normalization, a.pixels, Reduction::kNone, 1);
  T batch[2] = {T(0), T(0)}; // squared excess, pairs that carry a bound
  for (int64_t pair = threadIdx.x; pair < a.images * a.classes; pair += kThreads) {
    const Bounds<T> bounds = bounds_of<T>(a, pair / a.classes, pair % a.classes);
    const T excess = size_excess(sizes[pair], bounds);
    batch[0] += excess * excess;
    batch[1] += T(is_bounded(bounds));
    if (a.size_reduction == Reduction::kNone) {
      static_cast<T*>(a.penalty)[pair] = excess * excess * pair_scale;
    }
  }
  block_sum(batch);
  if (threadIdx.x != 0) return;
  const T scale = size_scale<T>(a.normalization, a.pixels, a.size_reduction, int64_t(batch[1]));
  *static_cast<T*>(a.penalty_scale) = scale;
  if (a.size_reduction != Reduction::kNone) *static_cast<T*>(a.penalty) = batch[0] * scale;
}

template <class T>
__device__ void finish(const SegmentationHeadForward& a, const Chunks& chunks) {
  T* const images = chunk_sums_of_image<T>(a, chunks, a.images);
  const int64_t width = sums_of_image(a), sizes = sizes_of_image(a);
  if (width > 0) {
    add_chunk_sums(chunk_sums_of_image<T>(a, chunks, 0), a.images, width, chunks.count,
                   [&](const SumRow& row, T sum) {
                     if (row.k < sizes) {
                       static_cast<T*>(a.soft_size)[row.image * sizes + row.k] = sum;
                     } else {
                       images[2 * row.image + row.k - sizes] = sum;
                     }
                   });
  }
  __syncthreads(); // the sums of the images are written before any thread uses them
  if (a.labels) finish_cross_entropy(a, images);
  if (a.bounds) {
    finish_penalty<T>(a);
  } else if (a.penalty && threadIdx.x == 0) {
    *static_cast<T*>(a.penalty) = *static_cast<T*>(a.penalty_scale) = T(0);
  }
}

} // namespace cuda
} // namespace accl
