// Takes the place of the CUDA kernels in a build without them: every launch fails and says why.
#include "../kernels.h"

#ifndef ACCL_WITH_CUDA
namespace accl::cuda {

int64_t accl_loss_scratch(const AcclLossArguments&) { return 0; }
int64_t segmentation_head_scratch(const SegmentationHeadArguments&) { return 0; }
int64_t gated_crf_scratch(const GatedCrfForward&) { return 0; }
int accl_loss_forward(const AcclLossArguments&, void*) { return -1; }
int accl_loss_backward(const AcclLossArguments&, void*) { return -1; }
int segmentation_head_forward(const SegmentationHeadForward&, void*) { return -1; }
int segmentation_head_backward(const SegmentationHeadBackward&, void*) { return -1; }
int gated_crf_forward(const GatedCrfForward&, void*) { return -1; }
int gated_crf_gather(const GatedCrfGather&, void*) { return -1; }
const char* error_string(int) {
  return "this build has no CUDA kernels; rebuild with ACCL_EXT_CUDA=on and nvcc on the PATH";
}

} // namespace accl::cuda
#endif
