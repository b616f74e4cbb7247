// __half by its definition: sign, five bits of exponent, ten of fraction.
#pragma once

#include <cmath>
#include <cstdint>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  float magnitude;
  if (exponent == 31) {
    magnitude = fraction ? NAN : INFINITY;
  } else if (exponent == 0) {
    magnitude = std::ldexp(float(fraction), -24);
  } else {
    magnitude = std::ldexp(float(1024 + fraction), exponent - 25);
  }
  return x.bits & 0x8000 ? -magnitude : magnitude;
}

// To nearest, ties to even, as nearbyint does in the default rounding mode.
inline __half __float2half_rn(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float magnitude = std::fabs(x);
  if (std::isnan(x)) return {uint16_t(sign | 0x7fff)};
  if (magnitude >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  if (magnitude == 0 || exponent < -13) exponent = -13; // subnormals share the smallest's grid
  const int fraction = int(std::nearbyint(std::ldexp(magnitude, 11 - exponent)));
  return {uint16_t(sign | (((exponent + 13) << 10) + fraction))};
}
