// What stands for the CUDA kernels in a build without them: every launch fails with the reason.
#include "../kernels.h"

#ifndef ACCL_WITH_CUDA
namespace accl::cuda {

int64_t score_partials(const ScoreArguments&) { return 0; }
int64_t pixel_partials(const PixelArguments&) { return 0; }
int score_forward(const ScoreArguments&, void*) { return -1; }
int score_backward(const ScoreArguments&, void*) { return -1; }
int pixel_forward(const PixelForward&, void*) { return -1; }
int pixel_backward(const PixelBackward&, void*) { return -1; }
const char* error_string(int) {
  return "this build has no CUDA kernels; rebuild with ACCL_EXT_CUDA=on and nvcc on the PATH";
}

} // namespace accl::cuda
#endif
