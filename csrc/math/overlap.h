// Soft overlap of prediction and labels (Dice, Tversky, Jaccard) from three sums over the labelled
// pixels of a class: with hit = sum of w p y, predicted = sum of w p (or w p^2) and
// labelled = sum of w y,
//   T = (hit + n) / D,  D = hit + alpha (predicted - hit) + beta (labelled - hit) + d,
// and the loss is 1 - T. T is 1 where D is 0.
#pragma once

#include "../kernels.h"
#include "elementary.h"

namespace accl {

template <class T>
struct OverlapSums {
  T hit, predicted, labelled;
};

// Of one class: derivatives by its hit and its predicted.
template <class T>
struct OverlapSlopes {
  T hit, predicted;
};

template <class T>
ACCL_HD T overlap_denominator(const OverlapOptions& o, const OverlapSums<T>& s) {
  return s.hit + T(o.alpha) * (s.predicted - s.hit) + T(o.beta) * (s.labelled - s.hit) +
         T(o.smooth_denominator);
}

template <class T>
ACCL_HD T overlap_loss(const OverlapOptions& o, const OverlapSums<T>& s) {
  const T denominator = overlap_denominator(o, s);
  if (denominator == T(0)) return T(0);
  return T(1) - (s.hit + T(o.smooth_numerator)) / denominator;
}

// d(1 - T)/d hit = -(1 - (1 - alpha - beta) T) / D,  d(1 - T)/d predicted = alpha T / D
template <class T>
ACCL_HD OverlapSlopes<T> overlap_slopes(const OverlapOptions& o, const OverlapSums<T>& s) {
  const T denominator = overlap_denominator(o, s);
  if (denominator == T(0)) return {T(0), T(0)};
  const T ratio = (s.hit + T(o.smooth_numerator)) / denominator;
  return {(T(1 - o.alpha - o.beta) * ratio - T(1)) / denominator, T(o.alpha) * ratio / denominator};
}

// Weight of a pair of image and class in sums and means: that of the class, 0 if it does not count.
template <class T>
ACCL_HD T overlap_weight(const OverlapOptions& o, const OverlapSums<T>& s, T class_weight) {
  return !o.keep_absent && s.labelled == T(0) ? T(0) : class_weight;
}

// What a pixel of weight 1 adds to `predicted`, and that term's derivative by p.
template <class T>
ACCL_HD T overlap_predicted(bool squared, T p) {
  return squared ? p * p : p;
}
template <class T>
ACCL_HD T overlap_predicted_slope(bool squared, T p) {
  return squared ? p + p : T(1);
}

// Derivative of the loss by the p of a pixel of weight 1.
template <class T, class Mask>
ACCL_HD T overlap_pixel_slope(Mask is_label, T hit_slope, T predicted_slope, bool squared, T p) {
  return select(is_label, hit_slope, T(0)) + predicted_slope * overlap_predicted_slope(squared, p);
}

} // namespace accl
