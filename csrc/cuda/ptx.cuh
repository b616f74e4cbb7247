// Instructions that the compiler does not choose by itself. tests/cuda_on_cpu compiles the plain
// C++ beside them.
#pragma once

#include <cuda_runtime.h>

#include <cmath>

namespace accl {
namespace cuda {

#ifdef ACCL_CUDA_ON_CPU

template <class Word>
inline void store_word(Word* to, const Word& word) {
  cuda_on_cpu::store_word(to, word);
}
inline float exp2_approximate(float x) { return exp2f(x); }

#else

// Stores a word in one instruction. The compiler splits a plain assignment into stores of 4 bytes,
// and each of these moves four times its bytes.
__device__ __forceinline__ void store_word(uint4* to, const uint4& word) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(word.x), "r"(word.y), "r"(word.z), "r"(word.w)
               : "memory");
}
__device__ __forceinline__ void store_word(uint2* to, const uint2& word) {
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(word.x),
               "r"(word.y)
               : "memory");
}
template <class Word>
__device__ __forceinline__ void store_word(Word* to, const Word& word) {
  *to = word;
}

// 2^x within 2 units in the last place; 0 below 2^-126.
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif

} // namespace cuda
} // namespace accl
