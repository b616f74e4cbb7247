// What labelled pixels add to the cross-entropy and to its gradient.
#pragma once

#include "segmentation_head.cuh"

namespace accl {
namespace cuda {

template <class T>
struct LabelSums {
  T loss = T(0);
  T weight = T(0);

  // Returns the pixel's weighted loss. 0 by selection where the weight is 0: inf * 0 is NaN.
  __device__ __forceinline__ T add(const SegmentationHeadArguments& a, int32_t code, T pixel_loss) {
    const T w = class_weight<T>(a, code);
    T weighted = w == T(0) ? T(0) : pixel_loss * w;
    if (code == kInvalid) weighted = T(NAN);
    loss += weighted;
    weight += w;
    return weighted;
  }
};

// The row of the loss map that reduction "none" asks for; null for other reductions.
template <class T>
__device__ __forceinline__ T* loss_map(const SegmentationHeadForward& a, int64_t image) {
  if (!a.ce || a.ce_reduction != Reduction::kNone) return nullptr;
  return static_cast<T*>(a.ce) + image * a.pixels;
}

// What the cross-entropy adds to the gradient at one labelled pixel.
template <class T>
struct LabelGradient {
  int32_t code = kInvalid;
  T factor = T(0); // gradient of the pixel's unweighted loss

  __device__ __forceinline__ LabelGradient() {}
  __device__ __forceinline__ LabelGradient(const SegmentationHeadBackward& a, const Labels& labels,
                                           int64_t image, int64_t pixel)
      : code(label_code(labels, image, pixel)) {
    const T* const grad_ce = static_cast<const T*>(a.grad_ce);
    const T incoming = a.ce_reduction == Reduction::kNone
                           ? grad_ce[image * a.pixels + pixel]
                           : static_cast<const T*>(a.ce_scale)[image] * *grad_ce;
    const T w = code == kInvalid ? T(NAN) : class_weight<T>(a, code);
    factor = w == T(0) ? T(0) : w * incoming;
  }

  // 0 by selection where the factor is 0: inf * 0 is NaN.
  __device__ __forceinline__ T times(T slope) const {
    return factor == T(0) ? T(0) : factor * slope;
  }
};

// Gradient of a soft size V: the one that came, plus the penalty's.
template <class T>
__device__ __forceinline__ T row_gradient(const SegmentationHeadBackward& a, int64_t image,
                                          int64_t c) {
  const int64_t pair = image * a.classes + c;
  T gradient = a.grad_soft_size ? static_cast<const T*>(a.grad_soft_size)[pair] : T(0);
  if (a.grad_penalty) {
    const T excess =
        size_excess(static_cast<const T*>(a.soft_size)[pair], bounds_of<T>(a, image, c));
    const int64_t at = a.size_reduction == Reduction::kNone ? pair : 0;
    gradient += size_slope(excess, *static_cast<const T*>(a.penalty_scale),
                           static_cast<const T*>(a.grad_penalty)[at]);
  }
  return gradient;
}

} // namespace cuda
} // namespace accl
