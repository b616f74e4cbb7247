// How a kernel is launched and its shared memory declared, and how rows are divided among blocks.
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
#define ACCL_BLOCK_THREADS 128
#define ACCL_MAX_CHUNKS 2048
#define ACCL_MAX_BLOCKS 2147483647
#endif

namespace accl {
namespace cuda {

// A block has 4 warps. They are few, so that even a small image keeps many blocks at work.
constexpr int kThreads = ACCL_BLOCK_THREADS;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
// The most blocks that resident() asks for. ptxas needs more registers for a GPU before sm_90.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int kMostResident = 768 / kThreads;
#else
constexpr int kMostResident = 1536 / kThreads;
#endif
static_assert(kThreads % kWarp == 0 && kThreads <= 1024,
              "whole warps, at most the hardware's limit");

// A chunk is the part of a row that one block sums. It holds whole tiles (memory.cuh), so that all
// but the end of a row is read in whole vectors. A short row is cut into chunks of the largest
// tile: one image of 256 x 256 pixels keeps 64 multiprocessors at work, and its sums are few for
// the last block to add. A longer one has up to 256 chunks of up to 4096 elements, whose sums cost
// less than a thousandth of what they are made of, and then more chunks of 4096. From 8 388 608
// elements on the chunks grow, to keep the sums of a row few enough (2048) for one block to add.
constexpr int64_t kLeastChunk = 8 * kThreads;
constexpr int64_t kChunk = 32 * kThreads;
constexpr int64_t kMaxChunks = ACCL_MAX_CHUNKS;
constexpr int64_t kFillChunks = kMaxChunks < 256 ? kMaxChunks : 256;
constexpr int64_t kMaxBlocks = ACCL_MAX_BLOCKS; // of grid.x
static_assert(kMaxBlocks <= 2147483647, "grid.x is limited to 2^31 - 1");

struct Chunks {
  int64_t size;  // elements of a chunk, a multiple of kLeastChunk
  int64_t count; // chunks of a row
};

constexpr int64_t divide_up(int64_t x, int64_t by) { return (x + by - 1) / by; }

// The chunks of a row depend on its length alone, so its sums do not depend on the rest of the
// batch or on the GPU.
constexpr Chunks chunks_of(int64_t row) {
  int64_t size = kLeastChunk * divide_up(row, kLeastChunk * kFillChunks);
  if (size > kChunk) size = kChunk * divide_up(row, kChunk * kMaxChunks);
  if (size == 0) size = kLeastChunk; // an empty row
  return {size, divide_up(row, size)};
}
static_assert(kThreads * kMaxChunks != 128 * 2048 || chunks_of(256 * 256).count == 64,
              "as said above, with the sizes of a real build");

// For __launch_bounds__: ptxas leaves room for so many blocks on a multiprocessor.
constexpr int resident(int blocks) { return blocks < kMostResident ? blocks : kMostResident; }

constexpr int64_t blocks_for(int64_t units) { return units < kMaxBlocks ? units : kMaxBlocks; }

} // namespace cuda
} // namespace accl
