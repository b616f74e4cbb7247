// Labels of any integer type as class codes.
#pragma once

#include <limits>
#include <type_traits>

#include "memory.cuh"

namespace accl {
namespace cuda {

constexpr int32_t kIgnored = -1;
constexpr int32_t kInvalid = -2;

// Narrow labels are compared in 32 bits; an ignore_index that they cannot hold becomes a value
// that they cannot hold either.
template <class Label>
struct LabelRule {
  typedef typename std::conditional<(sizeof(Label) < 4), int32_t, int64_t>::type Wide;

  static constexpr Wide kNever = std::numeric_limits<Wide>::min();

  Wide ignored;
  int64_t classes;
  bool can_ignore; // ignore_index is a value of Label

  __device__ __forceinline__ LabelRule(int64_t ignore_index, int64_t n)
      : ignored(int64_t(Label(ignore_index)) == ignore_index ? Wide(Label(ignore_index)) : kNever),
        classes(n),
        can_ignore(int64_t(Label(ignore_index)) == ignore_index) {}

  __device__ __forceinline__ int32_t code(Label label) const {
    const Wide value = Wide(label);
    if (value == ignored) return kIgnored;
    return value >= 0 && value < classes ? int32_t(value) : kInvalid;
  }
};

template <class Label, int kWidth>
__device__ __forceinline__ bool all_ignored(const Label (&label)[kWidth],
                                            const LabelRule<Label>& rule) {
  if (!rule.can_ignore) return false;
  if constexpr (sizeof(Label) == 1) { // most pixels are unlabelled: one comparison for them
    unsigned char wanted[kWidth];
    memset(wanted, int(static_cast<unsigned char>(rule.ignored)), kWidth);
    typedef typename std::conditional<
        kWidth == 8, uint64_t,
        typename std::conditional<kWidth == 4, uint32_t, uint16_t>::type>::type Word;
    Word a, b;
    memcpy(&a, label, kWidth);
    memcpy(&b, wanted, kWidth);
    return a == b;
  } else {
    bool all = true;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) all = all && label[j] == Label(rule.ignored);
    return all;
  }
}

// Codes of a tile's pixels. Bit v of the result: vector v holds a code other than kIgnored; the
// codes of other vectors are not written.
template <class Label, class AnyTile>
__device__ __forceinline__ unsigned decode_row(
    const Label* row, const LabelRule<Label>& rule, const AnyTile& tile,
    int32_t (&code)[AnyTile::kVectors][AnyTile::kWidth]) {
  Label label[AnyTile::kVectors][AnyTile::kWidth];
#pragma unroll
  for (int v = 0; v < AnyTile::kVectors; ++v) tile.load(row, v, Label(rule.ignored), label[v]);
  unsigned labelled = 0;
#pragma unroll
  for (int v = 0; v < AnyTile::kVectors; ++v) {
    if (all_ignored(label[v], rule)) continue;
#pragma unroll
    for (int j = 0; j < AnyTile::kWidth; ++j) {
      code[v][j] = tile.holds(v, j) ? rule.code(label[v][j]) : kIgnored;
      if (code[v][j] != kIgnored) labelled |= 1u << v;
    }
  }
  return labelled;
}

template <class AnyTile>
__device__ __forceinline__ unsigned decode(
    const PixelArguments& a, int64_t image, const AnyTile& tile,
    int32_t (&code)[AnyTile::kVectors][AnyTile::kWidth]) {
  const int64_t classes = a.classes == 1 ? 2 : a.classes;
  const int64_t row = image * a.pixels;
  switch (a.label_type) {
#define ACCL_LABEL_CASE(name, type, ignored)                                                     \
  case LabelType::name:                                                                          \
    return decode_row(static_cast<const type*>(a.labels) + row, LabelRule<type>(ignored, classes), \
                      tile, code);
    ACCL_LABEL_CASE(kUInt8, uint8_t, a.ignore_index)
    ACCL_LABEL_CASE(kInt8, int8_t, a.ignore_index)
    ACCL_LABEL_CASE(kInt16, int16_t, a.ignore_index)
    ACCL_LABEL_CASE(kInt32, int32_t, a.ignore_index)
    ACCL_LABEL_CASE(kInt64, int64_t, a.ignore_index)
    ACCL_LABEL_CASE(kBool, uint8_t, -1) // every pixel is labelled: -1 is no bool
#undef ACCL_LABEL_CASE
  }
  return 0;
}

} // namespace cuda
} // namespace accl
