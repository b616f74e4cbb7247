// float16 and bfloat16: sixteen at a time to float32 and back, rounded to nearest, ties to even.
#pragma once

#include "lanes.h"

namespace accl {
namespace ACCL_ISA {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

ACCL_HD Lanes<float> load(const BFloat16* from) {
  uint32_t bits[kLanes];
  for (int i = 0; i < kLanes; ++i) bits[i] = uint32_t(from[i].bits) << 16;
  Lanes<float> x;
  std::memcpy(&x, bits, sizeof(x));
  return x;
}

ACCL_HD void store(BFloat16* to, const Lanes<float>& x) {
  constexpr int kPerPart = Lanes<float>::kPerPart;
  typedef uint32_t Bits __attribute__((vector_size(ACCL_VECTOR_BYTES)));
  typedef uint16_t Upper __attribute__((vector_size(ACCL_VECTOR_BYTES / 2)));
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
    const Bits bits = (Bits)x.part[i];
    const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; // to nearest, ties to even
    const Bits is_nan = (Bits)((bits & 0x7fffffff) > 0x7f800000);
    const Upper upper = __builtin_convertvector((is_nan & 0x7fc0) | (~is_nan & rounded), Upper);
    std::memcpy(to + i * kPerPart, &upper, sizeof(upper));
  }
}

#if defined(__F16C__)
ACCL_HD Lanes<float> load(const Half* from) {
  float values[kLanes];
  for (int i = 0; i < kLanes; i += 8) {
    __m128i half;
    std::memcpy(&half, from + i, sizeof(half));
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(half));
  }
  return load(values);
}

ACCL_HD void store(Half* to, const Lanes<float>& x) {
  float values[kLanes];
  store(values, x);
  for (int i = 0; i < kLanes; i += 8) {
    const __m128i half =
        _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    std::memcpy(to + i, &half, sizeof(half));
  }
}
#else
ACCL_HD float from_half(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16;
  const uint32_t magnitude = half & 0x7fff;
  float value;
  if (magnitude >= 0x7c00) { // infinite or NaN
    const uint32_t bits = 0x7f800000 | (magnitude & 0x3ff) << 13;
    std::memcpy(&value, &bits, 4);
  } else if (magnitude >= 0x400) {
    const uint32_t bits = (magnitude << 13) + ((127 - 15) << 23);
    std::memcpy(&value, &bits, 4);
  } else {
    value = float(magnitude) * 0x1p-24f; // subnormal
  }
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits |= sign;
  std::memcpy(&value, &bits, 4);
  return value;
}

ACCL_HD uint16_t to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (bits >= 0x477ff000) return uint16_t(sign | 0x7c00); // rounds to infinity
  if (bits < 0x38800000) { // subnormal: adding 0.5 rounds at the last place of a half
    float magnitude;
    std::memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, 4);
    return uint16_t(sign | (bits - 0x3f000000));
  }
  bits += 0xfff + ((bits >> 13) & 1); // to nearest, ties to even
  return uint16_t(sign | ((bits - ((127 - 15) << 23)) >> 13));
}

ACCL_HD Lanes<float> load(const Half* from) {
  float values[kLanes];
  for (int i = 0; i < kLanes; ++i) values[i] = from_half(from[i].bits);
  return load(values);
}
ACCL_HD void store(Half* to, const Lanes<float>& x) {
  float values[kLanes];
  store(values, x);
  for (int i = 0; i < kLanes; ++i) to[i].bits = to_half(values[i]);
}
#endif

} // namespace ACCL_ISA
} // namespace accl
