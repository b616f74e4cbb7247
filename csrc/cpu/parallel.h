// Work over (row, chunk) units on torch's intra-op threads.
#pragma once

#include <ATen/Parallel.h>

#include "isa.h"

namespace accl {
namespace cpu {

constexpr int64_t chunks(int64_t elements) { return (elements + kChunk - 1) / kChunk; }

// Calls function(begin, end) for ranges that cover all units, on several threads. What a unit
// computes must not depend on the ranges.
template <class Function>
void for_units(int64_t units, const Function& function) {
  if (units <= 2) { // waking a thread costs more than it saves
    function(0, units);
  } else {
    at::parallel_for(0, units, 1, function);
  }
}

} // namespace cpu
} // namespace accl
