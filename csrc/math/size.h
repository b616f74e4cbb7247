// The size penalty C(.) of eq. (3) on the soft size V, and the scales that turn sums into means.
#pragma once

#include "../kernels.h"
#include "elementary.h"

namespace accl {

template <class T>
struct Bounds {
  T lower;
  T upper;
};

// A bound that is not finite leaves its side free.
template <class T>
ACCL_HD bool is_bounded(const Bounds<T>& bounds) {
  return is_finite(bounds.lower) || is_finite(bounds.upper);
}

// V - a below a, V - b above b, else 0; so C = excess^2 and dC/dV = 2 excess.
template <class T>
ACCL_HD T size_excess(T size, const Bounds<T>& bounds) {
  if (!is_bounded(bounds)) return T(0);
  if (is_finite(bounds.lower) && size < bounds.lower) return size - bounds.lower;
  if (is_finite(bounds.upper) && size > bounds.upper) return size - bounds.upper;
  return size - size; // 0, but NaN for a NaN size
}

template <class T>
ACCL_HD T size_normalizer(Normalization normalization, int64_t pixels) {
  const T n = T(pixels);
  switch (normalization) {
    case Normalization::kArea: return n;
    case Normalization::kArea2: return n * n;
    case Normalization::kNone: break;
  }
  return T(1);
}

// Factor of each pair's squared excess in the loss; `bounded` pairs of (image, class) carry a
// bound.
template <class T>
ACCL_HD T size_scale(Normalization normalization, int64_t pixels, Reduction reduction,
                     int64_t bounded) {
  const T scale = T(1) / size_normalizer<T>(normalization, pixels);
  return reduction == Reduction::kMean && bounded > 0 ? scale / T(bounded) : scale;
}

// dC/dV times its factor and the incoming gradient, plus the gradient of V itself.
template <class T>
ACCL_HD T size_slope(T excess, T scale, T grad_penalty) {
  return T(2) * excess * scale * grad_penalty;
}

// Factor of an image's summed cross-entropy in the loss: 1/|P| over the batch for kMean, over the
// image and the number of labelled images for kImageMean, 0 where nothing is labelled.
template <class T>
ACCL_HD T cross_entropy_scale(Reduction reduction, T image_weight, T batch_weight,
                              int64_t labelled_images) {
  switch (reduction) {
    case Reduction::kMean: return batch_weight == T(0) ? T(0) : T(1) / batch_weight;
    case Reduction::kImageMean:
      return image_weight == T(0) ? T(0) : T(1) / (image_weight * T(labelled_images));
    case Reduction::kSum:
    case Reduction::kNone: break;
  }
  return T(1);
}

} // namespace accl
