// From an op to its kernels: CPU, CUDA, or nothing on meta tensors.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "../kernels.h"
#include "cuda_advice.h"

namespace accl {

// What a reducing CUDA kernel needs besides its outputs, in one allocation.
inline at::Tensor cuda_scratch(int64_t partials, at::ScalarType type, const at::Tensor& like,
                               void** partials_out, int32_t** ticket_out) {
  constexpr int64_t kTicketBytes = 16; // keeps the sums aligned
  at::Tensor scratch = at::empty({kTicketBytes + partials * int64_t(c10::elementSize(type))},
                                 like.options().dtype(at::kByte));
  *ticket_out = reinterpret_cast<int32_t*>(scratch.data_ptr());
  *partials_out = static_cast<char*>(scratch.data_ptr()) + kTicketBytes;
  return scratch;
}

// Launches on the current stream of the tensor's device. The device-generic guard and stream need
// no CUDA header, so one binary serves torch builds with and without CUDA.
template <class Arguments>
void launch_cuda(int (*launcher)(const Arguments&, void*), const Arguments& arguments,
                 const at::Tensor& on) {
  const c10::DeviceGuard guard(on.device());
  void* const stream =
      c10::impl::VirtualGuardImpl(on.device().type()).getStream(on.device()).native_handle();
  const int error = launcher(arguments, stream);
  TORCH_CHECK(error == 0, "accl_ext on ", on.device(), ": ", cuda::error_string(error),
              cuda_advice(error));
}

} // namespace accl
