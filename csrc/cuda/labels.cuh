// Labels of any integer type. Most vectors of pixels hold no label, which comparing whole words
// shows. Only the labels of the other vectors are then looked at one by one.
#pragma once

#include <type_traits>

#include "memory.cuh"

namespace accl {
namespace cuda {

constexpr int32_t kInvalid = -1; // neither a class nor ignored

// How the bits of a label are read. Signed types need no case of their own: as an unsigned number a
// negative value lies beyond the classes.
struct Labels {
  const void* data; // [B, N], or null
  uint64_t ignored; // the value that is ignored
  uint64_t classes; // every smaller value is a class
  int32_t bytes; // of a label
  bool ignores; // false where the type cannot hold ignore_index
};

inline Labels labels_of(const SegmentationHeadArguments& a) {
  Labels labels = {a.labels, uint64_t(a.ignore_index), 0, 1, true};
  int64_t lowest = 0, highest = 0;
  const auto is = [&](auto example, int64_t low, int64_t high) {
    labels.bytes = sizeof(example), lowest = low, highest = high;
  };
  switch (a.label_type) {
    case LabelType::kUInt8: is(uint8_t(), 0, UINT8_MAX); break;
    case LabelType::kInt8: is(int8_t(), INT8_MIN, INT8_MAX); break;
    case LabelType::kInt16: is(int16_t(), INT16_MIN, INT16_MAX); break;
    case LabelType::kInt32: is(int32_t(), INT32_MIN, INT32_MAX); break;
    case LabelType::kInt64: is(int64_t(), INT64_MIN, INT64_MAX); break;
    case LabelType::kBool: is(uint8_t(), 0, 1), labels.ignores = false; break;
  }
  labels.ignores = labels.ignores && a.ignore_index >= lowest && a.ignore_index <= highest;
  const int64_t classes = a.classes == 1 ? 2 : a.classes;
  labels.classes = uint64_t(classes <= highest ? classes : highest) + (classes > highest);
  return labels;
}

// Calls function(data) with the labels as an array of unsigned numbers.
template <class Function>
__device__ __forceinline__ auto with_label_type(const Labels& labels, const Function& function) {
  switch (labels.bytes) {
    case 2: return function(static_cast<const uint16_t*>(labels.data));
    case 4: return function(static_cast<const uint32_t*>(labels.data));
    case 8: return function(static_cast<const uint64_t*>(labels.data));
  }
  return function(static_cast<const uint8_t*>(labels.data));
}

template <class Label, int kWidth>
__device__ __forceinline__ bool all_equal(const Label (&label)[kWidth], Label wanted) {
  if constexpr (sizeof(Label) == 1) {
    typedef typename Words<Label, kWidth>::Bits Bits;
    Bits bits;
    memcpy(&bits, label, kWidth);
    return bits == Bits(wanted * 0x01010101u);
  } else {
    bool all = true;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) all = all && label[j] == wanted;
    return all;
  }
}

// Bit v * kWidth + j: element j of the tile's vector v has a label. The image begins at `row`.
template <class AnyTile>
__device__ __forceinline__ unsigned labelled_pixels(const Labels& labels, int64_t row,
                                                    const AnyTile& tile) {
  constexpr int kVectors = AnyTile::kVectors, kWidth = AnyTile::kWidth;
  return with_label_type(labels, [&](auto* data) {
    typedef std::remove_const_t<std::remove_pointer_t<decltype(data)>> Label;
    const Label ignored = Label(labels.ignored);
    Label label[kVectors][kWidth];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      tile.load(data + row, v, ignored, label[v]);
    }
    unsigned labelled = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (labels.ignores && all_equal(label[v], ignored)) continue;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const bool is_label = !labels.ignores || label[v][j] != ignored;
        if (is_label && tile.holds(v, j)) labelled |= 1u << (v * kWidth + j);
      }
    }
    return labelled;
  });
}

// The class of pixel `at` of the batch, which has a label, or kInvalid.
__device__ __forceinline__ int32_t label_code(const Labels& labels, int64_t at) {
  const uint64_t value = with_label_type(labels, [&](auto* data) { return uint64_t(data[at]); });
  return value < labels.classes ? int32_t(value) : kInvalid;
}

} // namespace cuda
} // namespace accl
