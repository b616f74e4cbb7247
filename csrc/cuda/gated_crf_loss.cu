// The gated CRF loss and its gather on CUDA. A block has a tile of one plane of an image. A thread
// has one pixel and sums over its window by itself: this needs no atomics, and the order of the sum
// depends on the window alone. The window is taken in parts. For each part the block copies to
// shared memory what all windows of the tile see in it (the tile and its halo, plane by plane),
// then each thread adds its own neighbours.
#include "gated_crf_loss.cuh"

#include <cfloat>

#include "reduce.cuh"

namespace accl {
namespace cuda {
namespace {

// What a thread does with the sums of a group of values: it writes the gradient or the gathered
// sums, and returns its share of the loss.
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

// The least number of blocks on a multiprocessor. Without it ptxas would keep registers in memory
// to make room for more blocks.
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
    if (threadIdx.x == 0) static_cast<T*>(a.scratch)[unit] = sum[0];
  }
  if (problem.sums || a.reduction == Reduction::kNone || !is_last_block(a.ticket)) return;
  double total[1] = {0}; // in double, because the number of sums grows with the batch
  for (int64_t i = threadIdx.x; i < plan.units; i += kThreads) {
    total[0] += double(load_from_l2(static_cast<const T*>(a.scratch) + i));
  }
  block_sum(total);
  if (threadIdx.x == 0) *static_cast<T*>(a.loss) = T(total[0] * double(scale));
}

// Computes 1 / max(1, N) for the N destinations of the batch. counts: one for each chunk, then the
// result.
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
    T* const counts = static_cast<T*>(a.scratch) + plan.units;
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

int64_t gated_crf_scratch(const GatedCrfForward& a) {
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
