// Reads and writes up to sixteen elements of an array of any dtype, in the accumulation type.
#pragma once

#include "half.h"

namespace accl {
namespace ACCL_ISA {

template <class In>
struct AccumulationOf {
  typedef float type;
};
template <>
struct AccumulationOf<double> {
  typedef double type;
};
template <class In>
using Accumulation = typename AccumulationOf<In>::type;

// The first n <= 16 elements. The other lanes are `padding` when loaded, and are not stored.
template <class In>
ACCL_HD Lanes<Accumulation<In>> load_some(const In* from, int n, float padding = 0) {
  if (n == kLanes) return load(from);
  In buffer[kLanes] = {};
  std::memcpy(buffer, from, n * sizeof(In));
  Lanes<Accumulation<In>> x = load(buffer);
  Accumulation<In> values[kLanes];
  store(values, x);
  for (int i = n; i < kLanes; ++i) values[i] = padding;
  return load(values);
}

template <class In>
ACCL_HD void store_some(In* to, const Lanes<Accumulation<In>>& x, int n) {
  if (n == kLanes) return store(to, x);
  In buffer[kLanes];
  store(buffer, x);
  std::memcpy(to, buffer, n * sizeof(In));
}

} // namespace ACCL_ISA
} // namespace accl
