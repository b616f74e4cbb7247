// How a kernel is launched and its shared memory declared, and how rows are cut among blocks.
// tests/cuda_on_cpu replaces the two macros, and makes blocks and rows small, to run these sources
// as plain C++.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#ifndef ACCL_LAUNCH
#define ACCL_LAUNCH(kernel, blocks, stream, ...) \
  kernel<<<static_cast<unsigned>(blocks), accl::cuda::kThreads, 0, stream>>>(__VA_ARGS__)
#define ACCL_SHARED(type, name, count) __shared__ type name[count]
#endif
#ifndef ACCL_BLOCK_THREADS
#define ACCL_BLOCK_THREADS 256
#define ACCL_MAX_CHUNKS 2048
#define ACCL_MAX_BLOCKS 2147483647
#endif

namespace accl {
namespace cuda {

// 8 warps: enough for the sums of a block to cost little, few enough that at 64 registers a thread
// four blocks share a multiprocessor (65 536 registers / (256 * 64) = 4).
constexpr int kThreads = ACCL_BLOCK_THREADS;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
static_assert(kThreads % kWarp == 0 && kThreads <= 1024,
              "whole warps, at most the hardware's limit");

// A chunk is the part of a row that one block sums: 16 elements a thread, 4096 in all. C + 2 sums
// of 4 bytes to 4096 * (4 C + 1) bytes of float32 logits and uint8 labels is less than a
// thousandth: 12 bytes to 20 480. Longer chunks for rows of more than 8 388 608 elements keep the
// sums of a row few enough (2048) for one block to add.
constexpr int64_t kChunk = 16 * kThreads;
constexpr int64_t kMaxChunks = ACCL_MAX_CHUNKS;
constexpr int64_t kMaxBlocks = ACCL_MAX_BLOCKS; // of grid.x
static_assert(kMaxBlocks <= 2147483647, "grid.x is limited to 2^31 - 1");

// The chunks of a row depend on its length alone, so its sums do not depend on the rest of the
// batch or on the GPU.
struct Chunks {
  int64_t size;  // elements of a chunk
  int64_t count; // chunks of a row
};

constexpr Chunks chunks_of(int64_t row) {
  const int64_t per_chunk = (row + kChunk * kMaxChunks - 1) / (kChunk * kMaxChunks);
  const int64_t size = kChunk * (per_chunk > 0 ? per_chunk : 1);
  return {size, (row + size - 1) / size};
}

constexpr int64_t blocks_for(int64_t units) { return units < kMaxBlocks ? units : kMaxBlocks; }

} // namespace cuda
} // namespace accl
