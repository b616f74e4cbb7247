// The gated CRF loss on CPU: makes a table of the window, computes the tiles in parallel, then adds
// their sums in order.
#include "gated_crf_loss.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <vector>

#include "../math/gated_crf_loss.h"
#include "parallel.h"

namespace accl {
namespace cpu {
namespace {

// Pixels of a tile along each axis. A tile is narrow, so that what the windows of a row see stays
// in the nearest cache: with radius 5 and four classes, 11 rows of 74 columns and 6 channels are 20
// KB. It is large enough that copying its border costs little.
constexpr int64_t kLargestTile[3] = {4, 32, 64};
constexpr int64_t kVectorColumns = 16;

// Length of the parts when an axis is cut into equal parts of whole units, none above `largest`.
int64_t part_of(int64_t size, int64_t largest, int64_t unit) {
  const int64_t parts = (size + largest - 1) / largest;
  const int64_t part = (size + parts - 1) / parts;
  return (part + unit - 1) / unit * unit;
}

template <class T>
struct WindowTable {
  std::vector<WindowRun> runs;
  std::vector<T> flat;
  std::vector<std::vector<T>> exponents;
  std::vector<const void*> exponent;
  std::vector<T> factor, weight;
  Window window;

  WindowTable(const GatedCrfArguments& a, const GatedCrfTile& tile) {
    const bool alone = a.kernels == 1 && std::isfinite(a.kernel[0].sigma_image);
    for (int32_t m = 0; m < a.kernels; ++m) {
      const GatedCrfKernel& kernel = a.kernel[m];
      std::vector<T> exponents_of_one;
      const bool first = runs.empty();
      for_neighbours(tile, first, [&](const int64_t (&steps)[3]) {
        const double exponent = distance_exponent(steps, a.spacing, kernel.sigma_space);
        exponents_of_one.push_back(T(std::max(exponent, -1e30)));
      });
      add(kernel, std::move(exponents_of_one), alone);
    }
    for (const std::vector<T>& of_one : exponents) exponent.push_back(of_one.data());
    window.runs = runs.data();
    window.run_count = int64_t(runs.size());
    window.flat = flat.empty() ? nullptr : flat.data();
    window.gated = int32_t(exponents.size());
    window.exponent = exponent.data();
    window.factor = factor.data();
    window.weight = weight.data();
    window.scale = alone ? a.kernel[0].weight : 1;
  }
  WindowTable(const WindowTable&) = delete;

 private:
  void add(const GatedCrfKernel& kernel, std::vector<T>&& exponents_of_one, bool alone) {
    if (std::isfinite(kernel.sigma_image)) {
      const double largest = double(std::numeric_limits<T>::max());
      factor.push_back(T(-gaussian_factor(kernel.sigma_image, largest)));
      weight.push_back(T(alone ? 1 : kernel.weight));
      exponents.push_back(std::move(exponents_of_one));
      return;
    }
    flat.resize(exponents_of_one.size());
    for (size_t n = 0; n < flat.size(); ++n) {
      flat[n] += T(kernel.weight * std::exp2(double(exponents_of_one[n])));
    }
  }

  // Calls function(steps) for every neighbour of the window in order, and makes the table of runs
  // if makes_runs is set.
  template <class Function>
  void for_neighbours(const GatedCrfTile& tile, bool makes_runs, const Function& function) {
    const int64_t* const reach = tile.reach;
    int64_t seen = 0;
    for (int64_t z = -reach[0]; z <= reach[0]; ++z) {
      for (int64_t y = -reach[1]; y <= reach[1]; ++y) {
        bool fresh = true;
        for (int64_t x = -reach[2]; x <= reach[2]; ++x) {
          if (z == 0 && y == 0 && x == 0) { // the pixel itself is left out: a new run begins
            fresh = true;
            continue;
          }
          if (makes_runs && fresh) {
            runs.push_back({z * tile.pitch[0] + y * tile.pitch[1] + x, seen, 0});
          }
          if (makes_runs) ++runs.back().count;
          fresh = false;
          ++seen;
          const int64_t steps[3] = {z, y, x};
          function(steps);
        }
      }
    }
  }
};

struct Tiles {
  int64_t count[3]; // along each axis
  int64_t of_image() const { return count[0] * count[1] * count[2]; }
};

GatedCrfTile whole_tile(const GatedCrfArguments& a) {
  GatedCrfTile tile{};
  for (int axis = 0; axis < 3; ++axis) {
    tile.reach[axis] = std::min(a.radius, a.size[axis] - 1);
    tile.extent[axis] = part_of(a.size[axis], kLargestTile[axis], axis == 2 ? kVectorColumns : 1);
  }
  tile.pitch[1] = tile.extent[2] + 2 * tile.reach[2];
  tile.pitch[0] = tile.pitch[1] * (tile.extent[1] + 2 * tile.reach[1]);
  tile.padded = tile.pitch[0] * (tile.extent[0] + 2 * tile.reach[0]);
  return tile;
}

Tiles tiles_of(const GatedCrfArguments& a, const GatedCrfTile& tile) {
  Tiles tiles{};
  for (int axis = 0; axis < 3; ++axis) {
    tiles.count[axis] = (a.size[axis] + tile.extent[axis] - 1) / tile.extent[axis];
  }
  return tiles;
}

void place(const GatedCrfArguments& a, const Tiles& tiles, int64_t unit, GatedCrfTile* tile) {
  tile->image = unit / tiles.of_image();
  const int64_t n = unit % tiles.of_image();
  const int64_t at[3] = {n / (tiles.count[1] * tiles.count[2]), n / tiles.count[2] % tiles.count[1],
                         n % tiles.count[2]};
  for (int axis = 0; axis < 3; ++axis) {
    tile->begin[axis] = at[axis] * tile->extent[axis];
    tile->count[axis] = std::min(tile->extent[axis], a.size[axis] - tile->begin[axis]);
  }
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

// Calls function(tile, unit, scratch) for every tile of every image; one thread has a whole tile.
template <class T, class Function>
void for_tiles(const GatedCrfArguments& a, const Function& function) {
  GatedCrfTile whole = whole_tile(a);
  const WindowTable<T> table(a, whole);
  whole.window = table.window;
  const Tiles tiles = tiles_of(a, whole);
  const int64_t bytes = gated_crf_scratch(a, whole) * int64_t(sizeof(T));
  // A tile takes longer than waking a thread, so even two of them are shared out.
  at::parallel_for(0, a.images * tiles.of_image(), 1, [&](int64_t begin, int64_t end) {
    const int64_t aligned = (bytes + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
    const std::unique_ptr<void, Free> scratch(std::aligned_alloc(kVectorBytes, aligned));
    TORCH_CHECK(scratch, "accl_ext: no memory for a window of radius ", a.radius);
    GatedCrfTile tile = whole;
    for (int64_t unit = begin; unit < end; ++unit) {
      place(a, tiles, unit, &tile);
      function(tile, unit, scratch.get());
    }
  });
}

int64_t count_destinations(const GatedCrfForward& a) {
  if (!a.destination) return a.images * a.pixels;
  int64_t n = 0;
  for (int64_t i = 0; i < a.images * a.pixels; ++i) n += a.destination[i];
  return n;
}

template <class T>
void forward(const GatedCrfForward& a) {
  const Kernels& isa = kernels();
  const double factor =
      a.reduction == Reduction::kMean ? 1 / double(std::max<int64_t>(count_destinations(a), 1)) : 1;
  // A pixel receives as a destination and gives as a source, and both add to its gradient. Where
  // the two masks are one, both sums are equal, so one pass with twice the factor is enough.
  const bool alike = a.source == a.destination;
  std::vector<double> tile_sums(a.images * tiles_of(a, whole_tile(a)).of_image());
  for_tiles<T>(a, [&](GatedCrfTile& tile, int64_t unit, void* scratch) {
    tile.source = a.source;
    tile.destination = a.destination;
    tile.loss_map = a.reduction == Reduction::kNone ? a.loss : nullptr;
    tile.gradient = a.gradient;
    tile.gradient_factor = factor * tile.window.scale * (alike ? 2 : 1);
    tile.adds_gradient = false;
    tile_sums[unit] = isa.gated_crf_tile(a, tile, scratch);
    if (alike || !a.gradient) return;
    tile.source = a.destination;
    tile.destination = a.source;
    tile.loss_map = nullptr;
    tile.adds_gradient = true;
    isa.gated_crf_tile(a, tile, scratch);
  });
  if (a.reduction == Reduction::kNone) return;
  double loss = 0;
  for (const double sum : tile_sums) loss += sum;
  *static_cast<T*>(a.loss) = T(loss * factor);
}

template <class T>
void gather(const GatedCrfGather& a) {
  const Kernels& isa = kernels();
  for_tiles<T>(a, [&](GatedCrfTile& tile, int64_t, void* scratch) {
    tile.source = a.source;
    tile.destination = a.destination;
    tile.sums = a.sums;
    isa.gated_crf_tile(a, tile, scratch);
  });
}

} // namespace

void gated_crf_forward(const GatedCrfForward& a) {
  a.dtype == DType::kFloat64 ? forward<double>(a) : forward<float>(a);
}

void gated_crf_gather(const GatedCrfGather& a) {
  a.dtype == DType::kFloat64 ? gather<double>(a) : gather<float>(a);
}

} // namespace cpu
} // namespace accl
