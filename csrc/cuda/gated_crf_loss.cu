// The gated CRF loss and its gather on CUDA. A block has a tile of one plane of an image, a thread
// a pixel, which gathers over its window by itself: no atomics, and the order of its sum depends on
// the window alone. The window is worked off in parts: what all windows of the tile see in a part
// is staged in shared memory, tile and halo, plane by plane; then each thread walks its own part.
#include "../math/gated_crf_loss.h"

#include <cfloat>

#include "memory.cuh"
#include "reduce.cuh"

namespace accl {
namespace cuda {
namespace {

// A row of a tile is a warp, whose threads then read neighbouring words of shared memory. In one
// dimension all threads stand side by side.
constexpr int kTileRows = kWarps;

// Offsets of a part of the window along each of its two axes: a radius of 7 is one part (of 3 for
// double, whose elements take twice the room). The largest kernel stages four channels of the image
// and four of the values: 8 * 19 * 47 * 4 + 893 bytes = 29 KiB, of double 8 * 10 * 38 * 8 = 24.
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
  T factor; // 0: the image is not looked at
  T weight;
};

template <class T>
struct Plan {
  Kernel<T> kernel[kMaxCrfKernels];
  int reach[3];
  int columns, rows; // of a tile
  int64_t tiles[2]; // rows and columns of tiles
  int64_t units; // tiles of the batch
  bool two_sided; // the gradient has sums of its own over the destinations
  T factor; // of the loss and its gradient, but for the count of destinations
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
  p.y = p.top + int(threadIdx.x) / plan.columns;
  p.x = p.left + int(threadIdx.x) % plan.columns;
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

  // All threads: tile and halo of a part of the window, zeros outside the image.
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
    __syncthreads(); // it is staged before any thread looks
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

  // Selected, not multiplied: what stands in a pixel without the role may be NaN.
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

// |I_i - I_j|^2; channels beyond the staged ones are read where they lie.
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

// What a thread makes of a group's sums: writes gradient or gathered sums, returns its share of the
// loss.
template <class T, int kValues>
__device__ __forceinline__ T finish(const Problem<T>& problem, const Plan<T>& plan, const Place& p,
                                    const Sums<T, kValues>& sums, int64_t first_value, T scale) {
  const GatedCrfForward& a = problem.a;
  const int64_t pixel = (p.z * a.size[1] + p.y) * a.size[2] + p.x;
  const unsigned char role = roles(a, p.image * a.pixels + pixel);
  T loss = a.classes > 1 && first_value == 0 ? sums.received_rest : T(0);
#pragma unroll
  for (int c = 0; c < kValues; ++c) {
    if (first_value + c >= a.classes) continue;
    const int64_t at = (p.image * a.classes + first_value + c) * a.pixels + pixel;
    if (problem.sums) {
      static_cast<T*>(problem.sums)[at] = role & kReceives ? sums.received[c] : T(0);
      continue;
    }
    const T value = element<T>(a.values, a.dtype, at);
    T received = -sums.received[c], given = -sums.given[c];
    if (a.classes == 1) {
      loss = binary_disagreement(value, sums.received[0], sums.received_rest);
      received = binary_disagreement_slope(sums.received[0], sums.received_rest);
      given = binary_disagreement_slope(sums.given[0], sums.given_rest);
    } else {
      loss -= value * sums.received[c];
    }
    if (!a.gradient) continue;
    if (!plan.two_sided) given = received;
    const T slope = (role & kReceives ? received : T(0)) + (role & kGives ? given : T(0));
    static_cast<T*>(a.gradient)[at] = slope * scale;
  }
  return sums.any && (role & kReceives) ? loss : T(0);
}

// So many blocks share a multiprocessor at the least: without a number, ptxas keeps registers in
// memory for the sake of more blocks.
template <class T>
constexpr int kCrfBlocks = sizeof(T) == 8 ? 3 : 6;

template <class T, int kValues, int kImage>
__global__ void __launch_bounds__(kThreads, kCrfBlocks<T>)
    crf_window(const __grid_constant__ Problem<T> problem, const __grid_constant__ Plan<T> plan) {
  const GatedCrfForward& a = problem.a;
  ACCL_SHARED(T, image, kImage * kStaged<T>);
  ACCL_SHARED(T, values, kValues * kStaged<T>);
  ACCL_SHARED(unsigned char, roles_of, kStaged<T>);
  Stage<T, kValues, kImage> stage = {image, values, roles_of};
  const T scale = problem.scale ? *problem.scale : plan.factor;
  for (int64_t unit = blockIdx.x; unit < plan.units; unit += gridDim.x) {
    const Place p = place(a, plan, unit);
    const int64_t pixel = (p.z * a.size[1] + p.y) * a.size[2] + p.x;
    T center[kImage];
#pragma unroll
    for (int c = 0; c < kImage; ++c) {
      const bool has = p.inside && c < a.channels;
      center[c] =
          has ? element<T>(a.image, a.image_dtype, (p.image * a.channels + c) * a.pixels + pixel)
              : T(0);
    }
    T loss = T(0);
    for (int64_t first = 0; first < a.classes; first += kValues) {
      Sums<T, kValues> sums;
      sums.clear();
      for (int z = -plan.reach[0]; z <= plan.reach[0]; ++z) {
        if (p.z + z < 0 || p.z + z >= a.size[0]) continue;
        for (int y = -plan.reach[1]; y <= plan.reach[1]; y += kSpan<T>) {
          for (int x = -plan.reach[2]; x <= plan.reach[2]; x += kSpan<T>) {
            const int rows = plan.reach[1] - y + 1, columns = plan.reach[2] - x + 1;
            const Part part = {z, y, x, rows < kSpan<T> ? rows : kSpan<T>,
                               columns < kSpan<T> ? columns : kSpan<T>};
            stage.fill(a, plan, p, part, first);
            if (p.inside) walk<T, kValues, kImage>(a, plan, p, part, stage, center, &sums);
          }
        }
      }
      if (p.inside) loss += finish<T, kValues>(problem, plan, p, sums, first, scale);
    }
    if (problem.sums) continue;
    if (a.reduction == Reduction::kNone) {
      if (p.inside) static_cast<T*>(a.loss)[p.image * a.pixels + pixel] = loss;
      continue;
    }
    T sum[1] = {loss};
    block_sum(sum);
    if (threadIdx.x == 0) static_cast<T*>(a.partials)[unit] = sum[0];
  }
  if (problem.sums || a.reduction == Reduction::kNone || !is_last_block(a.ticket)) return;
  double total[1] = {0}; // many partial sums in double: their number grows with the batch
  for (int64_t i = threadIdx.x; i < plan.units; i += kThreads) {
    total[0] += double(load_from_l2(static_cast<const T*>(a.partials) + i));
  }
  block_sum(total);
  if (threadIdx.x == 0) *static_cast<T*>(a.loss) = T(total[0] * double(scale));
}

// 1 / max(1, N) for the destinations of the batch. counts: one of each chunk, then the result.
template <class T>
__global__ void __launch_bounds__(kThreads)
    count_destinations(const bool* destination, int64_t pixels, const Chunks chunks, T* counts,
                       int32_t* ticket) {
  for (int64_t chunk = blockIdx.x; chunk < chunks.count; chunk += gridDim.x) {
    const int64_t begin = chunk * chunks.size;
    const int64_t end = begin + chunks.size < pixels ? begin + chunks.size : pixels;
    double count[1] = {0}; // whole numbers, so exact in any order
    int64_t of_thread = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) of_thread += destination[i];
    count[0] = double(of_thread);
    block_sum(count);
    if (threadIdx.x == 0) counts[chunk] = T(count[0]);
  }
  if (!is_last_block(ticket)) return;
  double total[1] = {0};
  for (int64_t i = threadIdx.x; i < chunks.count; i += kThreads) {
    total[0] += double(load_from_l2(counts + i));
  }
  block_sum(total);
  if (threadIdx.x == 0) counts[chunks.count] = T(1 / (total[0] > 1 ? total[0] : 1));
}

bool counts_destinations(const GatedCrfForward& a) {
  return a.reduction == Reduction::kMean && a.destination;
}

template <class T>
Plan<T> plan_of(const GatedCrfArguments& a) {
  Plan<T> plan = {};
  const double largest = sizeof(T) == 8 ? DBL_MAX : FLT_MAX;
  for (int m = 0; m < a.kernels; ++m) {
    const GatedCrfKernel& from = a.kernel[m];
    for (int axis = 0; axis < 3; ++axis) {
      int64_t steps[3] = {0, 0, 0};
      steps[axis] = 1;
      const double exponent = distance_exponent(steps, a.spacing, from.sigma_space);
      plan.kernel[m].step[axis] = T(exponent > -1e30 ? exponent : -1e30);
    }
    const bool flat = !(from.sigma_image <= DBL_MAX);
    plan.kernel[m].factor = flat ? T(0) : T(-gaussian_factor(from.sigma_image, largest));
    plan.kernel[m].weight = T(from.weight);
  }
  for (int axis = 0; axis < 3; ++axis) {
    plan.reach[axis] = int(a.radius < a.size[axis] - 1 ? a.radius : a.size[axis] - 1);
  }
  plan.rows = a.size[1] == 1 ? 1 : kTileRows;
  plan.columns = kThreads / plan.rows;
  plan.tiles[0] = (a.size[1] + plan.rows - 1) / plan.rows;
  plan.tiles[1] = (a.size[2] + plan.columns - 1) / plan.columns;
  plan.units = a.images * a.size[0] * plan.tiles[0] * plan.tiles[1];
  plan.two_sided = a.source != a.destination;
  plan.factor = T(1);
  return plan;
}

template <class T>
int launch(const Problem<T>& problem, const Plan<T>& plan, cudaStream_t stream) {
  const int64_t blocks = blocks_for(plan.units);
  const GatedCrfForward& a = problem.a;
  if (!problem.sums && a.reduction != Reduction::kNone && blocks > 1) {
    const cudaError_t error = cudaMemsetAsync(a.ticket, 0, sizeof(*a.ticket), stream);
    if (error != cudaSuccess) return int(error);
  }
  if (a.channels == 1 && a.classes == 1) {
    ACCL_LAUNCH((crf_window<T, 1, 1>), blocks, stream, problem, plan);
  } else if (a.channels == 1) {
    ACCL_LAUNCH((crf_window<T, 4, 1>), blocks, stream, problem, plan);
  } else {
    ACCL_LAUNCH((crf_window<T, 4, 4>), blocks, stream, problem, plan);
  }
  return int(cudaGetLastError());
}

template <class T>
int forward(const GatedCrfForward& a, cudaStream_t stream) {
  Plan<T> plan = plan_of<T>(a);
  T* scale = nullptr;
  if (counts_destinations(a)) {
    const int64_t pixels = a.images * a.pixels;
    const Chunks chunks = chunks_of(pixels);
    T* const counts = static_cast<T*>(a.partials) + plan.units;
    const cudaError_t error = cudaMemsetAsync(a.ticket, 0, sizeof(*a.ticket), stream);
    if (error != cudaSuccess) return int(error);
    ACCL_LAUNCH((count_destinations<T>), blocks_for(chunks.count), stream, a.destination, pixels,
                chunks, counts, a.ticket);
    scale = counts + chunks.count;
  } else if (a.reduction == Reduction::kMean) {
    plan.factor = T(1 / (double(a.images) * double(a.pixels)));
  }
  return launch<T>({a, nullptr, scale}, plan, stream);
}

template <class T>
int gather(const GatedCrfGather& a, cudaStream_t stream) {
  Problem<T> problem = {};
  static_cast<GatedCrfArguments&>(problem.a) = a;
  problem.sums = a.sums;
  Plan<T> plan = plan_of<T>(a);
  plan.two_sided = false;
  return launch<T>(problem, plan, stream);
}

} // namespace

int64_t gated_crf_partials(const GatedCrfForward& a) {
  if (a.reduction == Reduction::kNone) return 0;
  const int64_t units = plan_of<float>(a).units;
  return counts_destinations(a) ? units + chunks_of(a.images * a.pixels).count + 1 : units;
}

int gated_crf_forward(const GatedCrfForward& a, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  return a.dtype == DType::kFloat64 ? forward<double>(a, on) : forward<float>(a, on);
}

int gated_crf_gather(const GatedCrfGather& a, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  return a.dtype == DType::kFloat64 ? gather<double>(a, on) : gather<float>(a, on);
}

} // namespace cuda
} // namespace accl
