// From an op to its kernels: CPU, CUDA, or nothing on meta tensors.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "../kernels.h"
#include "cuda_advice.h"

namespace accl {

// Scratch and ticket of a CUDA kernel that reduces, in one allocation.
inline at::Tensor cuda_scratch(int64_t elements, at::ScalarType type, const at::Tensor& like,
                               void** scratch_out, int32_t** ticket_out) {
  constexpr int64_t kTicketBytes = 16; // more than the ticket needs, so that the scratch is aligned
  at::Tensor scratch = at::empty({kTicketBytes + elements * int64_t(c10::elementSize(type))},
                                 like.options().dtype(at::kByte));
  *ticket_out = reinterpret_cast<int32_t*>(scratch.data_ptr());
  *scratch_out = static_cast<char*>(scratch.data_ptr()) + kTicketBytes;
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
