// What the forward and the backward kernels on pixels share: one block walks chunks of images.
#pragma once

#include <cuda_runtime.h> // first: math/ compiles for the device where it is there

#include <initializer_list>

#include "../math/size.h"
#include "labels.cuh"

namespace accl {
namespace cuda {

struct PixelPlan {
  Chunks chunks;   // of an image
  int64_t units;   // chunks of the batch
  bool aligned;
};

inline int64_t label_bytes(LabelType type) {
  switch (type) {
    case LabelType::kInt16: return 2;
    case LabelType::kInt32: return 4;
    case LabelType::kInt64: return 8;
    case LabelType::kUInt8:
    case LabelType::kInt8:
    case LabelType::kBool: break;
  }
  return 1;
}

// `maps`: what else is read or written along a row, in vectors of 16 bytes or more.
template <class In>
PixelPlan plan_pixels(const SegmentationHeadArguments& a, const Chunks& chunks,
                      std::initializer_list<const void*> maps) {
  bool aligned = a.pixels % kWidthOf<In> == 0 || a.images * a.classes == 1;
  aligned = aligned && is_aligned(a.logits, 16) &&
            is_aligned(a.labels, kWidthOf<In> * label_bytes(a.label_type));
  for (const void* map : maps) aligned = aligned && is_aligned(map, 16);
  return {chunks, a.images * chunks.count, aligned};
}

// Row c of image `image` in a [B, C, N] array, of any constness.
template <class In, class Pointer>
__device__ __forceinline__ In* row_of(const SegmentationHeadArguments& a, Pointer* base,
                                      int64_t image, int64_t c) {
  return static_cast<In*>(base) + (image * a.classes + c) * a.pixels;
}

// Of a label's class; an invalid label counts as background, so that only its own pixel and the
// loss become NaN.
template <class T>
__device__ __forceinline__ T class_weight(const SegmentationHeadArguments& a, int32_t code) {
  return a.weight ? static_cast<const T*>(a.weight)[code < 0 ? 0 : code] : T(1);
}

template <class T>
__device__ __forceinline__ Bounds<T> bounds_of(const SegmentationHeadArguments& a, int64_t image,
                                               int64_t c) {
  const T* const at =
      static_cast<const T*>(a.bounds) + image * a.bounds_stride[0] + c * a.bounds_stride[1];
  return {at[0], at[a.bounds_stride[2]]};
}

} // namespace cuda
} // namespace accl
