// Gradient of the logits, in one pass, from the gradients that are given: those of the
// probabilities, the cross-entropy, the penalty and the soft sizes.
#include <cuda_runtime.h> // first, so that math/ is compiled for the device

#include "segmentation_head_binary.cuh"
#include "segmentation_head_many.cuh"
#include "segmentation_head_multiclass.cuh"

namespace accl {
namespace cuda {
namespace {

template <class In>
int backward(const SegmentationHeadBackward& a, cudaStream_t stream) {
  const PixelPlan plan = plan_pixels<In>(a, {a.grad_probabilities, a.grad_logits});
  if (plan.units > kMaxUnits) return int(cudaErrorInvalidValue);
  const int64_t blocks = blocks_for(plan.units);
  with_kernel_classes<In>(
      a.classes, [&] { ACCL_LAUNCH(binary_backward<In>, blocks, stream, a, plan); },
      [&](auto classes) {
        ACCL_LAUNCH((multiclass_backward<In, decltype(classes)::value>), blocks, stream, a, plan);
      },
      [&] { ACCL_LAUNCH(many_backward<In>, blocks, stream, a, plan); });
  return int(cudaGetLastError());
}

} // namespace

int segmentation_head_backward(const SegmentationHeadBackward& a, void* stream) {
  return dispatch(a.dtype, [&](auto in) {
    return backward<decltype(in)>(a, static_cast<cudaStream_t>(stream));
  });
}

} // namespace cuda
} // namespace accl
