// Elementary functions that the formulas are written in, for one number (host and device). The
// CPU kernels add overloads for vectors of numbers (cpu/isa/lanes.h, cpu/isa/exp_log.h).
#pragma once

#include <math.h>

// Internal linkage and always inlined: code compiled for one instruction set must never be
// picked by the linker for another.
#if defined(__CUDACC__) || defined(ACCL_CUDA_ON_CPU)
#define ACCL_HD static __host__ __device__ __forceinline__
#else
#define ACCL_HD static inline __attribute__((always_inline))
#endif

namespace accl {

template <class T>
ACCL_HD T select(bool condition, T yes, T no) {
  return condition ? yes : no;
}

ACCL_HD float abs_(float x) { return fabsf(x); }
ACCL_HD double abs_(double x) { return fabs(x); }

ACCL_HD float exp_(float x) { return expf(x); }
ACCL_HD double exp_(double x) { return exp(x); }

// log(1 + x) for x in [0, 1].
ACCL_HD float log1p_unit(float x) { return log1pf(x); }
ACCL_HD double log1p_unit(double x) { return log1p(x); }

// log(1 + x) for x >= 0.
ACCL_HD float log1p_(float x) { return log1pf(x); }
ACCL_HD double log1p_(double x) { return log1p(x); }

// factor * x, but 0 for a factor of 0 even where x is infinite or NaN.
template <class T>
ACCL_HD T times(T factor, T x) {
  return select(factor == T(0), T(0), factor * x);
}

// x - x is NaN for infinity and NaN. isfinite is not used: what it is differs between compilers.
template <class T>
ACCL_HD bool is_finite(T x) {
  return x - x == T(0);
}

} // namespace accl
