// What the kernels of segmentation_head, partial_cross_entropy and size_penalty share: one block
// walks chunks of images.
#pragma once

#include <cuda_runtime.h> // first, so that math/ is compiled for the device

#include <initializer_list>
#include <type_traits>

#include "../math/label_smoothing.h"
#include "../math/logistic.h"
#include "../math/size.h"
#include "labels.cuh"

namespace accl {
namespace cuda {

struct PixelPlan {
  Chunks chunks; // of an image
  int64_t units; // chunks of the batch
  Labels labels;
  LabelSmoothing<double> smoothing;
  bool smooths;
  bool aligned;
};

// The most units that 32 bits can count: a division of 32 bits is much faster than one of 64.
constexpr int64_t kMaxUnits = 2147483647;

// `maps`: the other arrays that are read or written along a row, in vectors of 16 bytes.
template <class In>
PixelPlan plan_pixels(const SegmentationHeadArguments& a, std::initializer_list<const void*> maps) {
  PixelPlan plan;
  plan.chunks = chunks_of(a.pixels);
  plan.units = a.images * plan.chunks.count;
  plan.labels = labels_of(a);
  plan.smoothing = label_smoothing_of(a.label_smoothing, a.classes);
  plan.smooths = a.label_smoothing != 0;
  plan.aligned = (a.pixels % kWidthOf<In> == 0 || a.images * a.classes == 1) &&
                 is_aligned(a.logits, 16) && is_aligned(a.labels, kWidthOf<In> * plan.labels.bytes);
  for (const void* map : maps) plan.aligned = plan.aligned && is_aligned(map, 16);
  return plan;
}

// Classes whose logits a thread keeps in registers; float64 takes twice the room.
template <class In>
constexpr int kMaxKeptClasses = sizeof(In) == 8 ? 4 : 8;

// Calls one of the functions: for C = 1, for few classes with the number that the kernel has room
// for (an integral_constant), for many. float64 has one size of kernel.
template <class In, class Binary, class Multiclass, class Many>
void with_kernel_classes(int64_t classes, const Binary& binary, const Multiclass& multiclass,
                         const Many& many) {
  if (classes == 1) return binary();
  if (classes > kMaxKeptClasses<In>) return many();
  if constexpr (sizeof(In) < 8) {
    if (classes == 2) return multiclass(std::integral_constant<int, 2>());
    if (classes <= 4) return multiclass(std::integral_constant<int, 4>());
  }
  multiclass(std::integral_constant<int, kMaxKeptClasses<In>>());
}

// A chunk of an image, in elements from the image's start.
struct Unit {
  int64_t image;
  int64_t chunk;
  int64_t begin;
  int64_t end;
};

__device__ __forceinline__ Unit unit_of(const SegmentationHeadArguments& a, const PixelPlan& plan,
                                        int64_t unit) {
  const uint32_t image = uint32_t(unit) / uint32_t(plan.chunks.count);
  const uint32_t chunk = uint32_t(unit) - image * uint32_t(plan.chunks.count);
  const int64_t begin = chunk * plan.chunks.size, end = begin + plan.chunks.size;
  return {image, chunk, begin, end < a.pixels ? end : a.pixels};
}

// Row c of image `image` in a [B, C, N] array, of any constness.
template <class In, class Pointer>
__device__ __forceinline__ In* row_of(const SegmentationHeadArguments& a, Pointer* base,
                                      int64_t image, int64_t c) {
  return static_cast<In*>(base) + (image * a.classes + c) * a.pixels;
}

template <class T>
__device__ __forceinline__ T class_weight(const SegmentationHeadArguments& a, int32_t c) {
  return a.weight ? static_cast<const T*>(a.weight)[c] : T(1);
}

template <class T>
__device__ __forceinline__ Bounds<T> bounds_of(const SegmentationHeadArguments& a, int64_t image,
                                               int64_t c) {
  const T* const at =
      static_cast<const T*>(a.bounds) + image * a.bounds_stride[0] + c * a.bounds_stride[1];
  return {at[0], at[a.bounds_stride[2]]};
}

// exp(x) for x <= 0, as exact as the type In needs it. For types of 2 bytes x log2(e) is rounded,
// so the relative error is below 2^-17 where exp(x) is a normal number: a 64th of float16's
// rounding.
template <class In>
__device__ __forceinline__ Accumulation<In> exponential(Accumulation<In> x) {
  if constexpr (sizeof(In) == 2) {
    return exp2_approximate(x * 1.44269504f);
  } else {
    return exp_(x);
  }
}

template <class In>
__device__ __forceinline__ Logistic<Accumulation<In>> logistic_of(Accumulation<In> z) {
  return logistic(z, exponential<In>(-abs_(z)));
}

} // namespace cuda
} // namespace accl
