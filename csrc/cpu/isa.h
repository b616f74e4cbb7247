// The per-instruction-set kernels: each walks one chunk of one row. csrc/cpu/isa/*.cpp is compiled
// once for each instruction set, into a namespace of that name; isa.cpp picks one at run time.
#pragma once

#include "../kernels.h"

namespace accl {
namespace cpu {

// Pixels (or scores) of a row that are summed together. Fixed, so that sums depend on nothing but
// the row; 24 bytes of partial sums to 32 KiB of float32 logits.
constexpr int64_t kChunk = 8192;

// What one image adds to the gradient of each of its logits, besides the maps in
// SegmentationHeadBackward.
struct ImageGradient {
  const double* row = nullptr; // [C] gradient of the soft size V, penalty included; null: none
  double ce = 0;               // of each pixel's weighted loss
};

struct GatedCrfTile; // gated_crf_loss.h

struct Kernels {
  const char* name;
  // Sums over the chunk go to partial [C + 2]: soft size of each class, cross-entropy, weight.
  // scratch: segmentation_head_scratch_bytes(). Returns the first invalid label's pixel in the
  // image, or -1.
  int64_t (*segmentation_head_forward)(const SegmentationHeadForward&, int64_t image, int64_t chunk,
                                       double* partial, void* scratch);
  void (*segmentation_head_backward)(const SegmentationHeadBackward&, int64_t image, int64_t chunk,
                                     const ImageGradient& gradient, void* scratch);
  double (*accl_loss_forward)(const AcclLossArguments&, int32_t group, int64_t chunk);
  void (*accl_loss_backward)(const AcclLossArguments&, int32_t group, int64_t chunk);
  // Returns the tile's summed loss. scratch: gated_crf_scratch().
  double (*gated_crf_tile)(const GatedCrfArguments&, const GatedCrfTile&, void* scratch);
};

// Two arrays of sixteen numbers a class, aligned to kVectorBytes.
constexpr int64_t kVectorBytes = 64;
constexpr int64_t segmentation_head_scratch_bytes(int64_t classes) {
  return classes * 2 * 16 * int64_t(sizeof(double));
}

// The best set that this processor has, or the one named by ACCL_EXT_ISA. Exported for
// build_info().
__attribute__((visibility("default"))) const Kernels& kernels();

} // namespace cpu

#define ACCL_DECLARE_ISA(isa)         \
  namespace isa {                     \
  extern const cpu::Kernels kKernels; \
  }
ACCL_DECLARE_ISA(baseline)
ACCL_DECLARE_ISA(avx2)
ACCL_DECLARE_ISA(avx512)
#undef ACCL_DECLARE_ISA

} // namespace accl
