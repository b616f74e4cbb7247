// accl_loss and accl_discriminator_loss, eqs. (5) and (6): the fake and the real scores in one
// launch. Each block sums chunks; the block that ends last adds the sums of all chunks.
#include <cuda_runtime.h> // first, so that math/ is compiled for the device

#include <type_traits>

#include "../math/accl_loss.h"
#include "memory.cuh"
#include "reduce.cuh"

namespace accl {
namespace cuda {
namespace {

template <class In>
using ScoreTile = Tile<2, kWidthOf<In>>;

// The chunks of the second group follow those of the first.
struct ScorePlan {
  Chunks chunks[2];
  int64_t units;
  bool aligned;
};

ScorePlan plan_scores(const AcclLossArguments& a, int32_t groups, Chunks (*cut)(int64_t count)) {
  ScorePlan plan = {{cut(a.group[0].count), cut(groups > 1 ? a.group[1].count : 0)}, 0, true};
  plan.units = plan.chunks[0].count + plan.chunks[1].count;
  if (a.elementwise) plan.aligned = is_aligned(a.loss, 16) && is_aligned(a.grad_loss, 16);
  for (int32_t g = 0; g < a.groups; ++g) {
    plan.aligned =
        plan.aligned && is_aligned(a.group[g].scores, 16) && is_aligned(a.group[g].grad_scores, 16);
  }
  return plan;
}

// One block sums this many scores in about the time that handing over to a last block takes.
constexpr int64_t kScoresOfOneBlock = 4 * kChunk;

bool one_block_sums(const AcclLossArguments& a) {
  return a.group[0].count + (a.groups > 1 ? a.group[1].count : 0) <= kScoresOfOneBlock;
}

ScorePlan plan_sum(const AcclLossArguments& a) {
  if (!one_block_sums(a)) return plan_scores(a, a.groups, chunks_of);
  return plan_scores(a, a.groups,
                     [](int64_t count) { return Chunks{kChunk, divide_up(count, kChunk)}; });
}

// Calls function(tile, group) for the tiles of a unit.
template <class In, class Function>
__device__ __forceinline__ void for_scores(const AcclLossArguments& a, const ScorePlan& plan,
                                           int64_t unit, const Function& function) {
  const bool second = unit >= plan.chunks[0].count;
  const ScoreGroup& group = second ? a.group[1] : a.group[0];
  const int64_t size = second ? plan.chunks[1].size : plan.chunks[0].size;
  const int64_t begin = (second ? unit - plan.chunks[0].count : unit) * size;
  const int64_t end = begin + size < group.count ? begin + size : group.count;
  for_tiles<ScoreTile<In>>(begin, end, plan.aligned,
                           [&](const auto& tile) { function(tile, group); });
}

// Computes the losses of a group's scores in one vector of a tile.
template <class In, class Pixels>
__device__ __forceinline__ void losses(const Pixels& tile, int v, const ScoreGroup& group,
                                       Accumulation<In> (&loss)[Pixels::kWidth]) {
  typedef Accumulation<In> T;
  In scores[Pixels::kWidth];
  tile.load(static_cast<const In*>(group.scores), v, narrow<In>(T(0)), scores);
#pragma unroll
  for (int j = 0; j < Pixels::kWidth; ++j) {
    loss[j] = score_loss(group.term, widen(scores[j]), T(group.target));
  }
}

template <class In>
__global__ void __launch_bounds__(kThreads, resident(12))
    score_sum(const __grid_constant__ AcclLossArguments a, const __grid_constant__ ScorePlan plan) {
  typedef Accumulation<In> T;
  T* const chunk_sums = static_cast<T*>(a.scratch);
  for (int64_t unit = blockIdx.x; unit < plan.units; unit += gridDim.x) {
    T sum[1] = {T(0)};
    for_scores<In>(a, plan, unit, [&](const auto& tile, const ScoreGroup& group) {
      typedef std::decay_t<decltype(tile)> Pixels;
#pragma unroll
      for (int v = 0; v < Pixels::kVectors; ++v) {
        T loss[Pixels::kWidth];
        losses<In>(tile, v, group, loss);
#pragma unroll
        for (int j = 0; j < Pixels::kWidth; ++j) {
          if (tile.holds(v, j)) sum[0] += loss[j];
        }
      }
    });
    block_sum(sum);
    if (threadIdx.x == 0) chunk_sums[unit] = sum[0];
  }
  if (!is_last_block(a.ticket)) return;
  T sums[2] = {T(0), T(0)};
  for (int64_t i = threadIdx.x; i < plan.chunks[0].count; i += kThreads) {
    sums[0] += load_from_l2(chunk_sums + i);
  }
  for (int64_t i = threadIdx.x; i < plan.chunks[1].count; i += kThreads) {
    sums[1] += load_from_l2(chunk_sums + plan.chunks[0].count + i);
  }
  block_sum(sums);
  if (threadIdx.x != 0) return;
  T loss = sums[0] * T(a.group[0].factor);
  if (a.groups > 1) loss += sums[1] * T(a.group[1].factor);
  *static_cast<T*>(a.loss) = loss;
}

// Reduction "none": both groups have the same length, and their losses are added element by
// element.
template <class In>
__global__ void __launch_bounds__(kThreads)
    score_map(const __grid_constant__ AcclLossArguments a, const __grid_constant__ ScorePlan plan) {
  typedef Accumulation<In> T;
  for (int64_t unit = blockIdx.x; unit < plan.units; unit += gridDim.x) {
    for_scores<In>(a, plan, unit, [&](const auto& tile, const ScoreGroup& group) {
      typedef std::decay_t<decltype(tile)> Pixels;
#pragma unroll
      for (int v = 0; v < Pixels::kVectors; ++v) {
        T loss[Pixels::kWidth], other[Pixels::kWidth];
        losses<In>(tile, v, group, loss);
        if (a.groups > 1) losses<In>(tile, v, a.group[1], other);
#pragma unroll
        for (int j = 0; j < Pixels::kWidth; ++j) {
          loss[j] *= T(group.factor);
          if (a.groups > 1) loss[j] += other[j] * T(a.group[1].factor);
        }
        tile.store(static_cast<T*>(a.loss), v, loss);
      }
    });
  }
}

template <class In>
__global__ void __launch_bounds__(kThreads)
    score_gradient(const __grid_constant__ AcclLossArguments a,
                   const __grid_constant__ ScorePlan plan) {
  typedef Accumulation<In> T;
  const T* const grad_loss = static_cast<const T*>(a.grad_loss);
  const T of_all = a.elementwise ? T(0) : *grad_loss;
  for (int64_t unit = blockIdx.x; unit < plan.units; unit += gridDim.x) {
    for_scores<In>(a, plan, unit, [&](const auto& tile, const ScoreGroup& group) {
      typedef std::decay_t<decltype(tile)> Pixels;
      const T factor = T(group.factor);
#pragma unroll
      for (int v = 0; v < Pixels::kVectors; ++v) {
        In scores[Pixels::kWidth], grad[Pixels::kWidth];
        T incoming[Pixels::kWidth];
        tile.load(static_cast<const In*>(group.scores), v, narrow<In>(T(0)), scores);
#pragma unroll
        for (int j = 0; j < Pixels::kWidth; ++j) incoming[j] = of_all;
        if (a.elementwise) tile.load(grad_loss, v, T(0), incoming);
#pragma unroll
        for (int j = 0; j < Pixels::kWidth; ++j) {
          const T slope = score_loss_slope(group.term, widen(scores[j]), T(group.target));
          grad[j] = narrow<In>(slope * (factor * incoming[j]));
        }
        tile.store(static_cast<In*>(group.grad_scores), v, grad);
      }
    });
  }
}

template <class In>
int forward(const AcclLossArguments& a, cudaStream_t stream) {
  if (a.elementwise) {
    const ScorePlan plan = plan_scores(a, 1, chunks_of);
    ACCL_LAUNCH(score_map<In>, blocks_for(plan.units), stream, a, plan);
    return int(cudaGetLastError());
  }
  const ScorePlan plan = plan_sum(a);
  const int64_t blocks = one_block_sums(a) ? 1 : blocks_for(plan.units);
  if (blocks > 1) {
    const cudaError_t error = cudaMemsetAsync(a.ticket, 0, sizeof(*a.ticket), stream);
    if (error != cudaSuccess) return int(error);
  }
  ACCL_LAUNCH(score_sum<In>, blocks, stream, a, plan);
  return int(cudaGetLastError());
}

template <class In>
int backward(const AcclLossArguments& a, cudaStream_t stream) {
  const ScorePlan plan = plan_scores(a, a.groups, chunks_of);
  ACCL_LAUNCH(score_gradient<In>, blocks_for(plan.units), stream, a, plan);
  return int(cudaGetLastError());
}

} // namespace

int64_t accl_loss_scratch(const AcclLossArguments& a) {
  return a.elementwise ? 0 : plan_sum(a).units;
}

int accl_loss_forward(const AcclLossArguments& a, void* stream) {
  return dispatch(a.dtype, [&](auto in) {
    return forward<decltype(in)>(a, static_cast<cudaStream_t>(stream));
  });
}

int accl_loss_backward(const AcclLossArguments& a, void* stream) {
  return dispatch(a.dtype, [&](auto in) {
    return backward<decltype(in)>(a, static_cast<cudaStream_t>(stream));
  });
}

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

} // namespace cuda
} // namespace accl
