// What to do about an error of the CUDA runtime. CUDA's own text tells only what went wrong.
#pragma once

namespace accl {

// Advice on errors that a user can mend and on errors after which no CUDA call works; "" for all
// others. The numbers are those of cudaError_t, which CUDA keeps from version to version.
constexpr const char* cuda_advice(int error) {
  switch (error) {
    case 35: // cudaErrorInsufficientDriver
      return ". accl_ext was built with a newer CUDA than the NVIDIA driver runs: install a driver "
             "from accl_ext.build_info()['cuda_driver'] on, or rebuild with an nvcc of the CUDA "
             "version that torch has (torch.version.cuda)";
    case 209: // cudaErrorNoKernelImageForDevice
      return ". accl_ext was built for other GPUs than this one: rebuild with "
             "TORCH_CUDA_ARCH_LIST set to torch.cuda.get_device_capability() (9.0 for (9, 0)). "
             "accl_ext.build_info()['cuda_architectures'] tells what is there";
    case 222: // cudaErrorUnsupportedPtxVersion
      return ". The NVIDIA driver is too old to compile the PTX of accl_ext for this GPU: install "
             "a newer driver, or rebuild with TORCH_CUDA_ARCH_LIST set to "
             "torch.cuda.get_device_capability() (9.0 for (9, 0))";
    case 700: // cudaErrorIllegalAddress
    case 702: // cudaErrorLaunchTimeout
    case 710: // cudaErrorAssert
    case 714: // cudaErrorHardwareStackError
    case 715: // cudaErrorIllegalInstruction
    case 716: // cudaErrorMisalignedAddress
    case 717: // cudaErrorInvalidAddressSpace
    case 718: // cudaErrorInvalidPc
    case 719: // cudaErrorLaunchFailure
      return ". A kernel that ran before, of accl_ext or of another library, may be the one that "
             "failed, and no CUDA call works any more in this process: start it anew, with the "
             "environment variable CUDA_LAUNCH_BLOCKING=1, and the first error names the call";
    default: return "";
  }
}

} // namespace accl
