// Sums in a fixed order, and the ticket by which the last block finds out that it is the last.
#pragma once

#include "launch.cuh"

namespace accl {
namespace cuda {

// The sum over each kLanes lanes of the warp, in the first of them; the others get parts of it.
template <int kLanes = kWarp, class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    x += __shfl_down_sync(0xffffffffu, x, offset);
  }
  return x;
}

// Each of the kCount numbers becomes its sum over the block, in every thread.
template <int kCount, class T>
__device__ __forceinline__ void block_sum(T (&x)[kCount]) {
  ACCL_SHARED(T, of_warp, kCount * kWarps);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const T sum = warp_sum(x[i]);
    if (threadIdx.x % kWarp == 0) of_warp[i * kWarps + threadIdx.x / kWarp] = sum;
  }
  __syncthreads(); // every warp's sums are written before any thread adds them
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    x[i] = T(0);
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) x[i] += of_warp[i * kWarps + warp];
  }
  __syncthreads(); // all have read them before the next call writes
}

// True in the block that comes last, to which the writes of all others are then visible. `ticket`
// is 0 at launch. All threads of a block call it, once.
__device__ __forceinline__ bool is_last_block(int32_t* ticket) {
  if (gridDim.x == 1) {
    __syncthreads(); // one thread's writes to global memory are read by others below
    return true;
  }
  ACCL_SHARED(bool, last, 1);
  __syncthreads(); // the block's writes precede the fence of thread 0
  if (threadIdx.x == 0) {
    __threadfence(); // the writes become visible to the device before the ticket does
    last[0] = atomicAdd(ticket, 1) == int32_t(gridDim.x) - 1;
    __threadfence(); // the ticket is read before what other blocks wrote
  }
  __syncthreads(); // thread 0 has decided before the others look
  return last[0];
}

// Reads global memory past the L1 cache, which does not know what other multiprocessors wrote.
template <class T>
__device__ __forceinline__ T load_from_l2(const T* from) {
  return __ldcg(from);
}

// A row of sums: sum k of an image.
struct SumRow {
  int64_t image, k;

  __device__ __forceinline__ SumRow(int64_t row, int64_t width)
      : image(row / width), k(row - image * width) {}

  // Goes on by as many rows as `step` is from row 0. A division would take as long as the loads.
  __device__ __forceinline__ void advance(const SumRow& step, int64_t width) {
    image += step.image, k += step.k;
    if (k >= width) k -= width, ++image;
  }
};

// Adds, with one block and in a fixed order, the `width` > 0 rows of each image. A row has the sums
// of `count` chunks, which lie one after the other. Calls store(row, sum) for each row. Eight lanes
// add a row, each with up to eight loads under way, so that a block waits for memory once for 16
// rows of up to 64 chunks. A row of up to eight chunks is a thread's.
template <class T, class Store>
__device__ __forceinline__ void add_chunk_sums(const T* chunk_sums, int64_t images, int64_t width,
                                               int64_t count, const Store& store) {
  constexpr int kLanes = 8;
  const int64_t rows = images * width;
  const int lanes = count <= kLanes ? 1 : kLanes;
  const int at_once = kThreads / lanes, lane = int(threadIdx.x) % lanes;
  SumRow row(int(threadIdx.x) / lanes, width);
  const SumRow step(at_once, width);
  for (int64_t first = 0; first < rows; first += at_once, row.advance(step, width)) {
    const int64_t i = first + int(threadIdx.x) / lanes;
    T sum = T(0);
    if (i < rows) {
#pragma unroll 8
      for (int64_t j = lane; j < count; j += lanes) {
        sum += load_from_l2(chunk_sums + i * count + j);
      }
    }
    if (lanes > 1) sum = warp_sum<kLanes>(sum);
    if (lane == 0 && i < rows) store(row, sum);
  }
}

} // namespace cuda
} // namespace accl
