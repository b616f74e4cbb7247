// Gradient of the logits, in one pass, from whichever gradients came: through the probabilities,
// the cross-entropy, the penalty and the soft sizes.
#include "pixels.cuh" // first: it brings in the CUDA runtime, which math/ is compiled for
#include "../math/logistic.h"
#include "../math/softmax.h"

namespace accl {
namespace cuda {
namespace {

// Shorter than the forward's chunks: nothing is summed, and more blocks start sooner.
template <class In>
using GradientTile = Tile<sizeof(In) == 2 ? 1 : 2, kWidthOf<In>>;

// Gradient of a soft size V: the one that came, plus the penalty's.
template <class T>
__device__ __forceinline__ T row_gradient(const PixelBackward& a, int64_t image, int64_t c) {
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

// What the cross-entropy adds to the gradient of a tile's logits.
template <class In, class Pixels>
struct LabelGradient {
  typedef Accumulation<In> T;

  int32_t code[Pixels::kVectors][Pixels::kWidth];
  T factor[Pixels::kVectors][Pixels::kWidth]; // gradient of the pixel's unweighted loss
  unsigned labelled;                          // bit v: vector v has a label

  __device__ __forceinline__ LabelGradient(const PixelBackward& a, int64_t image,
                                           const Pixels& tile)
      : labelled(a.grad_ce ? decode(a, image, tile, code) : 0) {
    const T* const grad_ce = static_cast<const T*>(a.grad_ce);
    const bool map = a.ce_reduction == Reduction::kNone;
#pragma unroll
    for (int v = 0; v < Pixels::kVectors; ++v) {
      if (!has(v)) continue;
      T incoming[Pixels::kWidth];
      if (map) tile.load(grad_ce + image * a.pixels, v, T(0), incoming);
      const T of_image = map ? T(0) : static_cast<const T*>(a.ce_scale)[image] * *grad_ce;
#pragma unroll
      for (int j = 0; j < Pixels::kWidth; ++j) {
        const T w = code[v][j] == kInvalid ? T(NAN) : class_weight<T>(a, code[v][j]);
        factor[v][j] = w == T(0) ? T(0) : w * (map ? incoming[j] : of_image);
      }
    }
  }

  __device__ __forceinline__ bool has(int v) const { return labelled >> v & 1; }

  // 0 by selection where nothing is labelled or the factor is 0: inf * 0 is NaN.
  __device__ __forceinline__ T times(int v, int j, T slope) const {
    return code[v][j] == kIgnored || factor[v][j] == T(0) ? T(0) : factor[v][j] * slope;
  }
};

template <class In>
struct Gradient {
  typedef Accumulation<In> T;
  typedef GradientTile<In> Pixels;
  static constexpr int kVectors = Pixels::kVectors;
  static constexpr int kWidth = Pixels::kWidth;

  const PixelBackward& a;
  const int64_t image;
  const Pixels& tile;
  const bool dense; // a gradient comes through the probabilities or the soft sizes
  const LabelGradient<In, Pixels> labels;

  __device__ __forceinline__ Gradient(const PixelBackward& arguments, int64_t i, const Pixels& t)
      : a(arguments),
        image(i),
        tile(t),
        dense(a.grad_probabilities || a.grad_soft_size || a.grad_penalty),
        labels(a, i, t) {}

  __device__ __forceinline__ void load(const void* rows, int64_t c, int v, T (&x)[kWidth]) const {
    In raw[kWidth];
    tile.load(row_of<const In>(a, rows, image, c), v, narrow<In>(T(0)), raw);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) x[j] = widen(raw[j]);
  }

  // Gradient of the probabilities: the map that came, plus the row's share through V.
  __device__ __forceinline__ void load_grad(int64_t c, int v, T row, T (&g)[kWidth]) const {
    if (a.grad_probabilities) load(a.grad_probabilities, c, v, g);
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
    const T row = row_gradient<T>(a, image, 0);
    T z[kVectors][kWidth], g[kVectors][kWidth];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (dense || labels.has(v)) load(a.logits, 0, v, z[v]);
      if (dense) load_grad(0, v, row, g[v]);
    }
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      T grad[kWidth];
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        grad[j] = dense ? sigmoid_slope(logistic(z[v][j])) * g[v][j] : T(0);
        if (labels.has(v)) {
          const T slope =
              binary_cross_entropy_slope(logistic(z[v][j]), labels.code[v][j] == 1);
          grad[j] += labels.times(v, j, slope);
        }
      }
      store(0, v, grad);
    }
  }

  // rows(c): row_gradient of class c.
  template <class Rows>
  __device__ __forceinline__ void multiclass(int v, const Rows& rows) const {
    T top[kWidth], others[kWidth], top_grad[kWidth], dot[kWidth];
    int32_t top_class[kWidth];
    load(a.logits, 0, v, top);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      top_class[j] = 0;
      others[j] = dot[j] = top_grad[j] = T(0);
    }
    for (int32_t c = 1; c < a.classes; ++c) {
      T z[kWidth];
      load(a.logits, c, v, z);
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
      load(a.logits, c, v, z);
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
      load(a.logits, c, v, z);
      if (dense) load_grad(c, v, rows(c), g);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const T e = softmax_exponential(z[j], top[j]);
        const T scale = softmax_scale(others[j]);
        grad[j] = T(0);
        if (dense) grad[j] = softmax_pullback(e * scale, g[j] - top_grad[j], dot[j] * scale);
        if (labels.has(v)) {
          const T rest = top_class[j] == c ? others[j] : T(1) + others[j] - e;
          const T slope = softmax_cross_entropy_slope(labels.code[v][j] == c, e, rest, scale);
          grad[j] += labels.times(v, j, slope);
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
__device__ __forceinline__ GradientTile<In> tile_of(const PixelBackward& a, const PixelPlan& plan,
                                                    int64_t unit) {
  const int64_t begin = unit % plan.chunks.count * plan.chunks.size;
  return {begin, a.pixels, plan.aligned};
}

template <class In>
__global__ void __launch_bounds__(kThreads)
    binary_backward(const __grid_constant__ PixelBackward a, const PixelPlan plan) {
  for (int64_t unit = blockIdx.x; unit < plan.units; unit += gridDim.x) {
    const GradientTile<In> tile = tile_of<In>(a, plan, unit);
    Gradient<In>(a, unit / plan.chunks.count, tile).binary();
  }
}

// Rows whose gradient is computed once for a block; those of further classes at every use.
constexpr int kKeptRows = 256;

template <class In>
__global__ void __launch_bounds__(kThreads)
    multiclass_backward(const __grid_constant__ PixelBackward a, const PixelPlan plan) {
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
#pragma unroll
    for (int v = 0; v < GradientTile<In>::kVectors; ++v) {
      if (gradient.dense || gradient.labels.has(v)) {
        gradient.multiclass(v, [&](int32_t c) {
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
int backward(const PixelBackward& a, cudaStream_t stream) {
  constexpr int64_t size = GradientTile<In>::kElements;
  const PixelPlan plan = plan_pixels<In>(
      a, {size, (a.pixels + size - 1) / size},
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

int pixel_backward(const PixelBackward& a, void* stream) {
  return dispatch(a.dtype, [&](auto in) {
    return backward<decltype(in)>(a, static_cast<cudaStream_t>(stream));
  });
}

} // namespace cuda
} // namespace accl
