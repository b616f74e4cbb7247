#include "isa.h"

#include <cstdlib>
#include <cstring>

namespace accl {
namespace cpu {
namespace {

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

bool has_avx512() {
#if defined(__x86_64__)
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

// ACCL_EXT_ISA=baseline|avx2 asks for less than the processor has: to test, or to compare.
const Kernels& choose() {
  const char* const asked = std::getenv("ACCL_EXT_ISA");
  const auto allowed = [asked](const char* name) {
    return asked == nullptr || std::strcmp(asked, name) == 0;
  };
#if defined(__x86_64__)
  if (has_avx512() && allowed("avx512")) return avx512::kKernels;
  if (has_avx2() && (allowed("avx2") || allowed("avx512"))) return avx2::kKernels;
#endif
  return baseline::kKernels;
}

} // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

} // namespace cpu
} // namespace accl
