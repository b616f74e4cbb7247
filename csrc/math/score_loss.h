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
    case ScoreTerm::kVanilla:
      return softplus(d, exp_(-abs_(d))) - target * d;
    case ScoreTerm::kHingeGenerator:
      return -d;
    case ScoreTerm::kHingeFake:
      return select(d < T(-1), T(0), T(1) + d);
    case ScoreTerm::kHingeReal:
      return select(d > T(1), T(0), T(1) - d);
  }
  return d;
}

template <class T>
ACCL_HD T score_loss_slope(ScoreTerm term, T d, T target) {
  switch (term) {
    case ScoreTerm::kLeastSquares:
      return T(2) * (d - target);
    case ScoreTerm::kVanilla:
      return sigmoid(logistic(d)) - target;
    case ScoreTerm::kHingeGenerator:
      return T(-1);
    case ScoreTerm::kHingeFake: // 0 at the kink, as relu
      return select(d > T(-1), T(1), T(0));
    case ScoreTerm::kHingeReal:
      return select(d < T(1), T(-1), T(0));
  }
  return d;
}

} // namespace accl
