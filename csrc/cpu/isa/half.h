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

typedef uint32_t Bits __attribute__((vector_size(ACCL_VECTOR_BYTES)));
typedef uint16_t HalfBits __attribute__((vector_size(ACCL_VECTOR_BYTES / 2)));
constexpr int kPerPart = Lanes<float>::kPerPart;

// __builtin_convertvector does the same, but GCC 12 makes several instructions of it.
ACCL_HD Bits load_bits(const void* from) {
  HalfBits bits;
  std::memcpy(&bits, from, sizeof(bits));
#if defined(__AVX512F__)
  return (Bits)_mm512_maskz_cvtepu16_epi32(0xffff, (__m256i)bits);
#elif defined(__AVX2__)
  return (Bits)_mm256_cvtepu16_epi32((__m128i)bits);
#else
  return __builtin_convertvector(bits, Bits);
#endif
}

// Each number must be less than 2^16.
ACCL_HD void store_bits(void* to, Bits x) {
#if defined(__AVX512F__)
  const HalfBits bits = (HalfBits)_mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)x);
#else
  const HalfBits bits = __builtin_convertvector(x, HalfBits);
#endif
  std::memcpy(to, &bits, sizeof(bits));
}

ACCL_HD Lanes<float> load(const BFloat16* from) {
  Lanes<float> x;
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
    x.part[i] = (Vector<float>)(load_bits(from + i * kPerPart) << 16);
  }
  return x;
}

ACCL_HD void store(BFloat16* to, const Lanes<float>& x) {
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
    const Bits bits = (Bits)x.part[i];
    const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; // to nearest, ties to even
    const Bits is_nan = (Bits)(x.part[i] != x.part[i]);
    store_bits(to + i * kPerPart, (is_nan & 0x7fc0) | (~is_nan & rounded));
  }
}

#if defined(__F16C__)
ACCL_HD Lanes<float> load(const Half* from) {
  Lanes<float> x;
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
    HalfBits half;
    std::memcpy(&half, from + i * kPerPart, sizeof(half));
#if defined(__AVX512F__)
    x.part[i] = (Vector<float>)_mm512_maskz_cvtph_ps(0xffff, (__m256i)half);
#else
    x.part[i] = (Vector<float>)_mm256_cvtph_ps((__m128i)half);
#endif
  }
  return x;
}

ACCL_HD void store(Half* to, const Lanes<float>& x) {
  constexpr int kRounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
#if defined(__AVX512F__)
    const __m256i half = _mm512_maskz_cvtps_ph(0xffff, (__m512)x.part[i], kRounding);
#else
    const __m128i half = _mm256_cvtps_ph((__m256)x.part[i], kRounding);
#endif
    std::memcpy(to + i * kPerPart, &half, sizeof(half));
  }
}
#else
ACCL_HD Bits choose(Bits condition, Bits yes, Bits no) {
  return (condition & yes) | (~condition & no);
}

ACCL_HD Lanes<float> load(const Half* from) {
  Lanes<float> x;
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
    const Bits bits = load_bits(from + i * kPerPart);
    const Bits magnitude = bits & 0x7fff;
    const Native<float>::mask signed_magnitude = (Native<float>::mask)magnitude;
    const Bits subnormal =
        (Bits)(__builtin_convertvector(signed_magnitude, Vector<float>) * 0x1p-24f);
    const Bits normal = (magnitude << 13) + ((127 - 15) << 23);
    const Bits special = 0x7f800000 | (magnitude << 13); // infinite or NaN
    const Bits finite = choose((Bits)(signed_magnitude < 0x400), subnormal, normal);
    const Bits value = choose((Bits)(signed_magnitude >= 0x7c00), special, finite);
    x.part[i] = (Vector<float>)(value | (bits & 0x8000) << 16);
  }
  return x;
}

ACCL_HD void store(Half* to, const Lanes<float>& x) {
  for (int i = 0; i < Lanes<float>::kParts; ++i) {
    const Bits bits = (Bits)x.part[i];
    const Bits magnitude = bits & 0x7fffffff;
    const Native<float>::mask signed_magnitude = (Native<float>::mask)magnitude;
    // Subnormal: adding 0.5 rounds at the last place of a half.
    const Bits subnormal = (Bits)((Vector<float>)magnitude + 0.5f) - 0x3f000000;
    const Bits rounded = magnitude + 0xfff + ((magnitude >> 13) & 1); // to nearest, ties to even
    const Bits normal = (rounded - ((127 - 15) << 23)) >> 13;
    const Bits finite = choose((Bits)(signed_magnitude < 0x38800000), subnormal, normal);
    const Bits infinite = choose((Bits)(signed_magnitude >= 0x477ff000), Bits{} + 0x7c00, finite);
    const Bits half = choose((Bits)(signed_magnitude > 0x7f800000), Bits{} + 0x7e00, infinite);
    store_bits(to + i * kPerPart, half | ((bits >> 16) & 0x8000));
  }
}
#endif

} // namespace ACCL_ISA
} // namespace accl
