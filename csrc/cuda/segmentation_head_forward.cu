// segmentation_head, partial_cross_entropy and size_penalty: probabilities, soft sizes,
// cross-entropy and penalty, eqs. (1) to (4), in one launch. Each block sums chunks of images; the
// block that ends last adds the sums of all chunks and computes the scalars.
#include <cuda_runtime.h> // first: math/ compiles for the device where it is there

#include "../math/logistic.h"
#include "../math/softmax.h"
#include "segmentation_head_finish.cuh"

namespace accl {
namespace cuda {
namespace {

template <class T>
struct LabelSums {
  T loss = T(0);
  T weight = T(0);

  // Returns the pixel's weighted loss. 0 by selection where the weight is 0: inf * 0 is NaN.
  __device__ __forceinline__ T add(const SegmentationHeadArguments& a, int32_t code, T pixel_loss) {
    const T w = class_weight<T>(a, code);
    T weighted = w == T(0) ? T(0) : pixel_loss * w;
    if (code == kInvalid) weighted = T(NAN);
    loss += weighted;
    weight += w;
    return weighted;
  }
};

// Of the cross-entropy with reduction "none", else null.
template <class T>
__device__ __forceinline__ T* loss_map(const SegmentationHeadForward& a, int64_t image) {
  if (!a.ce || a.ce_reduction != Reduction::kNone) return nullptr;
  return static_cast<T*>(a.ce) + image * a.pixels;
}

// ---------------------------------------------------------------------------------------------
// One chunk, C = 1

template <class In>
using BinaryTile = Tile<sizeof(In) == 2 ? 2 : 4, kWidthOf<In>>;

template <class In>
struct Binary {
  typedef Accumulation<In> T;
  typedef BinaryTile<In> Pixels;

  const SegmentationHeadForward& a;
  const int64_t image;
  const In* logits;
  In* probabilities; // null: not wanted
  T* map;            // null: not wanted
  const bool dense;  // every logit is read, not only those of labelled pixels
  T size = T(0);
  LabelSums<T> labels;

  __device__ Binary(const SegmentationHeadForward& arguments, int64_t i)
      : a(arguments),
        image(i),
        logits(row_of<const In>(a, a.logits, i, 0)),
        probabilities(a.probabilities ? row_of<In>(a, a.probabilities, i, 0) : nullptr),
        map(loss_map<T>(a, i)),
        dense(a.probabilities || a.soft_size) {}

  __device__ __forceinline__ void vector(const Pixels& tile, int v, const In (&z)[Pixels::kWidth],
                                         bool labelled) {
    if (dense) {
      In p[Pixels::kWidth];
#pragma unroll
      for (int j = 0; j < Pixels::kWidth; ++j) {
        const T s = sigmoid(logistic(widen(z[j])));
        size += s;
        p[j] = narrow<In>(s);
      }
      if (probabilities) tile.store(probabilities, v, p);
    }
    if (!labelled && !map) return;
    T loss[Pixels::kWidth];
#pragma unroll
    for (int j = 0; j < Pixels::kWidth; ++j) {
      loss[j] = T(0);
      if (!labelled || !tile.holds(v, j)) continue;
      const int32_t code = label_code(a, image, tile.at(v) + j);
      if (code == kIgnored) continue;
      loss[j] = labels.add(a, code, binary_cross_entropy(logistic(widen(z[j])), code == 1));
    }
    if (map) tile.store(map, v, loss);
  }

  __device__ __forceinline__ void tile(const Pixels& tile) {
    In z[Pixels::kVectors][Pixels::kWidth];
    const In padding = narrow<In>(T(-INFINITY)); // p = 0
    if (dense) {
#pragma unroll
      for (int v = 0; v < Pixels::kVectors; ++v) tile.load(logits, v, padding, z[v]);
    }
    const unsigned labelled = a.labels ? labelled_vectors(a, image, tile) : 0;
#pragma unroll
    for (int v = 0; v < Pixels::kVectors; ++v) {
      const bool any = labelled >> v & 1;
      if (!dense && any) tile.load(logits, v, padding, z[v]);
      vector(tile, v, z[v], any);
    }
  }
};

template <class In>
__global__ void __launch_bounds__(kThreads)
    binary_forward(const __grid_constant__ SegmentationHeadForward a, const PixelPlan plan) {
  typedef Accumulation<In> T;
  for (int64_t unit = blockIdx.x; unit < plan.units; unit += gridDim.x) {
    const int64_t image = unit / plan.chunks.count, chunk = unit % plan.chunks.count;
    const int64_t begin = chunk * plan.chunks.size;
    const int64_t end = begin + plan.chunks.size < a.pixels ? begin + plan.chunks.size : a.pixels;
    Binary<In> work(a, image);
    for (int64_t at = begin; at < end; at += BinaryTile<In>::kElements) {
      work.tile(BinaryTile<In>{at, end, plan.aligned});
    }
    T sums[3] = {work.size, work.labels.loss, work.labels.weight};
    block_sum(sums);
    if (threadIdx.x == 0) {
      T* partial = partials_of_image<T>(a, plan.chunks, image) + chunk;
      if (a.soft_size) *partial = sums[0];
      partial += sizes_of_image(a) * plan.chunks.count;
      if (a.labels) partial[0] = sums[1], partial[plan.chunks.count] = sums[2];
    }
  }
  if (is_last_block(a.ticket)) finish<T>(a, plan.chunks);
}

// ---------------------------------------------------------------------------------------------
// One chunk, C >= 2

template <class In>
using MulticlassTile = Tile<sizeof(In) == 2 ? 1 : 2, kWidthOf<In>>;

constexpr int kClassGroup = 32; // classes whose sums meet in shared memory at a time

template <class In>
struct Multiclass {
  typedef Accumulation<In> T;
  typedef MulticlassTile<In> Pixels;
  static constexpr int kVectors = Pixels::kVectors;
  static constexpr int kWidth = Pixels::kWidth;

  const SegmentationHeadForward& a;
  const int64_t image;
  T* const partial;          // [sums, chunks] at this chunk
  const int64_t chunk_count; // stride of partial
  const bool dense;
  T* const map;
  LabelSums<T> labels;

  __device__ Multiclass(const SegmentationHeadForward& arguments, const Chunks& chunks, int64_t i,
                        int64_t chunk)
      : a(arguments),
        image(i),
        partial(partials_of_image<T>(a, chunks, i) + chunk),
        chunk_count(chunks.count),
        dense(a.probabilities || a.soft_size),
        map(loss_map<T>(a, i)) {}

  __device__ __forceinline__ void load(const Pixels& tile, int64_t c, int v, T (&z)[kWidth]) const {
    In raw[kWidth];
    tile.load(row_of<const In>(a, a.logits, image, c), v, narrow<In>(T(0)), raw);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) z[j] = widen(raw[j]);
  }

  // The largest logit and the sum of the other exponentials, of each pixel of the vectors wanted.
  __device__ __forceinline__ void reduce_classes(const Pixels& tile, unsigned wanted,
                                                 T (&top)[kVectors][kWidth],
                                                 T (&others)[kVectors][kWidth]) const {
    int32_t top_class[kVectors][kWidth];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        top_class[v][j] = 0;
        top[v][j] = others[v][j] = T(0);
      }
      if (wanted >> v & 1) load(tile, 0, v, top[v]);
    }
    for (int32_t c = 1; c < a.classes; ++c) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        if (!(wanted >> v & 1)) continue;
        T z[kWidth];
        load(tile, c, v, z);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          if (z[j] > top[v][j]) top[v][j] = z[j], top_class[v][j] = c;
        }
      }
    }
    for (int32_t c = 0; c < a.classes; ++c) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        if (!(wanted >> v & 1)) continue;
        T z[kWidth];
        load(tile, c, v, z);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          const T e = softmax_exponential(z[j], top[v][j]);
          others[v][j] += top_class[v][j] == c ? e - e : e; // NaN stays NaN
        }
      }
    }
  }

  __device__ __forceinline__ void cross_entropy(const Pixels& tile, int v, bool labelled,
                                                const T (&top)[kWidth], const T (&others)[kWidth]) {
    if (!labelled && !map) return;
    T loss[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      loss[j] = T(0);
      if (!labelled || !tile.holds(v, j)) continue;
      const int32_t code = label_code(a, image, tile.at(v) + j);
      if (code == kIgnored) continue;
      const In z = row_of<const In>(a, a.logits, image, code < 0 ? 0 : code)[tile.at(v) + j];
      loss[j] = labels.add(a, code, softmax_cross_entropy(widen(z), top[j], others[j]));
    }
    if (map) tile.store(map, v, loss);
  }

  // Probabilities of all classes; their sums over the tile join those of the chunk's tiles before.
  __device__ __forceinline__ void probabilities(const Pixels& tile, bool first,
                                                const T (&top)[kVectors][kWidth],
                                                const T (&scale)[kVectors][kWidth]) const {
    ACCL_SHARED(T, of_warp, kClassGroup * kWarps);
    for (int64_t group = 0; group < a.classes; group += kClassGroup) {
      const int count = int(a.classes - group < kClassGroup ? a.classes - group : kClassGroup);
      for (int i = 0; i < count; ++i) {
        T size = T(0);
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          T z[kWidth];
          In p[kWidth];
          load(tile, group + i, v, z);
#pragma unroll
          for (int j = 0; j < kWidth; ++j) {
            const T s = softmax_exponential(z[j], top[v][j]) * scale[v][j];
            if (tile.holds(v, j)) size += s;
            p[j] = narrow<In>(s);
          }
          if (a.probabilities) tile.store(row_of<In>(a, a.probabilities, image, group + i), v, p);
        }
        size = warp_sum(size);
        if (threadIdx.x % kWarp == 0) of_warp[i * kWarps + threadIdx.x / kWarp] = size;
      }
      if (!a.soft_size) continue;
      __syncthreads(); // every warp's sums are written before any thread adds them
      for (int i = threadIdx.x; i < count; i += kThreads) {
        T* const to = partial + (group + i) * chunk_count;
        T size = first ? T(0) : *to; // written by this very thread
        for (int warp = 0; warp < kWarps; ++warp) size += of_warp[i * kWarps + warp];
        *to = size;
      }
      __syncthreads(); // all sums are read before the next group of classes overwrites them
    }
  }

  __device__ __forceinline__ void tile(const Pixels& tile, bool first) {
    const unsigned labelled = a.labels ? labelled_vectors(a, image, tile) : 0;
    T top[kVectors][kWidth], others[kVectors][kWidth];
    if (dense || labelled) reduce_classes(tile, dense ? ~0u : labelled, top, others);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      cross_entropy(tile, v, labelled >> v & 1, top[v], others[v]);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) others[v][j] = softmax_scale(others[v][j]);
    }
    if (dense) probabilities(tile, first, top, others);
  }
};

template <class In>
__global__ void __launch_bounds__(kThreads)
    multiclass_forward(const __grid_constant__ SegmentationHeadForward a, const PixelPlan plan) {
  typedef Accumulation<In> T;
  for (int64_t unit = blockIdx.x; unit < plan.units; unit += gridDim.x) {
    const int64_t image = unit / plan.chunks.count, chunk = unit % plan.chunks.count;
    const int64_t begin = chunk * plan.chunks.size;
    const int64_t end = begin + plan.chunks.size < a.pixels ? begin + plan.chunks.size : a.pixels;
    Multiclass<In> work(a, plan.chunks, image, chunk);
    for (int64_t at = begin; at < end; at += MulticlassTile<In>::kElements) {
      work.tile(MulticlassTile<In>{at, end, plan.aligned}, at == begin);
    }
    if (!a.labels) continue;
    T sums[2] = {work.labels.loss, work.labels.weight};
    block_sum(sums);
    if (threadIdx.x == 0) {
      T* const partial = work.partial + sizes_of_image(a) * plan.chunks.count;
      partial[0] = sums[0], partial[plan.chunks.count] = sums[1];
    }
  }
  if (is_last_block(a.ticket)) finish<T>(a, plan.chunks);
}

template <class In>
int forward(const SegmentationHeadForward& a, cudaStream_t stream) {
  const PixelPlan plan =
      plan_pixels<In>(a, chunks_of(a.pixels),
                      {a.probabilities, a.ce_reduction == Reduction::kNone ? a.ce : nullptr});
  const int64_t blocks = blocks_for(plan.units);
  if (blocks > 1) {
    const cudaError_t error = cudaMemsetAsync(a.ticket, 0, sizeof(*a.ticket), stream);
    if (error != cudaSuccess) return int(error);
  }
  if (a.classes == 1) {
    ACCL_LAUNCH(binary_forward<In>, blocks, stream, a, plan);
  } else {
    ACCL_LAUNCH(multiclass_forward<In>, blocks, stream, a, plan);
  }
  return int(cudaGetLastError());
}

} // namespace

int64_t segmentation_head_partials(const SegmentationHeadArguments& a) {
  const int64_t sums = a.classes + (a.labels ? 2 : 0);
  return a.images * (sums * chunks_of(a.pixels).count + 2);
}

int segmentation_head_forward(const SegmentationHeadForward& a, void* stream) {
  return dispatch(a.dtype, [&](auto in) {
    return forward<decltype(in)>(a, static_cast<cudaStream_t>(stream));
  });
}

} // namespace cuda
} // namespace accl
