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

// V - a if V < a, V - b if V > b, else 0. Then C = excess^2 and dC/dV = 2 excess.
template <class T>
ACCL_HD T size_excess(T size, const Bounds<T>& bounds) {
  if (!is_bounded(bounds)) return T(0);
  if (is_finite(bounds.lower) && size < bounds.lower) return size - bounds.lower;
  if (is_finite(bounds.upper) && size > bounds.upper) return size - bounds.upper;
  return size - size; // 0, or NaN for a NaN size
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

// Factor of a squared excess in the loss. `bounded` is the number of pairs of image and class that
// have a bound.
template <class T>
ACCL_HD T size_scale(Normalization normalization, int64_t pixels, Reduction reduction,
                     int64_t bounded) {
  const T scale = T(1) / size_normalizer<T>(normalization, pixels);
  return reduction == Reduction::kMean && bounded > 0 ? scale / T(bounded) : scale;
}

// dC/dV times the factor of size_scale() and the incoming gradient.
template <class T>
ACCL_HD T size_slope(T excess, T scale, T grad_penalty) {
  return T(2) * excess * scale * grad_penalty;
}

// Factor of an image's summed cross-entropy in the loss. kMean divides by the weight of the batch,
// kImageMean by the image's own weight and by the number of labelled images. 0 where there is no
// weight.
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
