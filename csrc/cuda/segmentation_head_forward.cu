// segmentation_head, partial_cross_entropy and size_penalty: probabilities, soft sizes,
// cross-entropy and penalty, eqs. (1) to (4), in one launch. Each block sums chunks of images; the
// block that ends last adds the sums of all chunks and computes the scalars.
#include <cuda_runtime.h> // first, so that math/ is compiled for the device

#include "segmentation_head_binary.cuh"
#include "segmentation_head_many.cuh"
#include "segmentation_head_multiclass.cuh"

namespace accl {
namespace cuda {
namespace {

template <class In>
int forward(const SegmentationHeadForward& a, cudaStream_t stream) {
  const PixelPlan plan =
      plan_pixels<In>(a, {a.probabilities, a.ce_reduction == Reduction::kNone ? a.ce : nullptr});
  if (plan.units > kMaxUnits) return int(cudaErrorInvalidValue);
  const int64_t blocks = blocks_for(plan.units);
  if (blocks > 1) {
    const cudaError_t error = cudaMemsetAsync(a.ticket, 0, sizeof(*a.ticket), stream);
    if (error != cudaSuccess) return int(error);
  }
  with_kernel_classes<In>(
      a.classes, [&] { ACCL_LAUNCH(binary_forward<In>, blocks, stream, a, plan); },
      [&](auto classes) {
        ACCL_LAUNCH((multiclass_forward<In, decltype(classes)::value>), blocks, stream, a, plan);
      },
      [&] { ACCL_LAUNCH(many_forward<In>, blocks, stream, a, plan); });
  return int(cudaGetLastError());
}

} // namespace

int64_t segmentation_head_scratch(const SegmentationHeadArguments& a) {
  const int64_t sums = a.classes + (a.labels ? 2 : 0);
  return a.images * (sums * chunks_of(a.pixels).count + 2);
}

int segmentation_head_forward(const SegmentationHeadForward& a, void* stream) {
  return dispatch(a.dtype, [&](auto in) {
    return forward<decltype(in)>(a, static_cast<cudaStream_t>(stream));
  });
}

} // namespace cuda
} // namespace accl
