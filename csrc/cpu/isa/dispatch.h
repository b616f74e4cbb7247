// From a run-time dtype to a compile-time element type.
#pragma once

#include "../isa.h"
#include "memory.h"

namespace accl {
namespace ACCL_ISA {

template <class Function>
ACCL_HD auto dispatch(DType dtype, const Function& function) {
  switch (dtype) {
    case DType::kFloat16: return function(Half{});
    case DType::kBFloat16: return function(BFloat16{});
    case DType::kFloat64: return function(double{});
    case DType::kFloat32: break;
  }
  return function(float{});
}

int64_t segmentation_head_forward(const SegmentationHeadForward&, int64_t, int64_t, double*, void*);
void segmentation_head_backward(const SegmentationHeadBackward&, int64_t, int64_t,
                                const cpu::ImageGradient&, void*);
double accl_loss_forward(const AcclLossArguments&, int32_t, int64_t);
void accl_loss_backward(const AcclLossArguments&, int32_t, int64_t);
double gated_crf_tile(const GatedCrfArguments&, const cpu::GatedCrfTile&, void*);

} // namespace ACCL_ISA
} // namespace accl
