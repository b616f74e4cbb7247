// A tile of the gated CRF loss: its place, the part of the window that is staged (copied to shared
// memory), and a thread's walk over it.
#pragma once

#include <cuda_runtime.h> // first, so that math/ is compiled for the device

#include "../math/gated_crf_loss.h"
#include "memory.cuh"

namespace accl {
namespace cuda {
namespace { // these short names are used by other families too

// A row of a tile is a warp, whose threads then read neighbouring words of shared memory. In one
// dimension all threads stand side by side.
constexpr int kTileRows = kWarps;

// The most offsets that a part of the window has along each of its two axes. A window of radius 7
// is one part; for double, whose elements take twice the room, one of radius 3. The largest kernel
// stages four channels of the image and four of the values: 8 * 19 * 47 * 4 + 893 bytes = 29 KiB,
// or for double 8 * 10 * 38 * 8 + 380 bytes = 24 KiB.
template <class T>
constexpr int kSpan = sizeof(T) == 8 ? 7 : 16;
template <class T>
constexpr int kStaged = (kTileRows + kSpan<T> - 1) * (kThreads / kTileRows + kSpan<T> - 1);
template <class T>
constexpr bool kHoldsOneRow = kStaged<T> >= kThreads + kSpan<T> - 1;
static_assert(kHoldsOneRow<float> && kHoldsOneRow<double>, "a tile of one dimension fits too");

constexpr unsigned char kGives = 1; // source
constexpr unsigned char kReceives = 2; // destination

// A kernel's numbers: 2^(step[0] dz^2 + step[1] dy^2 + step[2] dx^2 + factor |I_i - I_j|^2).
template <class T>
struct Kernel {
  T step[3];
  T factor; // 0 if the kernel does not look at the image
  T weight;
};

template <class T>
struct Plan {
  Kernel<T> kernel[kMaxCrfKernels];
  int reach[3];
  int columns, rows; // of a tile
  int run; // neighbouring pixels of a thread
  int64_t tiles[2]; // rows and columns of tiles
  int64_t units; // tiles of the batch
  bool two_sided; // the gradient also needs sums over the destinations
  T factor; // of the loss and its gradient, without Problem::scale
};

template <class T>
struct Problem {
  GatedCrfForward a;
  void* sums; // the gather's result; null: the loss
  const T* scale; // 1 / N of a mean over destinations that had to be counted, or null
};

template <class T>
__device__ __forceinline__ T element(const void* array, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kFloat16: return T(widen(static_cast<const __half*>(array)[i]));
    case DType::kBFloat16: return T(widen(static_cast<const __nv_bfloat16*>(array)[i]));
    case DType::kFloat64: return T(static_cast<const double*>(array)[i]);
    case DType::kFloat32: break;
  }
  return T(static_cast<const float*>(array)[i]);
}

__device__ __forceinline__ float power_of_2(float x) { return exp2_approximate(x); }
__device__ __forceinline__ double power_of_2(double x) { return exp2(x); }

__device__ __forceinline__ unsigned char roles(const GatedCrfArguments& a, int64_t i) {
  return (!a.source || a.source[i] ? kGives : 0) |
         (!a.destination || a.destination[i] ? kReceives : 0);
}

// Where a tile lies, and the pixel of this thread.
struct Place {
  int64_t image;
  int64_t z, y, x; // of the pixel
  int64_t top, left; // of the tile
  bool inside;
};

template <class T>
__device__ __forceinline__ Place place(const GatedCrfArguments& a, const Plan<T>& plan,
                                       int64_t unit) {
  Place p;
  const int64_t of_plane = plan.tiles[0] * plan.tiles[1];
  const int64_t plane = unit / of_plane, tile = unit % of_plane;
  p.image = plane / a.size[0];
  p.z = plane % a.size[0];
  p.top = tile / plan.tiles[1] * plan.rows;
  p.left = tile % plan.tiles[1] * plan.columns;
  const int threads = plan.columns / plan.run; // of a row
  p.y = p.top + int(threadIdx.x) / threads;
  p.x = p.left + int(threadIdx.x) % threads * plan.run;
  p.inside = p.y < a.size[1] && p.x < a.size[2];
  return p;
}

// A part of the window in one plane: offsets from (top, left) on.
struct Part {
  int z, top, left, rows, columns;
};

template <class T, int kValues, int kImage>
struct Stage {
  T (&image)[kImage * kStaged<T>];
  T (&values)[kValues * kStaged<T>];
  unsigned char (&roles_of)[kStaged<T>];

  // Copies the tile and its halo for a part of the window, with zeros outside the image. All
  // threads of the block call it.
  __device__ __forceinline__ void fill(const GatedCrfArguments& a, const Plan<T>& plan,
                                       const Place& p, const Part& part, int64_t first_value) {
    const int pitch = plan.columns + part.columns - 1;
    const int count = pitch * (plan.rows + part.rows - 1);
    __syncthreads(); // the previous part has been read
    for (int e = threadIdx.x; e < count; e += kThreads) {
      const int64_t z = p.z + part.z;
      const int64_t y = p.top + part.top + e / pitch, x = p.left + part.left + e % pitch;
      const bool exists = y >= 0 && y < a.size[1] && x >= 0 && x < a.size[2];
      const int64_t pixel = (z * a.size[1] + y) * a.size[2] + x;
      roles_of[e] = exists ? roles(a, p.image * a.pixels + pixel) : 0;
#pragma unroll
      for (int c = 0; c < kImage; ++c) {
        const bool has = exists && c < a.channels;
        image[c * kStaged<T> + e] =
            has ? element<T>(a.image, a.image_dtype, (p.image * a.channels + c) * a.pixels + pixel)
                : T(0);
      }
#pragma unroll
      for (int c = 0; c < kValues; ++c) {
        const bool has = exists && first_value + c < a.classes;
        const int64_t at = (p.image * a.classes + first_value + c) * a.pixels + pixel;
        values[c * kStaged<T> + e] = has ? element<T>(a.values, a.dtype, at) : T(0);
      }
    }
    __syncthreads(); // everything is staged before any thread reads it
  }
};

// A thread's sums over its window: over the sources for what the pixel receives, over the
// destinations for what it gives.
template <class T, int kValues>
struct Sums {
  T received[kValues], given[kValues];
  T received_rest, given_rest; // of 1 - p for one class, else of 1
  bool any;

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int c = 0; c < kValues; ++c) received[c] = given[c] = T(0);
    received_rest = given_rest = T(0);
    any = false;
  }

  // Multiplies by the weight of the only kernel. With several, k contains it.
  __device__ __forceinline__ void weigh(T weight) {
    any = !(received[0] == T(0) && received_rest == T(0)); // a pair has a weight above 0, or a NaN
#pragma unroll
    for (int c = 0; c < kValues; ++c) received[c] *= weight, given[c] *= weight;
    received_rest *= weight, given_rest *= weight;
  }

  // Short sums first: a long one in float loses digits.
  __device__ __forceinline__ void add(const Sums& row) {
#pragma unroll
    for (int c = 0; c < kValues; ++c) {
      received[c] += row.received[c];
      given[c] += row.given[c];
    }
    received_rest += row.received_rest;
    given_rest += row.given_rest;
    any = any || row.any;
  }

  // Selects instead of multiplying by 0: the value of a pixel without the role may be NaN.
  __device__ __forceinline__ void add(T k, unsigned char role, const T (&x)[kValues], T rest,
                                      bool two_sided) {
    if (role & kGives) {
      any = true;
#pragma unroll
      for (int c = 0; c < kValues; ++c) received[c] = fma(k, x[c], received[c]);
      received_rest = fma(k, rest, received_rest);
    }
    if (two_sided && (role & kReceives)) {
#pragma unroll
      for (int c = 0; c < kValues; ++c) given[c] = fma(k, x[c], given[c]);
      given_rest = fma(k, rest, given_rest);
    }
  }
};

// |I_i - I_j|^2. Channels that are not staged are read from the image itself.
template <class T, int kImage>
__device__ __forceinline__ T squared_difference(const GatedCrfArguments& a,
                                                const T (&center)[kImage], const T* staged,
                                                int64_t i, int64_t j) {
  T squared = T(0);
#pragma unroll
  for (int c = 0; c < kImage; ++c) {
    const T d = center[c] - staged[c * kStaged<T>];
    squared = fma(d, d, squared);
  }
  for (int64_t c = kImage; c < a.channels; ++c) {
    const T d = element<T>(a.image, a.image_dtype, c * a.pixels + i) -
                element<T>(a.image, a.image_dtype, c * a.pixels + j);
    squared = fma(d, d, squared);
  }
  return squared;
}

template <class T, int kValues, int kImage>
__device__ __forceinline__ void walk(const GatedCrfArguments& a, const Plan<T>& plan,
                                     const Place& p, const Part& part,
                                     const Stage<T, kValues, kImage>& stage,
                                     const T (&center)[kImage], Sums<T, kValues>* sums) {
  const int pitch = plan.columns + part.columns - 1;
  const int64_t of_image = p.image * a.channels * a.pixels;
  const int64_t i = of_image + (p.z * a.size[1] + p.y) * a.size[2] + p.x;
  for (int row = 0; row < part.rows; ++row) {
    Sums<T, kValues> of_row;
    of_row.clear();
    for (int column = 0; column < part.columns; ++column) {
      const int dy = part.top + row, dx = part.left + column;
      if (part.z == 0 && dy == 0 && dx == 0) continue;
      const int at = (int(p.y - p.top) + row) * pitch + int(p.x - p.left) + column;
      const unsigned char role = stage.roles_of[at];
      if (role == 0) continue;
      const int64_t j = i + (int64_t(part.z) * a.size[1] + dy) * a.size[2] + dx;
      const T squared = squared_difference<T, kImage>(a, center, stage.image + at, i, j);
      T k = T(0);
      for (int m = 0; m < a.kernels; ++m) {
        const Kernel<T>& kernel = plan.kernel[m];
        T exponent = T(part.z) * T(part.z) * kernel.step[0] + T(dy) * T(dy) * kernel.step[1];
        exponent = fma(T(dx) * T(dx), kernel.step[2], exponent);
        if (kernel.factor != T(0)) exponent = fma(squared, kernel.factor, exponent);
        k = fma(kernel.weight, power_of_2(exponent), k);
      }
      T x[kValues];
#pragma unroll
      for (int c = 0; c < kValues; ++c) x[c] = stage.values[c * kStaged<T> + at];
      of_row.add(k, role, x, a.classes == 1 ? T(1) - x[0] : T(1), plan.two_sided);
    }
    sums->add(of_row);
  }
}

} // namespace
} // namespace cuda
} // namespace accl
