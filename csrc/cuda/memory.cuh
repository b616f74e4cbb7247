// Elements and their conversion, and vectors of them in memory: a vector at a time where alignment
// allows, one by one elsewhere. Which thread sees which element never depends on alignment.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstring>

#include "../kernels.h"
#include "launch.cuh"
#include "ptx.cuh"

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

// A word of kBytes (16 at most) that memory moves at once, and the same bits as a number.
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
template <>
struct WordOf<1> {
  typedef unsigned char type;
  typedef uint8_t bits;
};

template <class X, int kWidth>
struct Words {
  typedef typename WordOf<sizeof(X) * kWidth>::type Word;
  typedef typename WordOf<sizeof(X) * kWidth>::bits Bits;
  static constexpr int kCount = sizeof(X) * kWidth / sizeof(Word);
  static_assert(kCount * sizeof(Word) == sizeof(X) * kWidth, "whole words");
};

// What a thread has of a tile: kVectors vectors of kWidth neighbouring elements, kThreads vectors
// apart, so that a warp's accesses are contiguous. A tile can be longer than the rest of its chunk;
// elements beyond the chunk's end are padding.
enum class Padding {
  kElements, // at any element, and the rows may not be aligned
  kVectors,  // whole vectors after the first, and the rows are aligned
};

template <int kVectors_, int kWidth_, Padding kPadding = Padding::kElements>
class Tile {
 public:
  static constexpr int kVectors = kVectors_;
  static constexpr int kWidth = kWidth_;
  static constexpr int kStride = kThreads * kWidth; // from one vector of a thread to its next
  static constexpr int kElements = kVectors * kStride;
  static_assert(kLeastChunk % kElements == 0, "a chunk holds whole tiles");

  // `begin` and `end`, of the tile and of the chunk, count from the row's start. `aligned`: every
  // row begins at a multiple of the vectors' bytes.
  __device__ __forceinline__ Tile(int64_t begin, int64_t end, bool aligned)
      : first_(begin + int(threadIdx.x) * kWidth),
        left_(end - first_ < kElements ? int(end - first_) : kElements),
        aligned_(aligned) {}

  __device__ __forceinline__ int64_t at(int v) const { return first_ + v * kStride; }
  __device__ __forceinline__ bool holds(int v, int j) const {
    if constexpr (kPadding == Padding::kVectors) return v == 0 || v * kStride < left_;
    return v * kStride + j < left_;
  }

  template <class X>
  __device__ __forceinline__ void load(const X* row, int v, X padding, X (&to)[kWidth]) const {
    typedef typename Words<X, kWidth>::Word Word;
    const X* const from = row + at(v);
    if (holds_vector(v)) {
      Word words[Words<X, kWidth>::kCount];
#pragma unroll
      for (int i = 0; i < Words<X, kWidth>::kCount; ++i) {
        words[i] = reinterpret_cast<const Word*>(from)[i];
      }
      memcpy(to, words, sizeof(to));
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) to[j] = has_single(v, j) ? from[j] : padding;
    }
  }

  template <class X>
  __device__ __forceinline__ void store(X* row, int v, const X (&from)[kWidth]) const {
    typedef typename Words<X, kWidth>::Word Word;
    X* const to = row + at(v);
    if (holds_vector(v)) {
      Word words[Words<X, kWidth>::kCount];
      memcpy(words, from, sizeof(from));
#pragma unroll
      for (int i = 0; i < Words<X, kWidth>::kCount; ++i) {
        store_word(reinterpret_cast<Word*>(to) + i, words[i]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if (has_single(v, j)) to[j] = from[j];
      }
    }
  }

 private:
  template <class AnyTile, class Function>
  friend __device__ void for_tiles(int64_t begin, int64_t end, bool aligned,
                                   const Function& function);

  __device__ __forceinline__ Tile(int64_t first, int left)
      : first_(first), left_(left), aligned_(true) {}
  __device__ __forceinline__ bool holds_vector(int v) const {
    return holds(v, kWidth - 1) && (kPadding == Padding::kVectors || aligned_);
  }
  // True for an element that is not moved with its vector.
  __device__ __forceinline__ bool has_single(int v, int j) const {
    return kPadding == Padding::kElements && holds(v, j);
  }

  int64_t first_; // of this thread's elements
  int left_;      // elements from there to the chunk's end, or more than the tile has
  bool aligned_;
};

// Calls function(tile) for the elements that a thread has in a chunk. They come vector by vector,
// as many of a tile's as the chunk has, in one call; one by one where the rows are not aligned, and
// in the one thread whose vector the chunk's end cuts. The order is the same.
template <class AnyTile, class Function>
__device__ __forceinline__ void for_tiles(int64_t begin, int64_t end, bool aligned,
                                          const Function& function) {
  constexpr int kVectors = AnyTile::kVectors, kWidth = AnyTile::kWidth;
  typedef Tile<kVectors, kWidth, Padding::kVectors> Vectors;
  typedef Tile<1, 1, Padding::kVectors> Element;
  for (int64_t at = begin; at < end; at += AnyTile::kElements) {
    const int rest = end - at < AnyTile::kElements ? int(end - at) : AnyTile::kElements;
    const int left = rest - int(threadIdx.x) * kWidth; // from this thread's first element on
    if (left <= 0) continue;
    const Vectors tile(at + int(threadIdx.x) * kWidth, left);
    const int last = left % AnyTile::kStride; // of the vector that the chunk ends in or behind
    if (aligned && (last == 0 || last >= kWidth)) {
      function(tile);
      continue;
    }
#pragma unroll 1
    for (int v = 0; v < kVectors; ++v) {
#pragma unroll 1
      for (int j = 0; j < kWidth && tile.at(v) + j < end; ++j) {
        function(Element(tile.at(v) + j, 1));
      }
    }
  }
}

// A vector has as many elements as 16 bytes hold in the accumulation type. Maps of both types are
// then written in whole sectors of 32 bytes.
template <class In>
constexpr int kWidthOf = 16 / int(sizeof(Accumulation<In>));

// True if the pointer is aligned for vectors of that many bytes; null counts as aligned.
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
