// The gated CRF loss and its gather on CUDA. A block has a tile of one plane of an image. A thread
// has one pixel and sums over its window by itself: this needs no atomics, and the order of the sum
// depends on the window alone. The window is taken in parts. For each part the block copies to
// shared memory what all windows of the tile see in it (the tile and its halo, plane by plane),
// then each thread adds its own neighbours.
#include "gated_crf_run.cuh"

#include <cfloat>

#include "reduce.cuh"

namespace accl {
namespace cuda {
namespace {

// What a pixel's sums give for class first_value + c: the number of the map that is asked for (the
// gathered sum, or the gradient). Adds to the pixel's share of the loss.
template <class T, int kValues>
__device__ __forceinline__ T finish_class(const Problem<T>& problem, const Plan<T>& plan,
                                          unsigned char role, int64_t at, int c,
                                          const Sums<T, kValues>& sums, T scale, T* loss) {
  const GatedCrfForward& a = problem.a;
  if (problem.sums) return role & kReceives ? sums.received[c] : T(0);
  const T value = element<T>(a.values, a.dtype, at);
  T received = -sums.received[c], given = -sums.given[c];
  if (a.classes == 1) {
    *loss = binary_disagreement(value, sums.received[0], sums.received_rest);
    received = binary_disagreement_slope(sums.received[0], sums.received_rest);
    given = binary_disagreement_slope(sums.given[0], sums.given_rest);
  } else {
    *loss -= value * sums.received[c];
  }
  if (!plan.two_sided) given = received;
  const T slope = (role & kReceives ? received : T(0)) + (role & kGives ? given : T(0));
  return slope * scale;
}

// The map that the sums of the window become, or null.
template <class T>
__device__ __forceinline__ T* map_of(const Problem<T>& problem) {
  return static_cast<T*>(problem.sums ? problem.sums : problem.a.gradient);
}

// The last block adds the sums of all tiles.
template <class T>
__device__ __forceinline__ void finish_loss(const GatedCrfForward& a, int64_t units, T scale) {
  double total[1] = {0}; // in double, because the number of sums grows with the batch
  for (int64_t i = threadIdx.x; i < units; i += kThreads) {
    total[0] += double(load_from_l2(static_cast<const T*>(a.scratch) + i));
  }
  block_sum(total);
  if (threadIdx.x == 0) *static_cast<T*>(a.loss) = T(total[0] * double(scale));
}

// What a thread does with the sums of a group of values: it writes the gradient or the gathered
// sums, and returns its share of the loss.
template <class T, int kValues>
__device__ __forceinline__ T finish(const Problem<T>& problem, const Plan<T>& plan, const Place& p,
                                    const Sums<T, kValues>& sums, int64_t first_value, T scale) {
  const GatedCrfForward& a = problem.a;
  const int64_t pixel = (p.z * a.size[1] + p.y) * a.size[2] + p.x;
  const unsigned char role = roles(a, p.image * a.pixels + pixel);
  T* const map = map_of(problem);
  T loss = a.classes > 1 && first_value == 0 ? sums.received_rest : T(0);
#pragma unroll
  for (int c = 0; c < kValues; ++c) {
    if (first_value + c >= a.classes) continue;
    const int64_t at = (p.image * a.classes + first_value + c) * a.pixels + pixel;
    const T result = finish_class(problem, plan, role, at, c, sums, scale, &loss);
    if (map) map[at] = result;
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
  finish_loss<T>(a, plan.units, scale);
}

// The same for the pixels of a run, whose shares of the loss it adds to `loss`.
template <int kValues>
__device__ __forceinline__ void finish_run(const Problem<float>& problem, const Plan<float>& plan,
                                           const Place& p, Sums<float, kValues> (&sums)[kRun],
                                           int64_t first_value, float scale, float (&loss)[kRun]) {
  const GatedCrfForward& a = problem.a;
  const int64_t pixel = (p.z * a.size[1] + p.y) * a.size[2] + p.x;
  const int count = a.size[2] - p.x < kRun ? int(a.size[2] - p.x) : kRun;
  unsigned char role[kRun];
  float of_group[kRun];
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    sums[i].weigh(plan.kernel[0].weight);
    role[i] = i < count ? roles(a, p.image * a.pixels + pixel + i) : 0;
    of_group[i] = a.classes > 1 && first_value == 0 ? sums[i].received_rest : 0.0f;
  }
#pragma unroll
  for (int c = 0; c < kValues; ++c) {
    if (first_value + c >= a.classes) continue;
    const int64_t at = (p.image * a.classes + first_value + c) * a.pixels + pixel;
    float result[kRun];
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      if (i >= count) continue;
      result[i] = finish_class(problem, plan, role[i], at + i, c, sums[i], scale, &of_group[i]);
    }
    if (map_of(problem)) store_run(map_of(problem) + at, result, count);
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (sums[i].any && (role[i] & kReceives)) loss[i] += of_group[i];
  }
}

// Without it ptxas would keep sums in memory to make room for more blocks.
template <int kChannels, int kValues>
constexpr int kRunBlocks = kChannels + kValues == 2 ? 4 : 2;

template <int kChannels, int kValues, bool kTwoSided>
__global__ void __launch_bounds__(kThreads, kRunBlocks<kChannels, kValues>)
    crf_run(const __grid_constant__ Problem<float> problem,
            const __grid_constant__ Plan<float> plan) {
  typedef RunOf<kChannels, kValues, kTwoSided> Run;
  const GatedCrfForward& a = problem.a;
  ACCL_SHARED(float4, image, Run::kStaged / kRun * kChannels);
  ACCL_SHARED(float4, weights, Run::kStaged / kRun * Run::kArrays);
  ACCL_SHARED(float4, table, Run::kTable / kRun * Run::kSpan);
  RunStage<Run> stage = {image, weights, table, 0};
  const float scale = problem.scale ? *problem.scale : plan.factor;
  for (int64_t unit = blockIdx.x; unit < plan.units; unit += gridDim.x) {
    const Place p = place(a, plan, unit);
    float center[kChannels][kRun], loss[kRun] = {};
    load_center(a, plan, p, center);
    for (int64_t first = 0; first < a.classes; first += kValues) {
      Sums<float, kValues> sums[kRun];
#pragma unroll
      for (int i = 0; i < kRun; ++i) sums[i].clear();
      walk_window(a, plan, p, stage, center, first, sums);
      if (p.inside) finish_run(problem, plan, p, sums, first, scale, loss);
    }
    if (problem.sums) continue;
    if (a.reduction == Reduction::kNone) {
      const int64_t pixel = (p.z * a.size[1] + p.y) * a.size[2] + p.x;
      float* const to = static_cast<float*>(a.loss) + p.image * a.pixels + pixel;
      const int64_t left = a.size[2] - p.x;
      if (p.inside) store_run(to, loss, left < kRun ? int(left) : kRun);
      continue;
    }
    float sum[1] = {(loss[0] + loss[1]) + (loss[2] + loss[3])};
    block_sum(sum);
    if (threadIdx.x == 0) static_cast<float*>(a.scratch)[unit] = sum[0];
  }
  if (problem.sums || a.reduction == Reduction::kNone || !is_last_block(a.ticket)) return;
  finish_loss<float>(a, plan.units, scale);
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

// True for the calls that crf_run takes.
template <class T>
bool has_runs(const GatedCrfArguments& a) {
  return sizeof(T) == 4 && a.kernels == 1 && a.channels <= 4;
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
  plan.run = has_runs<T>(a) ? kRun : 1;
  plan.rows = a.size[1] == 1 ? 1 : has_runs<T>(a) ? kRunRows : kTileRows;
  plan.columns = kThreads * plan.run / plan.rows;
  plan.tiles[0] = (a.size[1] + plan.rows - 1) / plan.rows;
  plan.tiles[1] = (a.size[2] + plan.columns - 1) / plan.columns;
  plan.units = a.images * a.size[0] * plan.tiles[0] * plan.tiles[1];
  plan.two_sided = a.source != a.destination;
  plan.factor = T(1);
  return plan;
}

// Calls launch(run) with the walker for these numbers of channels and classes.
template <class Launch>
void with_run(const GatedCrfArguments& a, bool two_sided, const Launch& launch) {
  const auto sided = [&](auto one, auto two) { two_sided ? launch(two) : launch(one); };
  if (a.channels > 1 && a.classes > 1) return sided(RunOf<4, 4, false>(), RunOf<4, 4, true>());
  if (a.channels > 1) return sided(RunOf<4, 1, false>(), RunOf<4, 1, true>());
  if (a.classes > 4) return sided(RunOf<1, 8, false>(), RunOf<1, 8, true>());
  if (a.classes > 1) return sided(RunOf<1, 4, false>(), RunOf<1, 4, true>());
  sided(RunOf<1, 1, false>(), RunOf<1, 1, true>());
}

template <class T>
int launch(const Problem<T>& problem, const Plan<T>& plan, cudaStream_t stream) {
  const int64_t blocks = blocks_for(plan.units);
  const GatedCrfForward& a = problem.a;
  if (!problem.sums && a.reduction != Reduction::kNone && blocks > 1) {
    const cudaError_t error = cudaMemsetAsync(a.ticket, 0, sizeof(*a.ticket), stream);
    if (error != cudaSuccess) return int(error);
  }
  if constexpr (sizeof(T) == 4) {
    if (has_runs<T>(a)) {
      with_run(a, plan.two_sided, [&](auto run) {
        typedef decltype(run) Run;
        ACCL_LAUNCH((crf_run<Run::kChannels, Run::kValues, Run::kTwoSided>), blocks, stream,
                    problem, plan);
      });
      return int(cudaGetLastError());
    }
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
  const int64_t units =
      a.dtype == DType::kFloat64 ? plan_of<double>(a).units : plan_of<float>(a).units;
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
