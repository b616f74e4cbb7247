// Labels of any integer type. Most vectors of pixels hold no label: those are found out first, by
// whole words; the labels of the others are then looked at one by one.
#pragma once

#include <type_traits>

#include "memory.cuh"

namespace accl {
namespace cuda {

constexpr int32_t kIgnored = -1;
constexpr int32_t kInvalid = -2;

// A type as a value, for function(TypeOf<Label>(), ignore_index).
template <class Label>
struct TypeOf {
  typedef Label type;
};

template <class Function>
__device__ __forceinline__ auto with_label_type(const SegmentationHeadArguments& a,
                                                const Function& function) {
  switch (a.label_type) {
    case LabelType::kInt8: return function(TypeOf<int8_t>(), a.ignore_index);
    case LabelType::kInt16: return function(TypeOf<int16_t>(), a.ignore_index);
    case LabelType::kInt32: return function(TypeOf<int32_t>(), a.ignore_index);
    case LabelType::kInt64: return function(TypeOf<int64_t>(), a.ignore_index);
    case LabelType::kBool: return function(TypeOf<uint8_t>(), int64_t(-1)); // which is no bool
    case LabelType::kUInt8: break;
  }
  return function(TypeOf<uint8_t>(), a.ignore_index);
}

template <class Label, int kWidth>
__device__ __forceinline__ bool all_equal(const Label (&label)[kWidth], Label wanted) {
  if constexpr (sizeof(Label) == 1) {
    typedef typename Words<Label, kWidth>::Bits Bits;
    Bits bits;
    memcpy(&bits, label, kWidth);
    return bits == Bits(static_cast<unsigned char>(wanted) * 0x0101010101010101u);
  } else {
    bool all = true;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) all = all && label[j] == wanted;
    return all;
  }
}

// Bit v: vector v of the tile may hold a label. The other vectors hold none.
template <class AnyTile>
__device__ __forceinline__ unsigned labelled_vectors(const SegmentationHeadArguments& a,
                                                     int64_t image, const AnyTile& tile) {
  return with_label_type(a, [&](auto type, int64_t ignore_index) {
    typedef typename decltype(type)::type Label;
    const Label* const row = static_cast<const Label*>(a.labels) + image * a.pixels;
    const Label ignored = Label(ignore_index);
    if (int64_t(ignored) != ignore_index) return ~0u; // no value of this type is ignored
    Label label[AnyTile::kVectors][AnyTile::kWidth];
#pragma unroll
    for (int v = 0; v < AnyTile::kVectors; ++v) tile.load(row, v, ignored, label[v]);
    unsigned labelled = 0;
#pragma unroll
    for (int v = 0; v < AnyTile::kVectors; ++v) {
      if (!all_equal(label[v], ignored)) labelled |= 1u << v;
    }
    return labelled;
  });
}

// Class, kIgnored or kInvalid.
__device__ __forceinline__ int32_t label_code(const SegmentationHeadArguments& a, int64_t image,
                                              int64_t pixel) {
  return with_label_type(a, [&](auto type, int64_t ignore_index) {
    typedef typename decltype(type)::type Label;
    const int64_t classes = a.classes == 1 ? 2 : a.classes;
    const int64_t value = static_cast<const Label*>(a.labels)[image * a.pixels + pixel];
    if (value == ignore_index) return kIgnored;
    return value >= 0 && value < classes ? int32_t(value) : kInvalid;
  });
}

} // namespace cuda
} // namespace accl
