// Gradient of the logits of one chunk of an image, in one pass, from whichever gradients came.
#include "../../math/logistic.h"
#include "../../math/softmax.h"
#include "dispatch.h"
#include "labels.h"

namespace accl {
namespace ACCL_ISA {
namespace {

template <class In>
struct Backward {
  typedef Accumulation<In> T;

  const PixelBackward& a;
  const int64_t image;
  const cpu::ImageGradient& gradient;
  T* const scratch; // [2, C, 16]: exponentials, gradients of the probabilities
  const bool dense; // a gradient comes through the probabilities or the soft size

  int64_t offset(int64_t c) const { return (image * a.classes + c) * a.pixels; }
  const In* logits(int64_t c) const { return static_cast<const In*>(a.logits) + offset(c); }
  In* grad_logits(int64_t c) const { return static_cast<In*>(a.grad_logits) + offset(c); }

  // Gradient of p: the map that came, plus the row's share through V.
  Lanes<T> grad_probability(int64_t c, int64_t at, int n) const {
    const Lanes<T> row = Lanes<T>(gradient.row ? T(gradient.row[c]) : T(0));
    if (!a.grad_probabilities) return row;
    return load_some(static_cast<const In*>(a.grad_probabilities) + offset(c) + at, n) + row;
  }

  // Gradient of each pixel's unweighted loss; only where labelled.
  Lanes<T> grad_cross_entropy(int64_t at, int n, const int32_t* code) const {
    Lanes<T> g = Lanes<T>(T(gradient.ce));
    if (a.ce_reduction == Reduction::kNone) {
      g = load_some(static_cast<const T*>(a.grad_ce) + image * a.pixels + at, n);
    }
    const Lanes<T> w = pixel_weight(code, static_cast<const T*>(a.weight));
    return select(w == Lanes<T>(0), Lanes<T>(0), w * g);
  }

  // Where a pixel is not labelled, its share is 0 by selection: the product could be NaN.
  static Lanes<T> where_labelled(const int32_t* code, const Lanes<T>& x) {
    return select(code_is(code, kIgnored, T()), Lanes<T>(0), x);
  }
  Lanes<T> where_weighted(const int32_t* code, const Lanes<T>& g, const Lanes<T>& x) const {
    return select(g == Lanes<T>(0), Lanes<T>(0), where_labelled(code, g * x));
  }

  void binary(int64_t at, int n, const int32_t* code) const {
    const Logistic<Lanes<T>> l = logistic(load_some(logits(0) + at, n));
    Lanes<T> grad = Lanes<T>(0);
    if (dense) grad = sigmoid_slope(l) * grad_probability(0, at, n);
    if (code) {
      const Lanes<T> slope = binary_cross_entropy_slope(l, code_is(code, 1, T()));
      grad = grad + where_weighted(code, grad_cross_entropy(at, n, code), slope);
    }
    store_some(grad_logits(0) + at, grad, n);
  }

  void multiclass(int64_t at, int n, const int32_t* code) const {
    T* const exponential = scratch;
    T* const grad_p = scratch + a.classes * kLanes;
    Lanes<T> top = load_some(logits(0) + at, n);
    Lanes<T> top_class = Lanes<T>(0);
    Lanes<T> top_grad = Lanes<T>(0);
    store(exponential, top);
    for (int64_t c = 0; c < a.classes; ++c) {
      const Lanes<T> z = load_some(logits(c) + at, n);
      store(exponential + c * kLanes, z);
      const Mask<T> above = z > top;
      top = select(above, z, top);
      top_class = select(above, Lanes<T>(T(c)), top_class);
      if (dense) {
        const Lanes<T> g = grad_probability(c, at, n);
        store(grad_p + c * kLanes, g);
        top_grad = c == 0 ? g : select(above, g, top_grad);
      }
    }
    Lanes<T> others = Lanes<T>(0), dot = Lanes<T>(0);
    for (int64_t c = 0; c < a.classes; ++c) {
      const Lanes<T> e = softmax_exponential(load(exponential + c * kLanes), top);
      store(exponential + c * kLanes, e);
      const Lanes<T> other = select(top_class == Lanes<T>(T(c)), e - e, e); // NaN stays NaN
      others = others + other;
      if (dense) {
        const Lanes<T> relative = load(grad_p + c * kLanes) - top_grad;
        store(grad_p + c * kLanes, relative);
        dot = dot + other * relative;
      }
    }
    const Lanes<T> scale = softmax_scale(others);
    dot = dot * scale;
    const Lanes<T> g = code ? grad_cross_entropy(at, n, code) : Lanes<T>(0);
    for (int64_t c = 0; c < a.classes; ++c) {
      const Lanes<T> e = load(exponential + c * kLanes);
      Lanes<T> grad = Lanes<T>(0);
      if (dense) grad = softmax_pullback(e * scale, load(grad_p + c * kLanes), dot);
      if (code) {
        const Mask<T> is_top = top_class == Lanes<T>(T(c));
        const Lanes<T> rest = select(is_top, others, Lanes<T>(1) + others - e);
        const Lanes<T> slope =
            softmax_cross_entropy_slope(code_is(code, int32_t(c), T()), e, rest, scale);
        grad = grad + where_weighted(code, g, slope);
      }
      store_some(grad_logits(c) + at, grad, n);
    }
  }

  void run(int64_t begin, int64_t end) const {
    LabelBlock labels;
    for (int64_t block = begin; block < end; block += kBlock) {
      const int count = int(end - block < kBlock ? end - block : kBlock);
      if (a.grad_ce) decode(a, image, block, count, &labels);
      for (int i = 0; i < count; i += kLanes) {
        const int n = count - i < kLanes ? count - i : kLanes;
        const int32_t* code = a.grad_ce && labels.labelled[i / kLanes] ? labels.code + i : nullptr;
        if (!dense && !code) {
          for (int64_t c = 0; c < a.classes; ++c) {
            store_some(grad_logits(c) + block + i, Lanes<T>(0), n);
          }
        } else if (a.classes == 1) {
          binary(block + i, n, code);
        } else {
          multiclass(block + i, n, code);
        }
      }
    }
  }
};

} // namespace

void pixel_backward(const PixelBackward& a, int64_t image, int64_t chunk,
                    const cpu::ImageGradient& gradient, void* scratch) {
  const int64_t begin = chunk * cpu::kChunk;
  const int64_t end = begin + cpu::kChunk < a.pixels ? begin + cpu::kChunk : a.pixels;
  dispatch(a.dtype, [&](auto in) {
    typedef decltype(in) In;
    typedef Accumulation<In> T;
    const Backward<In> backward{a, image, gradient, static_cast<T*>(scratch),
                                a.grad_probabilities || gradient.row};
    backward.run(begin, end);
  });
}

} // namespace ACCL_ISA
} // namespace accl
