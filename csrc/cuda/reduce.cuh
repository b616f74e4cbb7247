// Sums in a fixed order, and the ticket by which the last block finds out that it is the last.
#pragma once

#include "launch.cuh"

namespace accl {
namespace cuda {

// The sum over the warp, in lane 0; the other lanes get parts of it.
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
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

// Adds, with one block and in a fixed order, `sums` rows of `count` sums of chunks, which lie one
// after the other. Calls store(row, sum) for each row.
template <class T, class Store>
__device__ __forceinline__ void add_chunk_sums(const T* chunk_sums, int64_t sums, int64_t count,
                                               const Store& store) {
  if (count <= kWarp) { // a thread adds a row
    for (int64_t i = threadIdx.x; i < sums; i += kThreads) {
      T sum = T(0);
#pragma unroll 8
      for (int64_t j = 0; j < count; ++j) sum += load_from_l2(chunk_sums + i * count + j);
      store(i, sum);
    }
  } else { // a warp adds a row
    for (int64_t i = threadIdx.x / kWarp; i < sums; i += kWarps) {
      T sum = T(0);
#pragma unroll 8
      for (int64_t j = threadIdx.x % kWarp; j < count; j += kWarp) {
        sum += load_from_l2(chunk_sums + i * count + j);
      }
      sum = warp_sum(sum);
      if (threadIdx.x % kWarp == 0) store(i, sum);
    }
  }
}

} // namespace cuda
} // namespace accl
