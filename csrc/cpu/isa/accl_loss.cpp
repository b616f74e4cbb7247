// Losses on patch scores, one chunk at a time.
#include "../../math/accl_loss.h"
#include "dispatch.h"
#include "exp_log.h"

namespace accl {
namespace ACCL_ISA {

double accl_loss_forward(const AcclLossArguments& a, int32_t group, int64_t chunk) {
  const ScoreGroup& g = a.group[group];
  const int64_t begin = chunk * cpu::kChunk;
  const int64_t end = begin + cpu::kChunk < g.count ? begin + cpu::kChunk : g.count;
  return dispatch(a.dtype, [&](auto in) {
    typedef decltype(in) In;
    typedef Accumulation<In> T;
    Sum sum;
    for (int64_t i = begin; i < end; i += kLanes) {
      const int n = end - i < kLanes ? int(end - i) : kLanes;
      const Lanes<T> d = load_some(static_cast<const In*>(g.scores) + i, n);
      const Lanes<T> loss = score_loss(g.term, d, Lanes<T>(T(g.target)));
      if (a.elementwise) {
        T* const to = static_cast<T*>(a.loss) + i;
        const Lanes<T> scaled = loss * Lanes<T>(T(g.factor));
        store_some(to, group == 0 ? scaled : load_some(to, n) + scaled, n);
      } else {
        T values[kLanes];
        store(values, loss);
        for (int j = 0; j < n; ++j) sum.lane[j] += values[j];
      }
    }
    return sum.total();
  });
}

void accl_loss_backward(const AcclLossArguments& a, int32_t group, int64_t chunk) {
  const ScoreGroup& g = a.group[group];
  const int64_t begin = chunk * cpu::kChunk;
  const int64_t end = begin + cpu::kChunk < g.count ? begin + cpu::kChunk : g.count;
  dispatch(a.dtype, [&](auto in) {
    typedef decltype(in) In;
    typedef Accumulation<In> T;
    const T* const grad_loss = static_cast<const T*>(a.grad_loss);
    const Lanes<T> factor = Lanes<T>(T(g.factor));
    Lanes<T> grad = factor * Lanes<T>(a.elementwise ? T(0) : *grad_loss);
    for (int64_t i = begin; i < end; i += kLanes) {
      const int n = end - i < kLanes ? int(end - i) : kLanes;
      if (a.elementwise) grad = factor * load_some(grad_loss + i, n);
      const Lanes<T> d = load_some(static_cast<const In*>(g.scores) + i, n);
      const Lanes<T> slope = score_loss_slope(g.term, d, Lanes<T>(T(g.target)));
      store_some(static_cast<In*>(g.grad_scores) + i, slope * grad, n);
    }
  });
}

// The only name that the rest of the library sees.
#define ACCL_STRINGIZE_(x) #x
#define ACCL_STRINGIZE(x) ACCL_STRINGIZE_(x)
extern const cpu::Kernels kKernels = {
    ACCL_STRINGIZE(ACCL_ISA), segmentation_head_forward, segmentation_head_backward,
    accl_loss_forward,        accl_loss_backward,        gated_crf_tile,
};

} // namespace ACCL_ISA
} // namespace accl
