// Probabilities, soft size and cross-entropy of one chunk of an image, in one read of the logits.
#include "../../math/logistic.h"
#include "../../math/softmax.h"
#include "dispatch.h"
#include "labels.h"

namespace accl {
namespace ACCL_ISA {
namespace {

template <class In>
struct Forward {
  typedef Accumulation<In> T;

  const PixelForward& a;
  const int64_t image;
  T* const scratch; // [C, 16]
  const bool dense; // every logit is read, not only those of labelled pixels

  const In* logits(int64_t c) const {
    return static_cast<const In*>(a.logits) + (image * a.classes + c) * a.pixels;
  }
  In* probabilities(int64_t c) const {
    return static_cast<In*>(a.probabilities) + (image * a.classes + c) * a.pixels;
  }

  // Each returns the sixteen losses, and adds to the sums of soft size.
  Lanes<T> binary(int64_t at, int n, const int32_t* code, Lanes<T>* size) const {
    const Logistic<Lanes<T>> l = logistic(load_some(logits(0) + at, n, -__builtin_inff()));
    if (dense) {
      const Lanes<T> p = sigmoid(l);
      size[0] = size[0] + p;
      if (a.probabilities) store_some(probabilities(0) + at, p, n);
    }
    return code ? binary_cross_entropy(l, code_is(code, 1, T())) : Lanes<T>(0);
  }

  Lanes<T> multiclass(int64_t at, int n, const int32_t* code, Lanes<T>* size) const {
    Lanes<T> top = load_some(logits(0) + at, n);
    Lanes<T> top_class = Lanes<T>(0);
    Lanes<T> label_logit = top;
    store(scratch, top);
    for (int64_t c = 1; c < a.classes; ++c) {
      const Lanes<T> z = load_some(logits(c) + at, n);
      store(scratch + c * kLanes, z);
      const Mask<T> above = z > top;
      top = select(above, z, top);
      top_class = select(above, Lanes<T>(T(c)), top_class);
      if (code) label_logit = select(code_is(code, int32_t(c), T()), z, label_logit);
    }
    Lanes<T> others = Lanes<T>(0);
    for (int64_t c = 0; c < a.classes; ++c) {
      const Lanes<T> e = softmax_exponential(load(scratch + c * kLanes), top);
      store(scratch + c * kLanes, e);
      others = others + select(top_class == Lanes<T>(T(c)), e - e, e);
    }
    if (dense) {
      const Lanes<T> scale = softmax_scale(others);
      for (int64_t c = 0; c < a.classes; ++c) {
        const Lanes<T> p = load(scratch + c * kLanes) * scale;
        size[c] = size[c] + zero_padding(p, n);
        if (a.probabilities) store_some(probabilities(c) + at, p, n);
      }
    }
    return code ? softmax_cross_entropy(label_logit, top, others) : Lanes<T>(0);
  }

  static Lanes<T> zero_padding(const Lanes<T>& x, int n) {
    if (n == kLanes) return x;
    T values[kLanes];
    store(values, x);
    for (int i = n; i < kLanes; ++i) values[i] = 0;
    return load(values);
  }

  int64_t run(int64_t begin, int64_t end, double* partial, Lanes<T>* size) const {
    T* const ce_map = a.ce_reduction == Reduction::kNone && a.ce
        ? static_cast<T*>(a.ce) + image * a.pixels
        : nullptr;
    int64_t invalid = -1;
    LabelBlock labels;
    for (int64_t c = 0; c < a.classes + 2; ++c) partial[c] = 0;
    Sum size_sum, ce_sum, weight_sum;
    for (int64_t block = begin; block < end; block += kBlock) {
      const int count = int(end - block < kBlock ? end - block : kBlock);
      if (a.labels) {
        decode(a, image, block, count, &labels);
        if (invalid < 0 && labels.first_invalid >= 0) invalid = block + labels.first_invalid;
      }
      for (int64_t c = 0; c < a.classes; ++c) size[c] = Lanes<T>(0);
      Lanes<T> ce = Lanes<T>(0), weight = Lanes<T>(0);
      for (int i = 0; i < count; i += kLanes) {
        const int n = count - i < kLanes ? count - i : kLanes;
        const int32_t* code = a.labels && labels.labelled[i / kLanes] ? labels.code + i : nullptr;
        Lanes<T> loss = Lanes<T>(0);
        if (dense || code) {
          loss = a.classes == 1 ? binary(block + i, n, code, size)
                                : multiclass(block + i, n, code, size);
        }
        if (code) {
          const Lanes<T> w = pixel_weight(code, static_cast<const T*>(a.weight));
          loss = select(w == Lanes<T>(0), Lanes<T>(0), loss * w);
          ce = ce + loss;
          weight = weight + w;
        }
        if (ce_map) store_some(ce_map + block + i, code ? loss : Lanes<T>(0), n);
      }
      // Short sums in the accumulation type, long ones in double.
      if (a.labels) ce_sum.add(ce), weight_sum.add(weight);
      if (dense && a.classes == 1) size_sum.add(size[0]);
      for (int64_t c = 0; dense && a.classes > 1 && c < a.classes; ++c) {
        Sum class_sum;
        class_sum.add(size[c]);
        partial[c] += class_sum.total();
      }
    }
    if (a.classes == 1) partial[0] = size_sum.total();
    partial[a.classes] = ce_sum.total();
    partial[a.classes + 1] = weight_sum.total();
    return invalid;
  }
};

} // namespace

int64_t pixel_forward(const PixelForward& a, int64_t image, int64_t chunk, double* partial,
                      void* scratch) {
  const int64_t begin = chunk * cpu::kChunk;
  const int64_t end = begin + cpu::kChunk < a.pixels ? begin + cpu::kChunk : a.pixels;
  return dispatch(a.dtype, [&](auto in) {
    typedef decltype(in) In;
    typedef Accumulation<In> T;
    const Forward<In> forward{a, image, static_cast<T*>(scratch), a.probabilities || a.soft_size};
    Lanes<T> binary_size;
    Lanes<T>* const size = a.classes == 1
        ? &binary_size
        : reinterpret_cast<Lanes<T>*>(static_cast<T*>(scratch) + a.classes * kLanes);
    return forward.run(begin, end, partial, size);
  });
}

} // namespace ACCL_ISA
} // namespace accl
