// accl_loss and accl_discriminator_loss on CPU.
#include <vector>

#include "parallel.h"

namespace accl {
namespace cpu {
namespace {

// Calls function(group, chunk, unit) for every chunk of every group.
template <class Function>
void for_chunks(const AcclLossArguments& a, const Function& function) {
  const int64_t first = chunks(a.group[0].count);
  const int64_t units = first + (a.groups > 1 ? chunks(a.group[1].count) : 0);
  for_units(units, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const bool second = unit >= first;
      function(int32_t(second), second ? unit - first : unit, unit);
    }
  });
}

} // namespace

void accl_loss_forward(const AcclLossArguments& a) {
  const Kernels& isa = kernels();
  if (a.elementwise) { // both groups write to the same elements, so one follows the other
    for_units(chunks(a.group[0].count), [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        for (int32_t group = 0; group < a.groups; ++group) isa.accl_loss_forward(a, group, chunk);
      }
    });
    return;
  }
  const int64_t first = chunks(a.group[0].count);
  std::vector<double> chunk_sums(first + (a.groups > 1 ? chunks(a.group[1].count) : 0));
  for_chunks(a, [&](int32_t group, int64_t chunk, int64_t unit) {
    chunk_sums[unit] = isa.accl_loss_forward(a, group, chunk);
  });
  double loss = 0;
  for (int32_t group = 0; group < a.groups; ++group) {
    double sum = 0;
    const int64_t end = group == 0 ? first : int64_t(chunk_sums.size());
    for (int64_t unit = group == 0 ? 0 : first; unit < end; ++unit) sum += chunk_sums[unit];
    loss += sum * a.group[group].factor;
  }
  if (a.dtype == DType::kFloat64) {
    *static_cast<double*>(a.loss) = loss;
  } else {
    *static_cast<float*>(a.loss) = float(loss);
  }
}

void accl_loss_backward(const AcclLossArguments& a) {
  const Kernels& isa = kernels();
  for_chunks(
      a, [&](int32_t group, int64_t chunk, int64_t) { isa.accl_loss_backward(a, group, chunk); });
}

} // namespace cpu
} // namespace accl
