// Labels of any integer type as class codes.
#pragma once

#include "../../kernels.h"
#include "lanes.h"

namespace accl {
namespace ACCL_ISA {

constexpr int32_t kIgnored = -1;
constexpr int32_t kInvalid = -2;
constexpr int kBlock = 1024;

struct LabelBlock {
  int32_t code[kBlock];                // class, kIgnored or kInvalid; only where labelled
  bool labelled[kBlock / kLanes];      // whether sixteen pixels hold any code but kIgnored
  int first_invalid;                   // in the block, or -1
};

template <class Label>
ACCL_HD int32_t label_code(Label label, int64_t ignore_index, int64_t labels) {
  const int64_t value = int64_t(label);
  if (value == ignore_index) return kIgnored;
  return value >= 0 && value < labels ? int32_t(value) : kInvalid;
}

ACCL_HD bool all_equal_16(const uint8_t* bytes, uint8_t value) {
  uint64_t words[2];
  std::memcpy(words, bytes, 16);
  const uint64_t wanted = value * 0x0101010101010101u;
  return ((words[0] ^ wanted) | (words[1] ^ wanted)) == 0;
}

template <class Label>
ACCL_HD void decode_block(const Label* from, int n, int64_t ignore_index, int64_t labels,
                          LabelBlock* block) {
  const bool ignorable_byte = sizeof(Label) == 1 && int64_t(Label(ignore_index)) == ignore_index;
  block->first_invalid = -1;
  for (int i = 0; i < n; i += kLanes) {
    const int count = n - i < kLanes ? n - i : kLanes;
    // Most pixels are unlabelled: look at sixteen bytes at once.
    if (ignorable_byte && count == kLanes &&
        all_equal_16(reinterpret_cast<const uint8_t*>(from + i), uint8_t(ignore_index))) {
      block->labelled[i / kLanes] = false;
      continue;
    }
    int32_t* code = block->code + i;
    int32_t highest = kIgnored;
    bool invalid = false;
    for (int j = 0; j < kLanes; ++j) {
      code[j] = j < count ? label_code(from[i + j], ignore_index, labels) : kIgnored;
      highest = code[j] > highest ? code[j] : highest;
      invalid |= code[j] == kInvalid;
    }
    block->labelled[i / kLanes] = highest > kIgnored || invalid;
    for (int j = 0; invalid && block->first_invalid < 0 && j < kLanes; ++j) {
      if (code[j] == kInvalid) block->first_invalid = i + j;
    }
  }
}

// Pixels [begin, begin + n) of the image's labels, n <= kBlock.
ACCL_HD void decode(const PixelArguments& a, int64_t image, int64_t begin, int n,
                    LabelBlock* block) {
  const int64_t labels = a.classes == 1 ? 2 : a.classes;
  const int64_t at = image * a.pixels + begin;
  switch (a.label_type) {
#define ACCL_LABEL_CASE(name, type)                                                             \
  case LabelType::name:                                                                         \
    return decode_block(static_cast<const type*>(a.labels) + at, n, a.ignore_index, labels, block);
    ACCL_LABEL_CASE(kUInt8, uint8_t)
    ACCL_LABEL_CASE(kInt8, int8_t)
    ACCL_LABEL_CASE(kInt16, int16_t)
    ACCL_LABEL_CASE(kInt32, int32_t)
    ACCL_LABEL_CASE(kInt64, int64_t)
#undef ACCL_LABEL_CASE
    case LabelType::kBool: // every pixel is labelled: -1 is no bool
      return decode_block(static_cast<const uint8_t*>(a.labels) + at, n, -1, labels, block);
  }
}

ACCL_HD Mask<float> code_is(const int32_t* code, int32_t value, float) {
  Mask<float> mask;
  std::memcpy(&mask, code, sizeof(mask));
  for (int i = 0; i < Mask<float>::kParts; ++i) mask.part[i] = mask.part[i] == value;
  return mask;
}
ACCL_HD Mask<double> code_is(const int32_t* code, int32_t value, double) {
  int64_t flags[kLanes];
  for (int i = 0; i < kLanes; ++i) flags[i] = -int64_t(code[i] == value);
  Mask<double> mask;
  std::memcpy(&mask, flags, sizeof(mask));
  return mask;
}

// Weight of each pixel's class; 0 where ignored, NaN where the label is invalid.
template <class T>
ACCL_HD Lanes<T> pixel_weight(const int32_t* code, const T* weight) {
  T values[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const T w = code[i] < 0 ? T(0) : weight ? weight[code[i]] : T(1);
    values[i] = code[i] == kInvalid ? T(__builtin_nan("")) : w;
  }
  return load(values);
}

} // namespace ACCL_ISA
} // namespace accl
