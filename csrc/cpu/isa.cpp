#include "isa.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <string_view>

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

// ACCL_EXT_ISA asks for a smaller instruction set than the processor has, to test or to compare.
const Kernels& choose() {
  const char* const asked = std::getenv("ACCL_EXT_ISA");
  const std::string_view limit = asked && *asked ? asked : "avx512";
  TORCH_CHECK_VALUE(limit == "baseline" || limit == "avx2" || limit == "avx512",
                    "ACCL_EXT_ISA must be baseline, avx2 or avx512, got ", limit);
#if defined(__x86_64__)
  if (limit == "avx512" && has_avx512()) return avx512::kKernels;
  if (limit != "baseline" && has_avx2()) return avx2::kKernels;
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
