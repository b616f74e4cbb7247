// Gradient of the logits, in one pass, from whichever gradients came: through the probabilities,
// the cross-entropy, the penalty and the soft sizes.
#include <cuda_runtime.h> // first: math/ compiles for the device where it is there

#include "../math/logistic.h"
#include "../math/softmax.h"
#include "segmentation_head.cuh"

namespace accl {
namespace cuda {
namespace {

// Shorter than the forward's chunks: nothing is summed, and more blocks start sooner.
template <class In>
using GradientTile = Tile<sizeof(In) == 2 ? 1 : 2, kWidthOf<In>>;

// Gradient of a soft size V: the one that came, plus the penalty's.
template <class T>
__device__ __forceinline__ T row_gradient(const SegmentationHeadBackward& a, int64_t image,
                                          int64_t c) {
  const int64_t pair = image * a.classes + c;
  T gradient = a.grad_soft_size ? static_cast<const T*>(a.grad_soft_size)[pair] : T(0);
  if (a.grad_penalty) {
    const T excess =
        size_excess(static_cast<const T*>(a.soft_size)[pair], bounds_of<T>(a, image, c));
    const int64_t at = a.size_reduction == Reduction::kNone ? pair : 0;
    gradient += size_slope(excess, *static_cast<const T*>(a.penalty_scale),
                           static_cast<const T*>(a.grad_penalty)[at]);
  }
  return gradient;
}

// What the cross-entropy adds to the gradient at one pixel.
template <class T>
struct LabelGradient {
  int32_t code = kIgnored;
  T factor = T(0); // gradient of the pixel's unweighted loss

  __device__ __forceinline__ void read(const SegmentationHeadBackward& a, int64_t image,
                                       int64_t pixel) {
    code = label_code(a, image, pixel);
    if (code == kIgnored) return;
    const T* const grad_ce = static_cast<const T*>(a.grad_ce);
    const T incoming = a.ce_reduction == Reduction::kNone
                           ? grad_ce[image * a.pixels + pixel]
                           : static_cast<const T*>(a.ce_scale)[image] * *grad_ce;
    const T w = code == kInvalid ? T(NAN) : class_weight<T>(a, code);
    factor = w == T(0) ? T(0) : w * incoming;
  }

  // 0 by selection where the factor is 0, as it is where nothing is labelled: inf * 0 is NaN.
  __device__ __forceinline__ T times(T slope) const {
    return factor == T(0) ? T(0) : factor * slope;
  }
};

template <class In>
struct Gradient {
  typedef Accumulation<In> T;
  typedef GradientTile<In> Pixels;
  static constexpr int kVectors = Pixels::kVectors;
  static constexpr int kWidth = Pixels::kWidth;

  const SegmentationHeadBackward& a;
  const int64_t image;
  const Pixels& tile;
  const bool dense; // a gradient comes through the probabilities or the soft sizes

  __device__ __forceinline__ Gradient(const SegmentationHeadBackward& arguments, int64_t i,
                                      const Pixels& t)
      : a(arguments),
        image(i),
        tile(t),
        dense(a.grad_probabilities || a.grad_soft_size || a.grad_penalty) {}

  __device__ __forceinline__ unsigned labelled() const {
    return a.grad_ce ? labelled_vectors(a, image, tile) : 0;
  }

  __device__ __forceinline__ LabelGradient<T> label(int v, int j) const {
    LabelGradient<T> label;
    if (tile.holds(v, j)) label.read(a, image, tile.at(v) + j);
    return label;
  }

  __device__ __forceinline__ void load(const void* rows, int64_t c, int v, In (&x)[kWidth]) const {
    tile.load(row_of<const In>(a, rows, image, c), v, narrow<In>(T(0)), x);
  }
  __device__ __forceinline__ void load_wide(const void* rows, int64_t c, int v,
                                            T (&x)[kWidth]) const {
    In raw[kWidth];
    load(rows, c, v, raw);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) x[j] = widen(raw[j]);
  }

  // Gradient of the probabilities: the map that came, plus the row's share through V.
  __device__ __forceinline__ void load_grad(int64_t c, int v, T row, T (&g)[kWidth]) const {
    if (a.grad_probabilities) load_wide(a.grad_probabilities, c, v, g);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) g[j] = a.grad_probabilities ? g[j] + row : row;
  }

  __device__ __forceinline__ void store(int64_t c, int v, const T (&grad)[kWidth]) const {
    In narrowed[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) narrowed[j] = narrow<In>(grad[j]);
    tile.store(row_of<In>(a, a.grad_logits, image, c), v, narrowed);
  }

  __device__ __forceinline__ void binary() const {
    In z[kVectors][kWidth], g[kVectors][kWidth];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) { // all are on their way before the first is used
      if (dense) load(a.logits, 0, v, z[v]);
      if (a.grad_probabilities) load(a.grad_probabilities, 0, v, g[v]);
    }
    const unsigned any = labelled();
    const T row = row_gradient<T>(a, image, 0);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const bool some = any >> v & 1;
      if (some && !dense) load(a.logits, 0, v, z[v]);
      T grad[kWidth];
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        grad[j] = T(0);
        if (!dense && !some) continue;
        const Logistic<T> l = logistic(widen(z[v][j]));
        if (dense) {
          grad[j] = sigmoid_slope(l) * (a.grad_probabilities ? widen(g[v][j]) + row : row);
        }
        if (some) {
          const LabelGradient<T> of = label(v, j);
          grad[j] += of.times(binary_cross_entropy_slope(l, of.code == 1));
        }
      }
      store(0, v, grad);
    }
  }

  // rows(c): row_gradient of class c.
  template <class Rows>
  __device__ __forceinline__ void multiclass(int v, bool some, const Rows& rows) const {
    T top[kWidth], others[kWidth], top_grad[kWidth], dot[kWidth];
    int32_t top_class[kWidth];
    LabelGradient<T> of[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      if (some) of[j] = label(v, j);
    }
    load_wide(a.logits, 0, v, top);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      top_class[j] = 0;
      others[j] = dot[j] = top_grad[j] = T(0);
    }
    for (int32_t c = 1; c < a.classes; ++c) {
      T z[kWidth];
      load_wide(a.logits, c, v, z);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (z[j] > top[j]) top[j] = z[j], top_class[j] = c;
      }
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      if (!dense || !tile.holds(v, j)) continue;
      top_grad[j] = rows(top_class[j]);
      if (a.grad_probabilities) {
        const In* const row = row_of<const In>(a, a.grad_probabilities, image, top_class[j]);
        top_grad[j] += widen(row[tile.at(v) + j]);
      }
    }
    for (int32_t c = 0; c < a.classes; ++c) {
      T z[kWidth], g[kWidth];
      load_wide(a.logits, c, v, z);
      if (dense) load_grad(c, v, rows(c), g);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const T e = softmax_exponential(z[j], top[j]);
        const T other = top_class[j] == c ? e - e : e; // NaN stays NaN
        others[j] += other;
        if (dense) dot[j] += other * (g[j] - top_grad[j]);
      }
    }
    for (int32_t c = 0; c < a.classes; ++c) {
      T z[kWidth], g[kWidth], grad[kWidth];
      load_wide(a.logits, c, v, z);
      if (dense) load_grad(c, v, rows(c), g);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const T e = softmax_exponential(z[j], top[j]);
        const T scale = softmax_scale(others[j]);
        grad[j] = T(0);
        if (dense) grad[j] = softmax_pullback(e * scale, g[j] - top_grad[j], dot[j] * scale);
        if (some) {
          const T rest = top_class[j] == c ? others[j] : T(1) + others[j] - e;
          grad[j] += of[j].times(softmax_cross_entropy_slope(of[j].code == c, e, rest, scale));
        }
      }
      store(c, v, grad);
    }
  }

  __device__ __forceinline__ void zero(int v) const {
    const T zeros[kWidth] = {};
    for (int64_t c = 0; c < a.classes; ++c) store(c, v, zeros);
  }
};

template <class In>
__device__ __forceinline__ GradientTile<In> tile_of(const SegmentationHeadBackward& a,
                                                    const PixelPlan& plan, int64_t unit) {
  const int64_t begin = unit % plan.chunks.count * plan.chunks.size;
  return {begin, a.pixels, plan.aligned};
}

template <class In>
__global__ void __launch_bounds__(kThreads)
    binary_backward(const __grid_constant__ SegmentationHeadBackward a, const PixelPlan plan) {
  for (int64_t unit = blockIdx.x; unit < plan.units; unit += gridDim.x) {
    const GradientTile<In> tile = tile_of<In>(a, plan, unit);
    Gradient<In>(a, unit / plan.chunks.count, tile).binary();
  }
}

// Rows whose gradient is computed once for a block; those of further classes at every use.
constexpr int kKeptRows = 256;

template <class In>
__global__ void __launch_bounds__(kThreads)
    multiclass_backward(const __grid_constant__ SegmentationHeadBackward a, const PixelPlan plan) {
  typedef Accumulation<In> T;
  ACCL_SHARED(T, kept, kKeptRows);
  for (int64_t unit = blockIdx.x; unit < plan.units; unit += gridDim.x) {
    const int64_t image = unit / plan.chunks.count;
    for (int c = threadIdx.x; c < kKeptRows && c < a.classes; c += kThreads) {
      kept[c] = row_gradient<T>(a, image, c);
    }
    __syncthreads(); // the rows' gradients are written before any thread uses them
    const GradientTile<In> tile = tile_of<In>(a, plan, unit);
    const Gradient<In> gradient(a, image, tile);
    const unsigned any = gradient.labelled();
#pragma unroll 1
    for (int v = 0; v < GradientTile<In>::kVectors; ++v) {
      const bool some = any >> v & 1;
      if (gradient.dense || some) {
        gradient.multiclass(v, some, [&](int32_t c) {
          return c < kKeptRows ? kept[c] : row_gradient<T>(a, image, c);
        });
      } else {
        gradient.zero(v);
      }
    }
    __syncthreads(); // and used before the next image's overwrite them
  }
}

template <class In>
int backward(const SegmentationHeadBackward& a, cudaStream_t stream) {
  constexpr int64_t size = GradientTile<In>::kElements;
  const PixelPlan plan =
      plan_pixels<In>(a, {size, (a.pixels + size - 1) / size},
                      {a.grad_probabilities, a.grad_logits,
                       a.ce_reduction == Reduction::kNone ? a.grad_ce : nullptr});
  if (a.classes == 1) {
    ACCL_LAUNCH(binary_backward<In>, blocks_for(plan.units), stream, a, plan);
  } else {
    ACCL_LAUNCH(multiclass_backward<In>, blocks_for(plan.units), stream, a, plan);
  }
  return int(cudaGetLastError());
}

} // namespace

int segmentation_head_backward(const SegmentationHeadBackward& a, void* stream) {
  return dispatch(a.dtype, [&](auto in) {
    return backward<decltype(in)>(a, static_cast<cudaStream_t>(stream));
  });
}

} // namespace cuda
} // namespace accl
