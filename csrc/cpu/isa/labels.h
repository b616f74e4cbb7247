// Labels of any integer type, and the few pixels that carry one.
#pragma once

#include "../../math/label_smoothing.h"
#include "memory.h"

namespace accl {
namespace ACCL_ISA {

constexpr int32_t kIgnored = -1;
constexpr int32_t kInvalid = -2;
constexpr int kBlock = 1024;

// The labelled pixels of a block, in order. The work on labels then grows with their number, not
// with the size of the block.
struct Labelled {
  int n;
  int first_invalid;             // position in the block, or -1
  int16_t at[kBlock + kLanes];   // position in the block
  int32_t code[kBlock + kLanes]; // class or kInvalid; kIgnored after the last
};

// Writes every pixel to the next entry, and goes on to another entry only if it counts. This needs
// no branch.
struct Collector {
  Labelled* found;
  int64_t ignore_index;
  int64_t labels;
  int count;

  ACCL_INLINE void append(int at, int64_t value) {
    const bool is_class = (value >= 0) & (value < labels);
    found->at[count] = int16_t(at);
    found->code[count] = is_class ? int32_t(value) : kInvalid;
    count += value != ignore_index;
  }
};

// Most pixels are unlabelled, so this many labels at a time are compared with ignore_index.
constexpr int kGroup = 32;

template <class Label>
ACCL_HD bool all_ignored(const Label* group, Label ignored) {
  Label difference = 0;
  for (int i = 0; i < kGroup; ++i) difference |= Label(group[i] ^ ignored);
  return difference == 0;
}

// Appends the labelled pixels of the group that begins at position `at`.
template <class Label>
ACCL_HD void append_group(const Label* group, Label ignored, int at, Collector* collector) {
  uint8_t labelled[kGroup];
  for (int i = 0; i < kGroup; ++i) labelled[i] = group[i] != ignored;
  for (int i = 0; i < kGroup; i += 8) {
    uint64_t bytes; // each is 1 or 0
    std::memcpy(&bytes, labelled + i, 8);
    if (bytes == 0x0101010101010101) {
      for (int j = i; j < i + 8; ++j) collector->append(at + j, int64_t(group[j]));
      continue;
    }
    for (; bytes != 0; bytes &= bytes - 1) {
      const int j = i + (__builtin_ctzll(bytes) >> 3); // little-endian
      collector->append(at + j, int64_t(group[j]));
    }
  }
}

template <class Label>
ACCL_HD void collect_block(const Label* from, int n, int64_t ignore_index, int64_t labels,
                           Labelled* found) {
  Collector collector = {found, ignore_index, labels, 0};
  const Label ignored = Label(ignore_index);
  int i = 0;
  for (; int64_t(ignored) == ignore_index && i + kGroup <= n; i += kGroup) {
    if (!all_ignored(from + i, ignored)) append_group(from + i, ignored, i, &collector);
  }
  for (; i < n; ++i) collector.append(i, int64_t(from[i]));
  found->n = collector.count;
  for (int j = 0; j < kLanes; ++j) found->code[found->n + j] = kIgnored;
  found->first_invalid = -1;
  bool invalid = false;
  for (int j = 0; j < found->n; ++j) invalid |= found->code[j] == kInvalid;
  for (int j = 0; invalid && j < found->n; ++j) {
    if (found->code[j] != kInvalid) continue;
    found->first_invalid = found->at[j];
    break;
  }
}

// Pixels [begin, begin + n) of the image's labels, n <= kBlock.
ACCL_HD void collect(const SegmentationHeadArguments& a, int64_t image, int64_t begin, int n,
                     Labelled* found) {
  const int64_t labels = a.classes == 1 ? 2 : a.classes;
  const int64_t at = image * a.pixels + begin;
  switch (a.label_type) {
#define ACCL_LABEL_CASE(name, type) \
  case LabelType::name:             \
    return collect_block(static_cast<const type*>(a.labels) + at, n, a.ignore_index, labels, found);
    ACCL_LABEL_CASE(kUInt8, uint8_t)
    ACCL_LABEL_CASE(kInt8, int8_t)
    ACCL_LABEL_CASE(kInt16, int16_t)
    ACCL_LABEL_CASE(kInt32, int32_t)
    ACCL_LABEL_CASE(kInt64, int64_t)
#undef ACCL_LABEL_CASE
    case LabelType::kBool: // -1 never equals a bool, so no pixel is ignored
      return collect_block(static_cast<const uint8_t*>(a.labels) + at, n, -1, labels, found);
  }
}

ACCL_HD Mask<float> code_is(const int32_t* code, int32_t value, float) {
  Mask<float> mask;
  for (int i = 0; i < Mask<float>::kParts; ++i) {
    Native<float>::mask part;
    std::memcpy(&part, code + i * Lanes<float>::kPerPart, sizeof(part));
    mask.part[i] = part == value;
  }
  return mask;
}
ACCL_HD Mask<double> code_is(const int32_t* code, int32_t value, double) {
  typedef int32_t Codes __attribute__((vector_size(ACCL_VECTOR_BYTES / 2)));
  Mask<double> mask;
  for (int i = 0; i < Mask<double>::kParts; ++i) {
    Codes part;
    std::memcpy(&part, code + i * Lanes<double>::kPerPart, sizeof(part));
    mask.part[i] = __builtin_convertvector(part, Native<double>::mask) == int64_t(value);
  }
  return mask;
}

// Weight of each label without that of its class: the pixel's weight, or 1 if pixel_weight is null.
// 0 where the label is ignored, NaN where it is invalid.
template <class T, class Pixels>
ACCL_HD Lanes<T> label_weight(const int32_t* code, const Pixels& pixels, const T* pixel_weight) {
  Lanes<T> w = pixel_weight ? pixels.read(pixel_weight) : Lanes<T>(1);
  w = select(code_is(code, kIgnored, T()), Lanes<T>(0), w);
  return select(code_is(code, kInvalid, T()), Lanes<T>(T(__builtin_nan(""))), w);
}

// Weight of each label's class. 1 where there is no class, and everywhere if `weight` is null.
template <class T>
ACCL_HD Lanes<T> class_weight(const int32_t* code, const T* weight) {
  if (!weight) return Lanes<T>(1);
  T values[kLanes];
  for (int i = 0; i < kLanes; ++i) values[i] = code[i] < 0 ? T(1) : weight[code[i]];
  return load(values);
}

// What label smoothing makes of sixteen labels: the factor of each class, and of all others.
template <class T>
struct Smoothing {
  const bool on;
  const T* const weight;
  const LabelSmoothing<double> of;
  double weight_sum = 0; // of all classes

  ACCL_INLINE explicit Smoothing(const SegmentationHeadArguments& a)
      : on(a.label_smoothing != 0),
        weight(static_cast<const T*>(a.weight)),
        of(label_smoothing_of(a.label_smoothing, a.classes)) {
    for (int64_t c = 0; on && c < (a.classes == 1 ? 2 : a.classes); ++c) weight_sum += weight_of(c);
  }
  ACCL_INLINE double weight_of(int64_t c) const { return weight ? double(weight[c]) : 1.0; }

  ACCL_INLINE Lanes<T> own(const int32_t* code) const {
    return Lanes<T>(T(of.own)) * class_weight(code, weight);
  }
  ACCL_INLINE Lanes<T> factor(const int32_t* code, int32_t c, const Lanes<T>& own) const {
    return Lanes<T>(T(of.share * weight_of(c))) + select(code_is(code, c, T()), own, Lanes<T>(0));
  }
  ACCL_INLINE Lanes<T> other_factors(const int32_t* code, int32_t c, const Lanes<T>& own) const {
    return Lanes<T>(T(of.share * (weight_sum - weight_of(c)))) +
           select(code_is(code, c, T()), Lanes<T>(0), own);
  }
  ACCL_INLINE Lanes<T> all_factors(const Lanes<T>& own) const {
    return Lanes<T>(T(of.share * weight_sum)) + own;
  }
};

} // namespace ACCL_ISA
} // namespace accl
