// The gated CRF loss for what most calls are: float, one kernel, few channels. A thread has a run
// of four neighbouring pixels of a row, so that what it loads of a neighbour serves four pairs, and
// four neighbours are one load. The exponents of the distances lie in a table in shared memory.
// gated_crf_loss.cuh has the general form.
#pragma once

#include "gated_crf_loss.cuh"

namespace accl {
namespace cuda {
namespace { // these short names are used by other families too

constexpr int kRun = 4; // pixels of a thread, and floats of a vector
constexpr int kRunColumns = 32; // of a tile of two or three dimensions
constexpr int kRunRows = kThreads * kRun / kRunColumns;
constexpr float kNoPair = -1e30f; // an exponent whose power of 2 is 0

// What is fixed when a walker is compiled: room for channels of the image and for classes, and
// whether the gradient needs sums over the destinations besides those over the sources.
template <int kChannels_, int kValues_, bool kTwoSided_>
struct RunOf {
  static constexpr int kChannels = kChannels_, kValues = kValues_;
  static constexpr bool kTwoSided = kTwoSided_;
  // Of each pixel, beside the image. One class: p and 1 - p if it gives, the same if it receives.
  // More: p of each class, then 1 if it gives and 1 if it receives, else 0.
  static constexpr int kArrays = kValues == 1 ? (kTwoSided ? 4 : 2) : kValues + (kTwoSided ? 2 : 1);
  // The most offsets that a part of the window has along each axis, so that all fits in 48 KiB.
  static constexpr int kSpan = kChannels + kValues == 2 ? 16 : kChannels + kValues == 5 ? 12 : 8;
  static constexpr int kVectors = (kSpan + kRun - 1 + kRun - 1) / kRun; // of neighbours, of a run
  static constexpr int kHalo = kRun * (kVectors - 1);
  static constexpr int kPlane = (kRunRows + kSpan - 1) * (kRunColumns + kHalo);
  static constexpr int kLine = kThreads * kRun + kHalo; // a tile of one dimension
  static constexpr int kStaged = kPlane > kLine ? kPlane : kLine;
  static constexpr int kTable = kRun * (kVectors + 1); // of a row of offsets
  static_assert((kStaged * (kChannels + kArrays) + kTable * kSpan) * sizeof(float) <= 48 * 1024,
                "shared memory of a block");
};

__device__ __forceinline__ void load_run(const float4* from, float (&to)[kRun]) {
  const float4 x = *from;
  to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
}

// Stores the first `count` of a run, in one word where that is aligned.
__device__ __forceinline__ void store_run(float* to, const float (&from)[kRun], int count) {
  if (count == kRun && reinterpret_cast<uintptr_t>(to) % sizeof(uint4) == 0) {
    uint4 word;
    memcpy(&word, from, sizeof(word));
    store_word(reinterpret_cast<uint4*>(to), word);
    return;
  }
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (i < count) to[i] = from[i];
  }
}

// The image at a thread's own pixels.
template <int kChannels>
__device__ __forceinline__ void load_center(const GatedCrfArguments& a, const Plan<float>& plan,
                                            const Place& p, float (&center)[kChannels][kRun]) {
  const int64_t pixel = (p.z * a.size[1] + p.y) * a.size[2] + p.x;
  const bool looks = p.inside && plan.kernel[0].factor != 0;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const int64_t at = (p.image * a.channels + c) * a.pixels + pixel;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const bool has = looks && c < a.channels && p.x + i < a.size[2];
      center[c][i] = has ? element<float>(a.image, a.image_dtype, at + i) : 0.0f;
    }
  }
}

// Which of `count` places, the first of them at `begin`, lie on an axis of the image.
struct Axis {
  int first, length;

  __device__ __forceinline__ Axis(int64_t begin, int count, int64_t size) {
    const int64_t from = begin < 0 ? -begin : 0, to = size - begin < count ? size - begin : count;
    first = int(from < count ? from : count);
    length = to > first ? int(to - first) : 0;
  }
  __device__ __forceinline__ bool has(int i) const {
    return unsigned(i - first) < unsigned(length);
  }
};

// A tile and its halo for a part of the window, in shared memory.
template <class Run>
struct RunStage {
  float4 (&image)[Run::kChannels * Run::kStaged / kRun];
  float4 (&weights)[Run::kArrays * Run::kStaged / kRun];
  float4 (&table)[Run::kTable * Run::kSpan / kRun];
  int pitch;

  // All threads of the block call it. Pixels that do not count, and what lies outside the image,
  // are 0 throughout, so that a NaN there has no influence.
  __device__ __forceinline__ void fill(const GatedCrfArguments& a, const Plan<float>& plan,
                                       const Place& p, const Part& part, int64_t first_value) {
    pitch = plan.columns + (part.columns + kRun - 2) / kRun * kRun;
    const int64_t top = p.top + part.top, left = p.left + part.left;
    const Axis rows(top, plan.rows + part.rows - 1, a.size[1]), columns(left, pitch, a.size[2]);
    const int64_t origin = ((p.z + part.z) * a.size[1] + top) * a.size[2] + left;
    const int count = pitch * (plan.rows + part.rows - 1);
    __syncthreads(); // the previous part has been read
    for (int e = threadIdx.x; e < count; e += kThreads) {
      const int row = e / pitch, column = e - row * pitch;
      const int64_t pixel = origin + row * a.size[2] + column;
      const bool exists = rows.has(row) && columns.has(column);
      const unsigned role = exists ? roles(a, p.image * a.pixels + pixel) : 0u;
      fill_pixel(a, plan, p.image, pixel, e, Run::kTwoSided ? role : role & kGives, first_value);
    }
    float* const exponents = &table[0].x;
    for (int e = threadIdx.x; e < part.rows * Run::kTable; e += kThreads) {
      const int row = e / Run::kTable, column = e % Run::kTable - (kRun - 1);
      const int dy = part.top + row, dx = part.left + column;
      const bool pair = column >= 0 && column < part.columns && (part.z != 0 || dy != 0 || dx != 0);
      exponents[e] = pair ? distance(plan.kernel[0], part.z, dy, dx) : kNoPair;
    }
    __syncthreads(); // everything is staged before any thread reads it
  }

  __device__ __forceinline__ static float distance(const Kernel<float>& kernel, int z, int y,
                                                   int x) {
    const float of_plane = float(z) * float(z) * kernel.step[0];
    return fmaf(float(x) * float(x), kernel.step[2],
                of_plane + float(y) * float(y) * kernel.step[1]);
  }

  __device__ __forceinline__ void fill_pixel(const GatedCrfArguments& a, const Plan<float>& plan,
                                             int64_t image_index, int64_t pixel, int e,
                                             unsigned role, int64_t first_value) {
    constexpr int kStaged = Run::kStaged, kValues = Run::kValues;
    float* const to_image = &image[0].x + e;
    float* const to = &weights[0].x + e;
    const bool looks = role && plan.kernel[0].factor != 0;
#pragma unroll
    for (int c = 0; c < Run::kChannels; ++c) {
      const int64_t at = (image_index * a.channels + c) * a.pixels + pixel;
      to_image[c * kStaged] =
          looks && c < a.channels ? element<float>(a.image, a.image_dtype, at) : 0.0f;
    }
#pragma unroll
    for (int c = 0; c < kValues; ++c) {
      const int64_t at = (image_index * a.classes + first_value + c) * a.pixels + pixel;
      const bool has = role && first_value + c < a.classes;
      const float value = has ? element<float>(a.values, a.dtype, at) : 0.0f;
      if constexpr (kValues > 1) {
        to[c * kStaged] = value;
      } else {
        to[0] = role & kGives ? value : 0.0f;
        to[kStaged] = role & kGives ? 1 - value : 0.0f;
        if constexpr (Run::kTwoSided) {
          to[2 * kStaged] = role & kReceives ? value : 0.0f;
          to[3 * kStaged] = role & kReceives ? 1 - value : 0.0f;
        }
      }
    }
    if constexpr (kValues > 1) {
      to[kValues * kStaged] = role & kGives ? 1.0f : 0.0f;
      if constexpr (Run::kTwoSided) to[(kValues + 1) * kStaged] = role & kReceives ? 1.0f : 0.0f;
    }
  }
};

// Adds to a pixel's sums a neighbour with the weight k.
template <class Run>
__device__ __forceinline__ void add_pair(float k, const float (&x)[Run::kArrays][kRun], int column,
                                         Sums<float, Run::kValues>* sums) {
  constexpr int kValues = Run::kValues;
  if constexpr (kValues == 1) {
    sums->received[0] = fmaf(k, x[0][column], sums->received[0]);
    sums->received_rest = fmaf(k, x[1][column], sums->received_rest);
    if constexpr (Run::kTwoSided) {
      sums->given[0] = fmaf(k, x[2][column], sums->given[0]);
      sums->given_rest = fmaf(k, x[3][column], sums->given_rest);
    }
  } else {
    const float from_source = k * x[kValues][column];
    sums->received_rest += from_source;
#pragma unroll
    for (int c = 0; c < kValues; ++c) {
      sums->received[c] = fmaf(from_source, x[c][column], sums->received[c]);
    }
    if constexpr (Run::kTwoSided) {
      const float from_destination = k * x[kValues + 1][column];
#pragma unroll
      for (int c = 0; c < kValues; ++c) {
        sums->given[c] = fmaf(from_destination, x[c][column], sums->given[c]);
      }
    }
  }
}

// One row of a part of the window: every pair of the run's four pixels with the row's neighbours,
// four neighbours at a time. Offsets beyond the window have the weight 0.
template <class Run>
__device__ __forceinline__ void walk_row(const RunStage<Run>& stage, int at, int row,
                                         int neighbours,
                                         const float (&center)[Run::kChannels][kRun], float factor,
                                         Sums<float, Run::kValues> (&sums)[kRun]) {
  constexpr int kVectorsStaged = Run::kStaged / kRun;
  const float4* table = stage.table + row * (Run::kTable / kRun);
  const float4* image = stage.image + at;
  const float4* weights = stage.weights + at;
  float before[kRun], after[kRun]; // exponents of offsets -3 to 0 and 1 to 4 of the first column
  load_run(table++, before);
#pragma unroll 1
  for (int first = 0; first < neighbours; first += kRun, ++image, ++weights) {
    float y[Run::kChannels][kRun], x[Run::kArrays][kRun];
    load_run(table++, after);
#pragma unroll
    for (int c = 0; c < Run::kChannels; ++c) load_run(image + c * kVectorsStaged, y[c]);
#pragma unroll
    for (int c = 0; c < Run::kArrays; ++c) load_run(weights + c * kVectorsStaged, x[c]);
#pragma unroll
    for (int column = 0; column < kRun; ++column) {
      if (column > 0 && first + column >= neighbours) break;
#pragma unroll
      for (int pixel = 0; pixel < kRun; ++pixel) {
        const int offset = column - pixel;
        float squared = 0, exponent = offset > 0 ? after[offset > 0 ? offset - 1 : 0]
                                                 : before[offset > 0 ? 0 : offset + kRun - 1];
        if constexpr (Run::kChannels == 1) {
          const float d = center[0][pixel] - y[0][column];
          exponent = fmaf(d * factor, d, exponent);
        } else {
#pragma unroll
          for (int c = 0; c < Run::kChannels; ++c) {
            const float d = center[c][pixel] - y[c][column];
            squared = fmaf(d, d, squared);
          }
          exponent = fmaf(squared, factor, exponent);
        }
        add_pair<Run>(power_of_2(exponent), x, column, &sums[pixel]);
      }
    }
#pragma unroll
    for (int i = 0; i < kRun; ++i) before[i] = after[i];
  }
}

// Offsets of each part but the last, for parts of about the same size.
__device__ __forceinline__ int part_size(int offsets, int span) {
  const int parts = (offsets + span - 1) / span;
  return (offsets + parts - 1) / parts;
}

// The sums of a thread's run over the whole window, for a group of classes.
template <class Run>
__device__ __forceinline__ void walk_window(const GatedCrfArguments& a, const Plan<float>& plan,
                                            const Place& p, RunStage<Run>& stage,
                                            const float (&center)[Run::kChannels][kRun],
                                            int64_t first_value,
                                            Sums<float, Run::kValues> (&sums)[kRun]) {
  const int rows = 2 * plan.reach[1] + 1, columns = 2 * plan.reach[2] + 1;
  const int part_rows = part_size(rows, Run::kSpan);
  const int part_columns = part_size(columns, Run::kSpan);
  for (int z = -plan.reach[0]; z <= plan.reach[0]; ++z) {
    if (p.z + z < 0 || p.z + z >= a.size[0]) continue;
    for (int y = 0; y < rows; y += part_rows) {
      for (int x = 0; x < columns; x += part_columns) {
        const Part part = {z, y - plan.reach[1], x - plan.reach[2],
                           rows - y < part_rows ? rows - y : part_rows,
                           columns - x < part_columns ? columns - x : part_columns};
        stage.fill(a, plan, p, part, first_value);
        if (!p.inside) continue;
        const int at = (int(p.y - p.top) * stage.pitch + int(p.x - p.left)) / kRun;
        for (int row = 0; row < part.rows; ++row) { // short sums first, as in Sums
          Sums<float, Run::kValues> of_row[kRun];
#pragma unroll
          for (int i = 0; i < kRun; ++i) of_row[i].clear();
          walk_row<Run>(stage, at + row * (stage.pitch / kRun), row, part.columns + kRun - 1,
                        center, plan.kernel[0].factor, of_row);
#pragma unroll
          for (int i = 0; i < kRun; ++i) sums[i].add(of_row[i]);
        }
      }
    }
  }
}

} // namespace
} // namespace cuda
} // namespace accl
