// Gradient of the logits of one chunk of an image, in one pass, from the gradients that are given.
// A block is first computed as if nothing were labelled. Then its few labelled pixels are computed
// again, while the block is in the cache.
#include "../../math/logistic.h"
#include "../../math/overlap.h"
#include "dispatch.h"
#include "labels.h"
#include "segmentation_head.h"

namespace accl {
namespace ACCL_ISA {
namespace {

template <class In>
struct Backward {
  typedef Accumulation<In> T;

  const SegmentationHeadBackward& a;
  const int64_t image;
  const cpu::ImageGradient& gradient;
  T* const exponentials; // [C, 16]
  T* const relative;     // [C, 16] gradients of the probabilities, relative to the top class's
  const Smoothing<T> smoothing;

  // What the labels of sixteen pixels ask for.
  struct Labels {
    const int32_t* code;
    Lanes<T> of_pixel; // weight of the pixel, 0 where it is not labelled
    Lanes<T> grad_ce;
  };

  int64_t offset(int64_t c, int64_t block) const {
    return (image * a.classes + c) * a.pixels + block;
  }
  const In* logits(int64_t c, int64_t block) const {
    return static_cast<const In*>(a.logits) + offset(c, block);
  }
  const T* pixel_weights(int64_t block) const {
    if (!a.pixel_weight) return nullptr;
    return static_cast<const T*>(a.pixel_weight) + image * a.pixels + block;
  }
  In* grad_logits(int64_t c, int64_t block) const {
    return static_cast<In*>(a.grad_logits) + offset(c, block);
  }

  // Gradient of p: the incoming map, plus the gradient of the soft size V.
  template <bool kMap, class Pixels>
  Lanes<T> grad_probability(int64_t c, int64_t block, const Pixels& pixels) const {
    const Lanes<T> row = Lanes<T>(gradient.row ? T(gradient.row[c]) : T(0));
    if (!kMap) return row;
    return pixels.read(static_cast<const In*>(a.grad_probabilities) + offset(c, block)) + row;
  }

  // Factor of the slope of each pixel's loss: the incoming gradient times the pixel's weight and
  // that of its class. With smoothing the slope itself contains the weights of the classes.
  Lanes<T> grad_cross_entropy(int64_t block, const Picked& picked, const int32_t* code,
                              const Lanes<T>& of_pixel) const {
    if (!a.grad_ce) return Lanes<T>(0);
    Lanes<T> g = Lanes<T>(T(gradient.ce));
    if (a.ce_reduction == Reduction::kNone) {
      g = picked.read(static_cast<const T*>(a.grad_ce) + image * a.pixels + block);
    }
    if (smoothing.on) return times(of_pixel, g);
    return times(of_pixel * class_weight(code, static_cast<const T*>(a.weight)), g);
  }

  // Gradient that the overlap gives to the probability of a class.
  Lanes<T> grad_overlap(const Labels& labels, int64_t c, const Lanes<T>& p) const {
    const Lanes<T> slope = overlap_pixel_slope(
        code_is(labels.code, int32_t(c), T()), Lanes<T>(T(gradient.overlap[c * 2])),
        Lanes<T>(T(gradient.overlap[c * 2 + 1])), a.overlap.squared, p);
    return times(labels.of_pixel, slope);
  }

  // A pixel of weight 0 gets nothing from the overlap, even where its logit is NaN.
  template <bool kMap>
  Lanes<T> counted(const Labels* labels, const Lanes<T>& grad) const {
    if (kMap || gradient.row || !labels) return grad;
    return select(labels->of_pixel == Lanes<T>(0), Lanes<T>(0), grad);
  }

  // Slope of the pixel's loss with respect to logit c, from p_c and its complement 1 - p_c.
  Lanes<T> smoothed_slope(const int32_t* code, int32_t c, const Lanes<T>& p,
                          const Lanes<T>& complement) const {
    const Lanes<T> own = smoothing.own(code);
    return smoothed_cross_entropy_slope(smoothing.factor(code, c, own),
                                        smoothing.other_factors(code, c, own), p, complement);
  }

  // The gradient of sixteen pixels. kDense: a gradient comes through the probabilities, the soft
  // size or the overlap; kMap: one comes through the probabilities. `labels` is null where they are
  // left out.
  template <bool kDense, bool kMap, class Pixels>
  void binary(int64_t block, const Pixels& pixels, const Labels* labels) const {
    const Logistic<Lanes<T>> l = logistic(pixels.read(logits(0, block)));
    Lanes<T> grad = Lanes<T>(0);
    if (kDense) {
      Lanes<T> grad_p = grad_probability<kMap>(0, block, pixels);
      if (labels && gradient.overlap) {
        grad_p = grad_p + grad_overlap(*labels, 1, sigmoid(l)) -
                 grad_overlap(*labels, 0, sigmoid_complement(l));
      }
      grad = counted<kMap>(labels, sigmoid_slope(l) * grad_p);
    }
    if (labels) {
      const int32_t* const code = labels->code;
      const Lanes<T> slope = smoothing.on
                                 ? smoothed_slope(code, 1, sigmoid(l), sigmoid_complement(l))
                                 : binary_cross_entropy_slope(l, code_is(code, 1, T()));
      grad = grad + times(labels->grad_ce, slope);
    }
    pixels.write(grad_logits(0, block), grad);
  }

  template <bool kDense, bool kMap, class Pixels>
  void multiclass(int64_t block, const Pixels& pixels, const Labels* labels) const {
    const auto s = softmax(logits(0, block), a.pixels, a.classes, pixels, exponentials);
    Lanes<T> dot = Lanes<T>(0);
    if (kDense) {
      Lanes<T> top_grad = Lanes<T>(0);
      for (int64_t c = 0; c < a.classes; ++c) {
        Lanes<T> grad_p = grad_probability<kMap>(c, block, pixels);
        if (labels && gradient.overlap) {
          grad_p = grad_p + grad_overlap(*labels, c, load(exponentials + c * kLanes) * s.scale);
        }
        store(relative + c * kLanes, grad_p);
        top_grad = select(s.is_top(c), grad_p, top_grad);
      }
      for (int64_t c = 0; c < a.classes; ++c) {
        const Lanes<T> r = load(relative + c * kLanes) - top_grad;
        store(relative + c * kLanes, r);
        dot = dot + s.without_top(c, load(exponentials + c * kLanes)) * r;
      }
      dot = dot * s.scale;
    }
    for (int64_t c = 0; c < a.classes; ++c) {
      const Lanes<T> e = load(exponentials + c * kLanes);
      Lanes<T> grad = Lanes<T>(0);
      if (kDense) {
        grad = softmax_pullback(e * s.scale, load(relative + c * kLanes), dot);
        grad = counted<kMap>(labels, grad);
      }
      if (labels) {
        const int32_t* const code = labels->code;
        const Lanes<T> rest = select(s.is_top(c), s.others, Lanes<T>(1) + s.others - e);
        const Lanes<T> slope =
            smoothing.on
                ? smoothed_slope(code, int32_t(c), e * s.scale, rest * s.scale)
                : softmax_cross_entropy_slope(code_is(code, int32_t(c), T()), e, rest, s.scale);
        grad = grad + times(labels->grad_ce, slope);
      }
      pixels.write(grad_logits(c, block), grad);
    }
  }

  template <bool kDense, bool kMap, class Pixels>
  void pixels_gradient(int64_t block, const Pixels& pixels, const Labels& labels) const {
    if (a.classes == 1) return binary<kDense, kMap>(block, pixels, &labels);
    multiclass<kDense, kMap>(block, pixels, &labels);
  }

  template <bool kDense, bool kMap>
  void run(int64_t begin, int64_t end) const {
    Labelled labelled;
    for (int64_t block = begin; block < end; block += kBlock) {
      const int count = int(end - block < kBlock ? end - block : kBlock);
      if (!kDense) {
        for (int64_t c = 0; c < a.classes; ++c) {
          std::memset(static_cast<void*>(grad_logits(c, block)), 0, count * sizeof(In));
        }
      } else if (a.classes == 1) {
        for_runs(count, [&](const Run& run) __attribute__((always_inline)) {
          binary<kDense, kMap>(block, run, nullptr);
        });
      } else {
        for_runs(count, [&](const Run& run) { multiclass<kDense, kMap>(block, run, nullptr); });
      }
      if (!a.grad_ce && !gradient.overlap) continue;
      collect(a, image, block, count, &labelled);
      for (int i = 0; i < labelled.n; i += kLanes) {
        const Picked picked = {labelled.at + i, labelled.n - i < kLanes ? labelled.n - i : kLanes};
        const int32_t* const code = labelled.code + i;
        const Lanes<T> of_pixel = label_weight(code, picked, pixel_weights(block));
        const Labels labels = {code, of_pixel, grad_cross_entropy(block, picked, code, of_pixel)};
        if (gradient.overlap) {
          pixels_gradient<true, kMap>(block, picked, labels);
        } else {
          pixels_gradient<kDense, kMap>(block, picked, labels);
        }
      }
    }
  }
};

} // namespace

void segmentation_head_backward(const SegmentationHeadBackward& a, int64_t image, int64_t chunk,
                                const cpu::ImageGradient& gradient, void* scratch) {
  const int64_t begin = chunk * cpu::kChunk;
  const int64_t end = begin + cpu::kChunk < a.pixels ? begin + cpu::kChunk : a.pixels;
  dispatch(a.dtype, [&](auto in) {
    typedef decltype(in) In;
    typedef Accumulation<In> T;
    T* const exponentials = static_cast<T*>(scratch);
    const Backward<In> backward{
        a, image, gradient, exponentials, exponentials + a.classes * kLanes, Smoothing<T>(a)};
    if (a.grad_probabilities) {
      backward.template run<true, true>(begin, end);
    } else if (gradient.row) {
      backward.template run<true, false>(begin, end);
    } else {
      backward.template run<false, false>(begin, end);
    }
  });
}

} // namespace ACCL_ISA
} // namespace accl
