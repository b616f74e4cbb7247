// The gated CRF loss on one tile of an image. The tile and what its windows reach are first copied
// to scratch in the accumulation type, with 0 outside the image and where a pixel is no source.
// Such a neighbour adds k * 0, so the sums over the window need no test. Every pixel sums its own
// window in the order of the table, so that nothing depends on the tile, the batch or the number of
// threads.
#include "../../math/gated_crf_loss.h"

#include "../gated_crf_loss.h"
#include "dispatch.h"
#include "exp2.h"

namespace accl {
namespace ACCL_ISA {
namespace {

// The most sums that are kept in registers at once, beside the numbers of the kernel itself.
constexpr int kMaxSums = 5;

// A vector of x. The compiler drops x - 0, which is x for every x. It could not drop 0 + x, because
// 0 + -0 is 0.
template <class T>
ACCL_HD Vector<T> broadcast(T x) {
  return x - Vector<T>{};
}

template <class T>
struct Padded {
  const cpu::Window& window;
  const T* image; // [channels] of the padded tile
  const T* marks; // 1 for a source
  int64_t stride; // elements of a channel
  int64_t channels; // of the image
  const T* center; // [channels] of the row, without the zeros: a destination may be no source
  int64_t row; // elements of a row's channel
};

// The structs named ...Kernel compute k_ij. Their at(n, at) takes entry n of the window's table,
// and `at`, the neighbour's index in the padded tile. This one has only kernels that do not look at
// the image.
template <class T>
struct FlatKernel {
  const T* const flat;
  ACCL_INLINE FlatKernel(const Padded<T>& p, int64_t)
      : flat(static_cast<const T*>(p.window.flat)) {}
  ACCL_INLINE Vector<T> at(int64_t n, int64_t) const { return broadcast(flat[n]); }
};

template <class T>
ACCL_HD Vector<T> squared_difference(const Padded<T>& p, int64_t column, int64_t at) {
  Vector<T> d = load_vector(p.center + column) - load_vector(p.image + at);
  Vector<T> squared = d * d;
  for (int64_t c = 1; c < p.channels; ++c) {
    d = load_vector(p.center + c * p.row + column) - load_vector(p.image + c * p.stride + at);
    squared = multiply_add(d, d, squared);
  }
  return squared;
}

// One kernel and one channel: the common case.
template <class T>
struct GreyKernel {
  const T* const image;
  const T* const exponent;
  const Vector<T> center;
  const T factor;
  ACCL_INLINE GreyKernel(const Padded<T>& p, int64_t column)
      : image(p.image),
        exponent(static_cast<const T*>(p.window.exponent[0])),
        center(load_vector(p.center + column)),
        factor(*static_cast<const T*>(p.window.factor)) {}
  ACCL_INLINE Vector<T> at(int64_t n, int64_t at) const {
    const Vector<T> d = center - load_vector(image + at);
    return exp2_of_negative<T>(multiply_add(d * d, broadcast(factor), broadcast(exponent[n])));
  }
};

template <class T>
struct AnyKernel {
  const Padded<T>& p;
  const int64_t column;
  ACCL_INLINE AnyKernel(const Padded<T>& padded, int64_t x) : p(padded), column(x) {}
  ACCL_INLINE Vector<T> at(int64_t n, int64_t at) const {
    const cpu::Window& w = p.window;
    Vector<T> k = {};
    if (w.flat) k = k + static_cast<const T*>(w.flat)[n];
    if (w.gated == 0) return k;
    const Vector<T> squared = squared_difference(p, column, at);
    for (int32_t m = 0; m < w.gated; ++m) {
      const T exponent = static_cast<const T*>(w.exponent[m])[n];
      const Vector<T> e = exp2_of_negative<T>(multiply_add(
          squared, broadcast(static_cast<const T*>(w.factor)[m]), broadcast(exponent)));
      k = multiply_add(e, broadcast(static_cast<const T*>(w.weight)[m]), k);
    }
    return k;
  }
};

// For pixels that are not finite. A neighbour that is no source is left out by selection, because
// NaN * 0 is NaN.
template <class T>
struct CarefulKernel : AnyKernel<T> {
  using AnyKernel<T>::AnyKernel;
  ACCL_INLINE Vector<T> at(int64_t n, int64_t at) const {
    const Vector<T> k = AnyKernel<T>::at(n, at);
    return load_vector(this->p.marks + at) > Vector<T>{} ? k : Vector<T>{};
  }
};

// sums[c] = sum over the window of k_ij x_jc, for a vector of pixels.
template <class T, class Kernel, int kSums>
void window_sums(const Padded<T>& padded, const T* const* x, int64_t at, int64_t column,
                 Vector<T>* sums) {
  const Kernel kernel(padded, column);
  Vector<T> total[kSums] = {};
  for (int64_t r = 0; r < padded.window.run_count; ++r) {
    const cpu::WindowRun run = padded.window.runs[r];
    Vector<T> part[kSums] = {}; // short sums first: long ones lose digits
    for (int64_t n = 0; n < run.count; ++n) {
      const int64_t neighbour = at + run.delta + n;
      const Vector<T> k = kernel.at(run.first + n, neighbour);
      for (int c = 0; c < kSums; ++c) {
        part[c] = multiply_add(k, load_vector(x[c] + neighbour), part[c]);
      }
    }
    for (int c = 0; c < kSums; ++c) total[c] = total[c] + part[c];
  }
  for (int c = 0; c < kSums; ++c) sums[c] = total[c];
}

template <class T, class Kernel>
void window_sums(int count, const Padded<T>& padded, const T* const* x, int64_t at, int64_t column,
                 Vector<T>* sums) {
  switch (count) {
    case 1: return window_sums<T, Kernel, 1>(padded, x, at, column, sums);
    case 2: return window_sums<T, Kernel, 2>(padded, x, at, column, sums);
    case 3: return window_sums<T, Kernel, 3>(padded, x, at, column, sums);
    case 4: return window_sums<T, Kernel, 4>(padded, x, at, column, sums);
    default: return window_sums<T, Kernel, kMaxSums>(padded, x, at, column, sums);
  }
}

// Copies n elements of any dtype in the accumulation type, with 0 where `keep` is false.
template <class T>
void widen(DType dtype, const void* array, int64_t first, int64_t n, const bool* keep, T* to) {
  dispatch(dtype, [&](auto in) {
    typedef decltype(in) In;
    const In* const from = static_cast<const In*>(array) + first;
    for (int64_t i = 0; i < n; i += kLanes) {
      const int some = n - i < kLanes ? int(n - i) : kLanes;
      Accumulation<In> values[kLanes];
      store(values, load_some(from + i, some));
      if (some == kLanes) { // the compiler makes vectors of a loop whose count it knows
        for (int j = 0; j < kLanes; ++j) to[i + j] = T(values[j]);
      } else {
        for (int j = 0; j < some; ++j) to[i + j] = T(values[j]);
      }
    }
  });
  if (!keep) return;
  for (int64_t i = 0; i < n; ++i) to[i] = keep[i] ? to[i] : T(0);
}

// Replaces every NaN by the one that exp2_of_negative() returns as NaN.
template <class T>
void make_nan_plain(int64_t n, T* x) {
  for (int64_t i = 0; i < n; ++i) x[i] = x[i] == x[i] ? x[i] : T(__builtin_nanf(""));
}

template <class T>
ACCL_HD bool all_finite(const Lanes<T>& x) {
  const Lanes<T> zero = x - x;
  const Lanes<T> wanted = Lanes<T>(0);
  return std::memcmp(&zero, &wanted, sizeof(zero)) == 0;
}

template <class T>
struct Tile {
  const GatedCrfArguments& a;
  const cpu::GatedCrfTile& t;
  // Channels of the padded tile:
  T* const image; // [K]
  T* const values; // [C]
  T* const marks; // [1], 1 for a source and 0 elsewhere
  T* const complement; // [1], 1 - p of a single class
  // One row of the tile, without the zeros:
  T* const image_row; // [K]
  T* const value_row; // [C]
  T* const sums; // [C + 2, 16]

  Tile(const GatedCrfArguments& arguments, const cpu::GatedCrfTile& tile, T* scratch)
      : a(arguments),
        t(tile),
        image(scratch),
        values(image + a.channels * t.padded),
        marks(values + a.classes * t.padded),
        complement(marks + t.padded),
        image_row(complement + t.padded),
        value_row(image_row + a.channels * t.pitch[1]),
        sums(value_row + a.classes * t.pitch[1]) {}

  int64_t pixel(int64_t z, int64_t y, int64_t x) const {
    return (z * a.size[1] + y) * a.size[2] + x;
  }
  int64_t channel(int64_t count, int64_t c) const { return (t.image * count + c) * a.pixels; }

  // Fills row (z, y) of the padded tile from the image.
  void fill_row(int64_t z, int64_t y) const {
    const int64_t to = z * t.pitch[0] + y * t.pitch[1];
    for (int64_t c = 0; c < cpu::gated_crf_channels(a); ++c) {
      std::memset(image + c * t.padded + to, 0, t.pitch[1] * sizeof(T));
    }
    const int64_t in_z = t.begin[0] + z - t.reach[0], in_y = t.begin[1] + y - t.reach[1];
    if (in_z < 0 || in_z >= a.size[0] || in_y < 0 || in_y >= a.size[1]) return;
    const int64_t left = t.begin[2] - t.reach[2] > 0 ? t.begin[2] - t.reach[2] : 0;
    const int64_t last = t.begin[2] + t.count[2] + t.reach[2];
    const int64_t n = (last < a.size[2] ? last : a.size[2]) - left;
    const int64_t from = pixel(in_z, in_y, left);
    const int64_t at = to + left - (t.begin[2] - t.reach[2]);
    const bool* const keep = t.source ? t.source + t.image * a.pixels + from : nullptr;
    for (int64_t c = 0; c < a.channels; ++c) {
      widen(a.image_dtype, a.image, channel(a.channels, c) + from, n, keep,
            image + c * t.padded + at);
      make_nan_plain(n, image + c * t.padded + at);
    }
    for (int64_t c = 0; c < a.classes; ++c) {
      widen(a.dtype, a.values, channel(a.classes, c) + from, n, keep, values + c * t.padded + at);
    }
    for (int64_t i = 0; i < n; ++i) marks[at + i] = T(!keep || keep[i]);
    if (a.classes != 1 || t.sums) return;
    for (int64_t i = 0; i < n; ++i) complement[at + i] = marks[at + i] - values[at + i];
  }

  // The channels whose sums are wanted: the values; for the loss of several classes the marks
  // before them; for the loss of one class its complement after it.
  int64_t sum_count() const { return a.classes + (t.sums ? 0 : 1); }
  int64_t first_value() const { return t.sums || a.classes == 1 ? 0 : 1; }
  const T* summed(int64_t c) const {
    if (c < first_value()) return marks;
    c -= first_value();
    return c < a.classes ? values + c * t.padded : complement;
  }
  Lanes<T> sum(int64_t c) const { return load(sums + c * kLanes); }

  // Sixteen pixels of a row at a time.
  template <class Kernel>
  void sum_windows(const Padded<T>& padded, int64_t at, int64_t column, int n) const {
    const int64_t count = sum_count();
    for (int64_t first = 0; first < count; first += kMaxSums) {
      const int group = count - first < kMaxSums ? int(count - first) : kMaxSums;
      const T* x[kMaxSums];
      for (int c = 0; c < group; ++c) x[c] = summed(first + c);
      constexpr int kWidth = Lanes<T>::kPerPart;
      for (int i = 0; i < kLanes; i += kWidth) {
        Vector<T> of_vector[kMaxSums] = {};
        if (i < n) {
          window_sums<T, Kernel>(group, padded, x, at + i, column + i, of_vector);
        }
        for (int c = 0; c < group; ++c) {
          std::memcpy(sums + (first + c) * kLanes + i, &of_vector[c], sizeof(Vector<T>));
        }
      }
    }
  }

  // 1 for the destinations among n pixels, 0 in the other lanes.
  Lanes<T> destinations(int64_t pixel, int n) const {
    T flags[kLanes] = {};
    const bool* const receives =
        t.destination ? t.destination + t.image * a.pixels + pixel : nullptr;
    if (!receives && n == kLanes) return Lanes<T>(1);
    for (int i = 0; i < n; ++i) flags[i] = T(!receives || receives[i]);
    return load(flags);
  }

  // 1 for the pixels that have any neighbour, else 0.
  Lanes<T> neighbours(int64_t at) const {
    Lanes<T> count = Lanes<T>(0);
    for (int64_t r = 0; r < t.window.run_count; ++r) {
      const cpu::WindowRun& run = t.window.runs[r];
      for (int64_t n = 0; n < run.count; ++n) count = count + load(marks + at + run.delta + n);
    }
    return count;
  }

  Lanes<T> loss(int64_t column) const {
    if (a.classes == 1) return binary_disagreement(load(value_row + column), sum(0), sum(1));
    Lanes<T> loss = sum(0);
    for (int64_t c = 0; c < a.classes; ++c) {
      loss = loss - load(value_row + c * t.pitch[1] + column) * sum(1 + c);
    }
    return loss;
  }

  void write(void* array, int64_t c, int64_t pixel, const Lanes<T>& x, int n, bool adds) const {
    T* const to = static_cast<T*>(array) + channel(a.classes, c) + pixel;
    store_some(to, adds ? load_some(to, n) + x : x, n);
  }

  template <class Kernel>
  void run_block(const Padded<T>& padded, int64_t at, int64_t column, int64_t pixel, int n,
                 Sum* total) const {
    bool finite = true;
    for (int64_t c = 0; c < a.channels; ++c) {
      finite = finite && all_finite(load(image_row + c * t.pitch[1] + column));
    }
    for (int64_t c = 0; c < a.classes && !t.sums; ++c) {
      finite = finite && all_finite(load(value_row + c * t.pitch[1] + column));
    }
    Lanes<T> wanted = destinations(pixel, n);
    if (finite) {
      sum_windows<Kernel>(padded, at, column, n);
    } else {
      sum_windows<CarefulKernel<T>>(padded, at, column, n);
      wanted = select(neighbours(at) > Lanes<T>(0), wanted, Lanes<T>(0));
    }
    const Mask<T> counts = wanted > Lanes<T>(0);
    const Lanes<T> zero = Lanes<T>(0), scale = Lanes<T>(T(t.window.scale));
    if (t.sums) {
      for (int64_t c = 0; c < a.classes; ++c) {
        write(t.sums, c, pixel, select(counts, sum(c) * scale, zero), n, false);
      }
      return;
    }
    const Lanes<T> each = select(counts, loss(column) * scale, zero);
    total->add(each);
    if (t.loss_map) {
      store_some(static_cast<T*>(t.loss_map) + t.image * a.pixels + pixel, each, n);
    }
    if (!t.gradient) return;
    const Lanes<T> factor = Lanes<T>(T(t.gradient_factor));
    for (int64_t c = 0; c < a.classes; ++c) {
      const Lanes<T> slope =
          a.classes == 1 ? binary_disagreement_slope(sum(0), sum(1)) : -sum(1 + c);
      write(t.gradient, c, pixel, select(counts, slope * factor, zero), n, t.adds_gradient);
    }
  }

  template <class Kernel>
  double run() const {
    for (int64_t z = 0; z < t.count[0] + 2 * t.reach[0]; ++z) {
      for (int64_t y = 0; y < t.count[1] + 2 * t.reach[1]; ++y) fill_row(z, y);
    }
    const Padded<T> padded = {t.window, image, marks, t.padded, a.channels, image_row, t.pitch[1]};
    std::memset(image_row, 0, (a.channels + a.classes) * t.pitch[1] * sizeof(T));
    Sum total;
    for (int64_t z = 0; z < t.count[0]; ++z) {
      for (int64_t y = 0; y < t.count[1]; ++y) {
        const int64_t row = pixel(t.begin[0] + z, t.begin[1] + y, t.begin[2]);
        for (int64_t c = 0; c < a.channels; ++c) {
          widen(a.image_dtype, a.image, channel(a.channels, c) + row, t.count[2], nullptr,
                image_row + c * t.pitch[1]);
          make_nan_plain(t.count[2], image_row + c * t.pitch[1]);
        }
        for (int64_t c = 0; c < a.classes; ++c) {
          widen(a.dtype, a.values, channel(a.classes, c) + row, t.count[2], nullptr,
                value_row + c * t.pitch[1]);
        }
        const int64_t at =
            (z + t.reach[0]) * t.pitch[0] + (y + t.reach[1]) * t.pitch[1] + t.reach[2];
        for (int64_t x = 0; x < t.count[2]; x += kLanes) {
          const int n = t.count[2] - x < kLanes ? int(t.count[2] - x) : kLanes;
          run_block<Kernel>(padded, at + x, x, row + x, n, &total);
        }
      }
    }
    return total.total();
  }
};

template <class T>
double run_tile(const GatedCrfArguments& a, const cpu::GatedCrfTile& t, void* scratch) {
  const Tile<T> tile(a, t, static_cast<T*>(scratch));
  if (t.window.gated == 0) return tile.template run<FlatKernel<T>>();
  const bool one_kernel = t.window.gated == 1 && !t.window.flat;
  if (one_kernel && a.channels == 1) return tile.template run<GreyKernel<T>>();
  return tile.template run<AnyKernel<T>>();
}

} // namespace

double gated_crf_tile(const GatedCrfArguments& a, const cpu::GatedCrfTile& t, void* scratch) {
  return a.dtype == DType::kFloat64 ? run_tile<double>(a, t, scratch)
                                    : run_tile<float>(a, t, scratch);
}

} // namespace ACCL_ISA
} // namespace accl
