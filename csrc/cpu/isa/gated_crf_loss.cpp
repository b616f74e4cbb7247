// The gated CRF loss on one tile of an image. The tile and what its windows reach are first copied
// to scratch in the accumulation type, with 0 outside the image and where a pixel is no source.
// Such a neighbour adds k * 0, so the sums over the window need no test. Every pixel sums its own
// window in the order of the table, so that nothing depends on the tile, the batch or the number of
// threads.
#include "../../math/gated_crf_loss.h"

#include "dispatch.h"
#include "gated_crf_window.h"

namespace accl {
namespace ACCL_ISA {
namespace {

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
  // The weights of a window, if not all sums are computed at once. They stand first, so that no
  // vector of them touches two cache lines.
  T* const kept;
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
        kept(scratch),
        image(scratch + cpu::gated_crf_kept(a, t)),
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

  // Sums [first, first + kGatedCrfSums), or those that are left, of a vector of pixels.
  template <class Kernel>
  void add_sums(const Padded<T>& padded, const Kernel& kernel, int64_t first, int64_t at,
                int64_t lane) const {
    constexpr int kSums = cpu::kGatedCrfSums;
    const int group = sum_count() - first < kSums ? int(sum_count() - first) : kSums;
    const T* x[kSums];
    for (int c = 0; c < group; ++c) x[c] = summed(first + c);
    Vector<T> found[kSums] = {};
    window_sums(group, padded, kernel, x, at, found);
    for (int c = 0; c < group; ++c) store_vector(sums + (first + c) * kLanes + lane, found[c]);
  }

  // Up to sixteen pixels of a row; what is left in the other lanes counts nowhere.
  template <class Kernel>
  void sum_windows(const Padded<T>& padded, int64_t at, int64_t column, int n) const {
    constexpr int kSums = cpu::kGatedCrfSums;
    for (int lane = 0; lane < n; lane += Lanes<T>::kPerPart) {
      const Kernel kernel(padded, column + lane);
      if (!kKeepsWeights || sum_count() <= kSums) {
        for (int64_t first = 0; first < sum_count(); first += kSums) {
          add_sums(padded, kernel, first, at + lane, lane);
        }
        continue;
      }
      add_sums(padded, KeepingKernel<T, Kernel>{kernel, kept}, 0, at + lane, lane);
      for (int64_t first = kSums; first < sum_count(); first += kSums) {
        add_sums(padded, KeptKernel<T>{kept}, first, at + lane, lane);
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
