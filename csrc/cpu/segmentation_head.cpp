// segmentation_head and its parts on CPU: computes the chunks in
// parallel, then adds their sums in order.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <vector>

#include "../math/size.h"
#include "overlap.h"
#include "parallel.h"

namespace accl {
namespace cpu {
namespace {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Scratch of one thread, aligned for vectors of any instruction set.
std::unique_ptr<void, Free> make_scratch(int64_t classes) {
  void* const memory = std::aligned_alloc(kVectorBytes, segmentation_head_scratch_bytes(classes));
  TORCH_CHECK(memory != nullptr, "accl_ext: no memory for ", classes, " classes");
  return std::unique_ptr<void, Free>(memory);
}

template <class T>
Bounds<T> bounds_of(const SegmentationHeadArguments& a, int64_t image, int64_t c) {
  const T* const at =
      static_cast<const T*>(a.bounds) + image * a.bounds_stride[0] + c * a.bounds_stride[1];
  return {at[0], at[a.bounds_stride[2]]};
}

// Adds the sums of an image's chunks: [C] soft sizes, cross-entropy, weight, overlap.
void add_chunks(const double* chunk_sums, int64_t chunk_count, int64_t width, double* sums) {
  for (int64_t k = 0; k < width; ++k) sums[k] = 0;
  for (int64_t chunk = 0; chunk < chunk_count; ++chunk) {
    for (int64_t k = 0; k < width; ++k) sums[k] += chunk_sums[chunk * width + k];
  }
}

template <class T>
void finish_cross_entropy(const SegmentationHeadForward& a, const double* sums, int64_t width) {
  double batch_weight = 0;
  int64_t labelled_images = 0;
  for (int64_t image = 0; image < a.images; ++image) {
    const double weight = sums[image * width + a.classes + 1];
    batch_weight += weight;
    labelled_images += weight != 0;
  }
  double loss = 0;
  for (int64_t image = 0; image < a.images; ++image) {
    const double* const of_image = sums + image * width + a.classes;
    const double scale =
        cross_entropy_scale(a.ce_reduction, of_image[1], batch_weight, labelled_images);
    static_cast<T*>(a.ce_scale)[image] = T(scale);
    if (scale != 0) loss += of_image[0] * scale;
  }
  if (a.ce_reduction != Reduction::kNone) *static_cast<T*>(a.ce) = T(loss);
}

template <class T>
void finish_size(const SegmentationHeadForward& a, const double* sums, int64_t width) {
  int64_t bounded = 0;
  double total = 0;
  for (int64_t pair = 0; pair < a.images * a.classes; ++pair) {
    const int64_t image = pair / a.classes, c = pair % a.classes;
    const T size = T(sums[image * width + c]);
    static_cast<T*>(a.soft_size)[pair] = size;
    if (!a.bounds) continue;
    const Bounds<T> bounds = bounds_of<T>(a, image, c);
    bounded += is_bounded(bounds);
    const double excess = size_excess(size, bounds);
    if (a.size_reduction == Reduction::kNone) {
      const double scale = size_scale<double>(a.normalization, a.pixels, a.size_reduction, 1);
      static_cast<T*>(a.penalty)[pair] = T(excess * excess * scale);
    }
    total += excess * excess;
  }
  if (!a.bounds) {
    if (a.penalty) *static_cast<T*>(a.penalty) = *static_cast<T*>(a.penalty_scale) = T(0);
    return;
  }
  const double scale = size_scale<double>(a.normalization, a.pixels, a.size_reduction, bounded);
  *static_cast<T*>(a.penalty_scale) = T(scale);
  if (a.size_reduction != Reduction::kNone) *static_cast<T*>(a.penalty) = T(total * scale);
}

template <class T>
void finish_overlap(const SegmentationHeadForward& a, const double* sums, int64_t width) {
  const int64_t of_image = overlap_labels(a.classes) * 3;
  std::vector<double> of_pairs(a.images * of_image);
  for (int64_t image = 0; image < a.images; ++image) {
    const double* const from = sums + image * width + a.classes + 2;
    for (int64_t k = 0; k < of_image; ++k) {
      of_pairs[image * of_image + k] = from[k];
      static_cast<T*>(a.overlap_sums)[image * of_image + k] = T(from[k]);
    }
  }
  OverlapPairs<T, double>(a, of_pairs.data()).write_loss(static_cast<T*>(a.overlap_loss));
}

template <class T>
void fill_overlap_gradient(const SegmentationHeadBackward& a, double* gradient) {
  OverlapPairs<T, T>(a, static_cast<const T*>(a.overlap_sums))
      .write_gradient(static_cast<const T*>(a.grad_overlap),
                      static_cast<const T*>(a.grad_overlap_sums), gradient);
}

// Gradient of each soft size: the incoming one plus that of the penalty.
template <class T>
void fill_row_gradient(const SegmentationHeadBackward& a, double* row) {
  for (int64_t pair = 0; pair < a.images * a.classes; ++pair) {
    row[pair] = a.grad_soft_size ? static_cast<const T*>(a.grad_soft_size)[pair] : T(0);
    if (!a.grad_penalty) continue;
    const T excess = size_excess(static_cast<const T*>(a.soft_size)[pair],
                                 bounds_of<T>(a, pair / a.classes, pair % a.classes));
    const int64_t at = a.size_reduction == Reduction::kNone ? pair : 0;
    row[pair] += size_slope<double>(excess, *static_cast<const T*>(a.penalty_scale),
                                    static_cast<const T*>(a.grad_penalty)[at]);
  }
}

} // namespace

int64_t segmentation_head_forward(const SegmentationHeadForward& a) {
  const Kernels& isa = kernels();
  const int64_t chunk_count = chunks(a.pixels);
  const int64_t width = segmentation_head_sums(a);
  const std::unique_ptr<double[]> chunk_sums(new double[a.images * chunk_count * width]);
  const int64_t none = a.images * a.pixels;
  std::atomic<int64_t> invalid(none);
  for_units(a.images * chunk_count, [&](int64_t begin, int64_t end) {
    const auto scratch = make_scratch(a.classes);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t image = unit / chunk_count;
      const int64_t at = isa.segmentation_head_forward(
          a, image, unit % chunk_count, chunk_sums.get() + unit * width, scratch.get());
      if (at < 0) continue;
      int64_t seen = invalid.load();
      const int64_t here = image * a.pixels + at;
      while (here < seen && !invalid.compare_exchange_weak(seen, here)) {
      }
    }
  });
  if (invalid.load() < none) return invalid.load();

  std::vector<double> sums(a.images * width);
  for (int64_t image = 0; image < a.images; ++image) {
    add_chunks(chunk_sums.get() + image * chunk_count * width, chunk_count, width,
               sums.data() + image * width);
  }
  const bool wide = a.dtype == DType::kFloat64;
  if (a.ce)
    (wide ? finish_cross_entropy<double> : finish_cross_entropy<float>)(a, sums.data(), width);
  if (a.soft_size) (wide ? finish_size<double> : finish_size<float>)(a, sums.data(), width);
  if (a.overlap_sums)
    (wide ? finish_overlap<double> : finish_overlap<float>)(a, sums.data(), width);
  return -1;
}

void segmentation_head_backward(const SegmentationHeadBackward& a) {
  const Kernels& isa = kernels();
  const bool wide = a.dtype == DType::kFloat64;
  std::vector<double> row;
  if (a.grad_soft_size || a.grad_penalty) {
    row.resize(a.images * a.classes);
    (wide ? fill_row_gradient<double> : fill_row_gradient<float>)(a, row.data());
  }
  const int64_t labels = overlap_labels(a.classes);
  std::vector<double> overlap;
  if (a.grad_overlap || a.grad_overlap_sums) {
    overlap.resize(a.images * labels * 2);
    (wide ? fill_overlap_gradient<double> : fill_overlap_gradient<float>)(a, overlap.data());
  }
  const bool scalar_ce = a.grad_ce && a.ce_reduction != Reduction::kNone;
  const auto ce_gradient = [&](int64_t image) {
    if (!scalar_ce) return 0.0;
    if (wide) {
      return static_cast<const double*>(a.ce_scale)[image] * *static_cast<const double*>(a.grad_ce);
    }
    return double(static_cast<const float*>(a.ce_scale)[image] *
                  *static_cast<const float*>(a.grad_ce));
  };
  const int64_t chunk_count = chunks(a.pixels);
  for_units(a.images * chunk_count, [&](int64_t begin, int64_t end) {
    const auto scratch = make_scratch(a.classes);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t image = unit / chunk_count;
      const ImageGradient gradient = {
          row.empty() ? nullptr : row.data() + image * a.classes, ce_gradient(image),
          overlap.empty() ? nullptr : overlap.data() + image * labels * 2};
      isa.segmentation_head_backward(a, image, unit % chunk_count, gradient, scratch.get());
    }
  });
}

} // namespace cpu
} // namespace accl
