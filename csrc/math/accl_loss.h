// Losses on patch scores: one term of eq. (5) or (6) and its derivative.
#pragma once

#include "../kernels.h"
#include "logistic.h"

namespace accl {

template <class T>
ACCL_HD T score_loss(ScoreTerm term, T d, T target) {
  switch (term) {
    case ScoreTerm::kLeastSquares: // eq. (5), and both parts of eq. (6)
      return (d - target) * (d - target);
    case ScoreTerm::kVanilla: { // softplus(d) - t d
      // Both terms below have one sign, so large d loses no digits.
      const T factor = select(d > T(0), T(1) - target, target);
      const T linear = select(factor == T(0), T(0), factor * abs_(d)); // 0 even if d is infinite
      return linear + log1p_unit(exp_(-abs_(d)));
    }
    case ScoreTerm::kHingeGenerator: return -d;
    case ScoreTerm::kHingeFake: return select(d < T(-1), T(0), T(1) + d);
    case ScoreTerm::kHingeReal: return select(d > T(1), T(0), T(1) - d);
  }
  return d;
}

template <class T>
ACCL_HD T score_loss_slope(ScoreTerm term, T d, T target) {
  switch (term) {
    case ScoreTerm::kLeastSquares: return T(2) * (d - target);
    case ScoreTerm::kVanilla: { // s - t, written so that t = 1 gives -(1 - s) exactly
      const Logistic<T> l = logistic(d);
      return (T(1) - target) * sigmoid(l) - target * sigmoid_complement(l);
    }
    case ScoreTerm::kHingeGenerator: return T(-1);
    case ScoreTerm::kHingeFake: // as torch's relu: 0 at the kink, 1 at NaN
      return select(T(-1) >= d, T(0), T(1));
    case ScoreTerm::kHingeReal: return select(d >= T(1), T(0), T(-1));
  }
  return d;
}

} // namespace accl
