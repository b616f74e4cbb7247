// Elements and their conversion, and vectors of them in memory: 16 bytes at a time where alignment
// allows, one by one elsewhere. Which thread sees which element never depends on alignment.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "../kernels.h"
#include "launch.cuh"

namespace accl {
namespace cuda {

template <class In>
struct AccumulationOf {
  typedef float type;
};
template <>
struct AccumulationOf<double> {
  typedef double type;
};
template <class In>
using Accumulation = typename AccumulationOf<In>::type;

__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }

template <class In>
__device__ __forceinline__ In narrow(Accumulation<In> x) {
  return x;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// The widest word that memory moves kBytes in, and the same bits as a number.
template <int kBytes>
struct WordOf {
  typedef uint4 type;
  typedef void bits;
};
template <>
struct WordOf<8> {
  typedef uint2 type;
  typedef uint64_t bits;
};
template <>
struct WordOf<4> {
  typedef unsigned int type;
  typedef uint32_t bits;
};
template <>
struct WordOf<2> {
  typedef unsigned short type;
  typedef uint16_t bits;
};

template <class X, int kWidth>
struct Words {
  typedef typename WordOf<sizeof(X) * kWidth>::type Word;
  typedef typename WordOf<sizeof(X) * kWidth>::bits Bits;
  static constexpr int kCount = sizeof(X) * kWidth / sizeof(Word);
  static_assert(kCount * sizeof(Word) == sizeof(X) * kWidth, "whole words");
};

// What a thread has of a tile: kVectors vectors of kWidth neighbouring elements, kThreads vectors
// apart, so that a warp's accesses are contiguous. Elements from `end` on are padding.
template <int kVectors_, int kWidth_>
struct Tile {
  static constexpr int kVectors = kVectors_;
  static constexpr int kWidth = kWidth_;
  static constexpr int64_t kElements = int64_t(kThreads) * kVectors * kWidth;
  static_assert(kChunk % kElements == 0, "a chunk is whole tiles");

  int64_t begin; // of the tile, counted from the row's start
  int64_t end;   // of the chunk
  bool aligned;  // every row begins at a multiple of 16 bytes

  __device__ __forceinline__ int64_t at(int v) const {
    return begin + (int64_t(v) * kThreads + threadIdx.x) * kWidth;
  }
  __device__ __forceinline__ bool holds(int v, int j) const { return at(v) + j < end; }

  template <class X>
  __device__ __forceinline__ void load(const X* row, int v, X padding, X (&to)[kWidth]) const {
    typedef typename Words<X, kWidth>::Word Word;
    if (aligned && holds(v, kWidth - 1)) {
      Word words[Words<X, kWidth>::kCount];
#pragma unroll
      for (int i = 0; i < Words<X, kWidth>::kCount; ++i) {
        words[i] = reinterpret_cast<const Word*>(row + at(v))[i];
      }
      memcpy(to, words, sizeof(to));
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) to[j] = holds(v, j) ? row[at(v) + j] : padding;
    }
  }

  template <class X>
  __device__ __forceinline__ void store(X* row, int v, const X (&from)[kWidth]) const {
    typedef typename Words<X, kWidth>::Word Word;
    if (aligned && holds(v, kWidth - 1)) {
      Word words[Words<X, kWidth>::kCount];
      memcpy(words, from, sizeof(from));
#pragma unroll
      for (int i = 0; i < Words<X, kWidth>::kCount; ++i) {
        reinterpret_cast<Word*>(row + at(v))[i] = words[i];
      }
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (holds(v, j)) row[at(v) + j] = from[j];
      }
    }
  }
};

// Elements of a 16-byte access.
template <class In>
constexpr int kWidthOf = 16 / int(sizeof(In));

// Whether vectors of so many bytes can be accessed whole; so is a null pointer's.
inline bool is_aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % (bytes < 16 ? bytes : 16) == 0;
}

// Calls launch(In()) for the element type of a dtype.
template <class Launch>
int dispatch(DType dtype, const Launch& launch) {
  switch (dtype) {
    case DType::kFloat16: return launch(__half());
    case DType::kBFloat16: return launch(__nv_bfloat16());
    case DType::kFloat64: return launch(double());
    case DType::kFloat32: break;
  }
  return launch(float());
}

} // namespace cuda
} // namespace accl
