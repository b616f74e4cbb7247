// The kernels of one instruction set: each walks one chunk of one row. csrc/cpu/isa/*.cpp is
// compiled once for each instruction set, into a namespace of that name; isa.cpp picks one at run
// time.
#pragma once

#include "../kernels.h"

namespace accl {
namespace cpu {

// A chunk is this many pixels (or scores) of a row, which are summed together. The number is fixed,
// so that sums depend on the row alone. 32 KiB of float32 logits give 24 bytes of sums.
constexpr int64_t kChunk = 8192;

// The gradients that all pixels of one image share; those of single pixels are maps in
// SegmentationHeadBackward.
struct ImageGradient {
  const double* row = nullptr; // [C] of the soft size V, the penalty's included; null: none
  double ce = 0;               // of each pixel's weighted loss
  const double* overlap = nullptr; // [K, 2] of hit and predicted of each class; null: none
};

struct GatedCrfTile; // gated_crf_loss.h

struct Kernels {
  const char* name;
  // Writes the sums over the chunk to chunk_sums [segmentation_head_sums()]: soft size of each
  // class, cross-entropy, weight, and with overlap three for each label. scratch has
  // segmentation_head_scratch_bytes(). Returns the index in the image of the first pixel whose
  // label is invalid, or -1.
  int64_t (*segmentation_head_forward)(const SegmentationHeadForward&, int64_t image, int64_t chunk,
                                       double* chunk_sums, void* scratch);
  void (*segmentation_head_backward)(const SegmentationHeadBackward&, int64_t image, int64_t chunk,
                                     const ImageGradient& gradient, void* scratch);
  double (*accl_loss_forward)(const AcclLossArguments&, int32_t group, int64_t chunk);
  void (*accl_loss_backward)(const AcclLossArguments&, int32_t group, int64_t chunk);
  // Returns the sum of the tile's losses. scratch has gated_crf_scratch() elements.
  double (*gated_crf_tile)(const GatedCrfArguments&, const GatedCrfTile&, void* scratch);
};

// The scratch is arrays of sixteen numbers, two for each class and six for each label, aligned to
// kVectorBytes.
constexpr int64_t kVectorBytes = 64;
constexpr int64_t segmentation_head_scratch_bytes(int64_t classes) {
  return (classes * 2 + overlap_labels(classes) * 6) * 16 * int64_t(sizeof(double));
}
constexpr int64_t segmentation_head_sums(const SegmentationHeadForward& a) {
  return a.classes + 2 + (a.overlap_sums ? overlap_labels(a.classes) * 3 : 0);
}

// The best instruction set that this processor has, or the one that ACCL_EXT_ISA names. Exported
// for build_info().
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
