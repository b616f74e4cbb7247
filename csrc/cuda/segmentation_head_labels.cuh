// What labelled pixels add to the cross-entropy and to its gradient.
#pragma once

#include "../math/label_smoothing.h"
#include "segmentation_head.cuh"

namespace accl {
namespace cuda {

// The label of a labelled pixel, `at` in the batch, and the factor of its loss.
template <class T>
struct PixelLabel {
  int32_t code; // class or kInvalid
  T weight;     // what the pixel counts in the means: its own weight times its class's
  T factor; // of its loss: the same weight; or its own weight alone with smoothing, where the loss
            // contains the weights of the classes. NaN for an invalid label

  __device__ __forceinline__ PixelLabel() : code(kInvalid), weight(T(0)), factor(T(0)) {}
  __device__ __forceinline__ PixelLabel(const SegmentationHeadArguments& a, const PixelPlan& plan,
                                        int64_t at)
      : code(label_code(plan.labels, at)) {
    const T of_pixel = a.pixel_weight ? static_cast<const T*>(a.pixel_weight)[at] : T(1);
    weight = of_pixel * class_weight<T>(a, code < 0 ? 0 : code);
    factor = code == kInvalid ? T(NAN) : plan.smooths ? of_pixel : weight;
  }
};

// q_c of math/label_smoothing.h for one pixel.
template <class T>
struct SmoothedLabel {
  const SegmentationHeadArguments& a;
  const int32_t code;
  T share; // of every class
  T own; // of the label's class, besides the share
  T weight_sum; // of all classes

  __device__ __forceinline__ SmoothedLabel(const SegmentationHeadArguments& arguments,
                                           const PixelPlan& plan, int32_t label)
      : a(arguments),
        code(label),
        share(T(plan.smoothing.share)),
        own(T(plan.smoothing.own) * class_weight<T>(a, code < 0 ? 0 : code)),
        weight_sum(T(0)) {
    const int32_t count = a.classes == 1 ? 2 : int32_t(a.classes);
#pragma unroll 1
    for (int32_t c = 0; c < count; ++c) weight_sum += class_weight<T>(a, c);
  }

  __device__ __forceinline__ T factor(int32_t c) const {
    return share * class_weight<T>(a, c) + (c == code ? own : T(0));
  }
  __device__ __forceinline__ T all_factors() const { return share * weight_sum + own; }

  // Slope of the pixel's loss with respect to logit c, from p_c and 1 - p_c.
  __device__ __forceinline__ T slope(int32_t c, T p, T complement) const {
    const T others = share * (weight_sum - class_weight<T>(a, c)) + (c == code ? T(0) : own);
    return smoothed_cross_entropy_slope(factor(c), others, p, complement);
  }
};

template <class T>
struct LabelSums {
  T loss = T(0);
  T weight = T(0);

  // Returns the pixel's loss times its factor.
  __device__ __forceinline__ T add(const PixelLabel<T>& label, T pixel_loss) {
    const T weighted = times(label.factor, pixel_loss);
    loss += weighted;
    weight += label.weight;
    return weighted;
  }
};

// True if the losses of the pixels are wanted one by one, with reduction "none".
__device__ __forceinline__ bool maps_losses(const SegmentationHeadForward& a) {
  return a.ce && a.ce_reduction == Reduction::kNone;
}

// The same for the backward pass, where the factor contains the incoming gradient of the loss.
template <class T>
__device__ __forceinline__ PixelLabel<T> label_with_gradient(const SegmentationHeadBackward& a,
                                                             const PixelPlan& plan, int64_t image,
                                                             int64_t at) {
  const T* const grad_ce = static_cast<const T*>(a.grad_ce);
  const T gradient = a.ce_reduction == Reduction::kNone
                         ? grad_ce[at]
                         : static_cast<const T*>(a.ce_scale)[image] * *grad_ce;
  PixelLabel<T> label(a, plan, at);
  label.factor = times(label.factor, gradient);
  return label;
}

// Gradient of a soft size V: the incoming one plus that of the penalty.
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
