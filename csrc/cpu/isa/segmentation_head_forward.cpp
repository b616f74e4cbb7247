// Probabilities, soft size, cross-entropy and overlap of one chunk of an image. A block of logits
// is read from memory once; its few labelled pixels are picked out of the cache afterwards.
#include "../../math/logistic.h"
#include "../../math/overlap.h"
#include "dispatch.h"
#include "labels.h"
#include "segmentation_head.h"

namespace accl {
namespace ACCL_ISA {
namespace {

template <class In>
struct Forward {
  typedef Accumulation<In> T;

  const SegmentationHeadForward& a;
  const int64_t image;
  T* const exponentials; // [C, 16]
  Lanes<T>* const overlap; // [K, 3]: hit, predicted, labelled of the block; null: none
  Sum* const overlap_sums; // [K, 3] of the chunk
  const Smoothing<T> smoothing;

  int64_t offset(int64_t c, int64_t block) const {
    return (image * a.classes + c) * a.pixels + block;
  }
  const In* logits(int64_t c, int64_t block) const {
    return static_cast<const In*>(a.logits) + offset(c, block);
  }
  In* probabilities(int64_t c, int64_t block) const {
    return static_cast<In*>(a.probabilities) + offset(c, block);
  }

  const T* pixel_weights(int64_t block) const {
    if (!a.pixel_weight) return nullptr;
    return static_cast<const T*>(a.pixel_weight) + image * a.pixels + block;
  }

  // Each adds the block's probabilities, lane by lane, to the soft size.
  template <bool kStore>
  Lanes<T> dense_binary(int64_t block, int count) const {
    const In* const z = logits(0, block);
    In* const to = kStore ? probabilities(0, block) : nullptr;
    Lanes<T> size = Lanes<T>(0);
    for_runs(count, [&](const Run& run) __attribute__((always_inline)) {
      const Lanes<T> p = sigmoid(logistic(run.read(z, -__builtin_inff())));
      size = size + p;
      if (kStore) run.write(to, p);
    });
    return size;
  }

  void dense_multiclass(int64_t block, int count, Lanes<T>* size) const {
    for_runs(count, [&](const Run& run) {
      const auto s = softmax(logits(0, block), a.pixels, a.classes, run, exponentials);
      for (int64_t c = 0; c < a.classes; ++c) {
        const Lanes<T> p = load(exponentials + c * kLanes) * s.scale;
        size[c] = size[c] + first(p, run.n);
        if (a.probabilities) run.write(probabilities(c, block), p);
      }
    });
  }

  // The next two return the cross-entropy, with smoothing times the weights of the classes, and add
  // to the overlap. of_pixel: weights of the pixels.
  Lanes<T> labelled_binary(int64_t block, const Picked& picked, const int32_t* code,
                           const Lanes<T>& of_pixel) const {
    const Logistic<Lanes<T>> l = logistic(picked.read(logits(0, block)));
    if (overlap) {
      add_overlap(0, code, of_pixel, sigmoid_complement(l));
      add_overlap(1, code, of_pixel, sigmoid(l));
    }
    if (!a.ce) return Lanes<T>(0);
    if (!smoothing.on) return binary_cross_entropy(l, code_is(code, 1, T()));
    const Lanes<T> own = smoothing.own(code);
    return smoothed_binary_cross_entropy(l, smoothing.factor(code, 0, own),
                                         smoothing.factor(code, 1, own));
  }

  Lanes<T> labelled_multiclass(int64_t block, const Picked& picked, const int32_t* code,
                               const Lanes<T>& of_pixel) const {
    const auto s = softmax(logits(0, block), a.pixels, a.classes, picked, exponentials);
    for (int64_t c = 0; overlap && c < a.classes; ++c) {
      add_overlap(int32_t(c), code, of_pixel, load(exponentials + c * kLanes) * s.scale);
    }
    if (!a.ce) return Lanes<T>(0);
    if (!smoothing.on) {
      In label_logit[kLanes] = {};
      for (int i = 0; i < picked.n; ++i) {
        label_logit[i] = logits(code[i] < 0 ? 0 : code[i], block)[picked.at[i]];
      }
      return softmax_cross_entropy(load(label_logit), s.top, s.others);
    }
    const Lanes<T> own = smoothing.own(code);
    Lanes<T> loss = times(smoothing.all_factors(own), log1p_(s.others));
    for (int64_t c = 0; c < a.classes; ++c) {
      loss = loss + smoothed_softmax_term(smoothing.factor(code, int32_t(c), own),
                                          picked.read(logits(c, block)), s.top);
    }
    return loss;
  }

  void add_overlap(int32_t c, const int32_t* code, const Lanes<T>& of_pixel,
                   const Lanes<T>& p) const {
    const Mask<T> is_label = code_is(code, c, T());
    Lanes<T>* const of = overlap + c * 3;
    of[0] = of[0] + select(is_label, times(of_pixel, p), Lanes<T>(0));
    of[1] = of[1] + times(of_pixel, overlap_predicted(a.overlap.squared, p));
    of[2] = of[2] + select(is_label, of_pixel, Lanes<T>(0));
  }

  // The first n lanes of x, and 0 in the others.
  static Lanes<T> first(const Lanes<T>& x, int n) {
    if (n == kLanes) return x;
    T values[kLanes];
    store(values, x);
    return load_some(values, n);
  }

  int64_t run(int64_t begin, int64_t end, double* chunk_sums, Lanes<T>* size) const {
    const bool dense = a.probabilities || a.soft_size;
    T* const ce_map = a.ce && a.ce_reduction == Reduction::kNone
                          ? static_cast<T*>(a.ce) + image * a.pixels
                          : nullptr;
    int64_t invalid = -1;
    Labelled labelled;
    const int64_t overlap_count = overlap ? overlap_labels(a.classes) * 3 : 0;
    for (int64_t c = 0; c < a.classes; ++c) chunk_sums[c] = 0;
    for (int64_t k = 0; k < overlap_count; ++k) overlap_sums[k] = Sum();
    Sum size_sum, ce_sum, weight_sum;
    for (int64_t block = begin; block < end; block += kBlock) {
      const int count = int(end - block < kBlock ? end - block : kBlock);
      // Short sums in the accumulation type, long ones in double.
      if (dense && a.classes == 1) {
        size_sum.add(a.probabilities ? dense_binary<true>(block, count)
                                     : dense_binary<false>(block, count));
      } else if (dense) {
        for (int64_t c = 0; c < a.classes; ++c) size[c] = Lanes<T>(0);
        dense_multiclass(block, count, size);
        for (int64_t c = 0; c < a.classes; ++c) {
          Sum class_sum;
          class_sum.add(size[c]);
          chunk_sums[c] += class_sum.total();
        }
      }
      if (!a.labels) continue;
      if (ce_map) std::memset(ce_map + block, 0, count * sizeof(T));
      collect(a, image, block, count, &labelled);
      if (invalid < 0 && labelled.first_invalid >= 0) invalid = block + labelled.first_invalid;
      const T* const weights = pixel_weights(block);
      Lanes<T> ce = Lanes<T>(0), weight = Lanes<T>(0);
      for (int64_t k = 0; k < overlap_count; ++k) overlap[k] = Lanes<T>(0);
      for (int i = 0; i < labelled.n; i += kLanes) {
        const int n = labelled.n - i < kLanes ? labelled.n - i : kLanes;
        const int32_t* const code = labelled.code + i;
        const Picked picked = {labelled.at + i, n};
        const Lanes<T> of_pixel = label_weight(code, picked, weights);
        const Lanes<T> w = of_pixel * class_weight(code, static_cast<const T*>(a.weight));
        const Lanes<T> loss =
            times(smoothing.on ? of_pixel : w,
                  a.classes == 1 ? labelled_binary(block, picked, code, of_pixel)
                                 : labelled_multiclass(block, picked, code, of_pixel));
        ce = ce + loss;
        weight = weight + w;
        if (ce_map) picked.write(ce_map + block, loss);
      }
      if (labelled.n == 0) continue;
      ce_sum.add(ce), weight_sum.add(weight);
      for (int64_t k = 0; k < overlap_count; ++k) overlap_sums[k].add(overlap[k]);
    }
    if (a.classes == 1) chunk_sums[0] = size_sum.total();
    chunk_sums[a.classes] = ce_sum.total();
    chunk_sums[a.classes + 1] = weight_sum.total();
    for (int64_t k = 0; k < overlap_count; ++k) {
      chunk_sums[a.classes + 2 + k] = overlap_sums[k].total();
    }
    return invalid;
  }
};

} // namespace

int64_t segmentation_head_forward(const SegmentationHeadForward& a, int64_t image, int64_t chunk,
                                  double* chunk_sums, void* scratch) {
  const int64_t begin = chunk * cpu::kChunk;
  const int64_t end = begin + cpu::kChunk < a.pixels ? begin + cpu::kChunk : a.pixels;
  return dispatch(a.dtype, [&](auto in) {
    typedef decltype(in) In;
    typedef Accumulation<In> T;
    T* const exponentials = static_cast<T*>(scratch);
    Lanes<T>* const size = reinterpret_cast<Lanes<T>*>(exponentials + a.classes * kLanes);
    Lanes<T>* const overlap = a.overlap_sums ? size + a.classes : nullptr;
    Sum* const overlap_sums =
        reinterpret_cast<Sum*>(size + a.classes + overlap_labels(a.classes) * 3);
    const Forward<In> forward{a, image, exponentials, overlap, overlap_sums, Smoothing<T>(a)};
    return forward.run(begin, end, chunk_sums, size);
  });
}

} // namespace ACCL_ISA
} // namespace accl
