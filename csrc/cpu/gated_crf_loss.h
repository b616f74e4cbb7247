// What the CPU kernels of the gated CRF loss are told: the window as a table, and one tile of the
// image.
#pragma once

#include <cstdint>

#include "../kernels.h"

namespace accl {
namespace cpu {

// Neighbours that lie side by side in memory: `count` of them from `delta` elements away on; they
// are entries `first` and following of the table.
struct WindowRun {
  int64_t delta;
  int64_t first;
  int64_t count;
};

// The window around a pixel of a tile, without the pixel itself. Numbers of the accumulation type.
struct Window {
  const WindowRun* runs = nullptr;
  int64_t run_count = 0;
  // Sum of the kernels that do not look at the image, for each neighbour; null: none.
  const void* flat = nullptr;
  // The others: 2^(factor[m] |I_i - I_j|^2 + exponent[m][neighbour]) weight[m].
  int32_t gated = 0;
  const void* const* exponent = nullptr; // [gated]
  const void* factor = nullptr;          // [gated]
  const void* weight = nullptr;          // [gated]
  double scale = 1; // of every k_ij; a kernel that is alone has its weight here
};

struct GatedCrfTile {
  Window window;
  int64_t reach[3];  // of the window: the radius, or less in a small image
  int64_t extent[3]; // of a whole tile
  int64_t pitch[2];  // elements between planes and between rows of the padded tile
  int64_t padded;    // elements of one channel of the padded tile

  int64_t image;
  int64_t begin[3]; // of this tile
  int64_t count[3]; // less than extent at the image's end

  const bool* source = nullptr;      // of this pass, [B, N] or null
  const bool* destination = nullptr; // of this pass
  // What is written; each null or of the accumulation type.
  void* loss_map = nullptr;   // [B, N]
  void* gradient = nullptr;   // [B, C, N]
  void* sums = nullptr;       // [B, C, N]
  double gradient_factor = 1; // includes the scale of the kernels
  bool adds_gradient = false; // to what stands there
};

// Channels of a padded tile: the image's, the values', one that marks the sources, and the
// complement of a single class.
constexpr int64_t gated_crf_channels(const GatedCrfArguments& a) {
  return a.channels + a.classes + 2;
}

// Elements of a tile's scratch: the padded channels, a row of the image and of the values, and
// sixteen sums for each value, for the marks and for the complement.
constexpr int64_t gated_crf_scratch(const GatedCrfArguments& a, const GatedCrfTile& tile) {
  return gated_crf_channels(a) * tile.padded + (a.channels + a.classes) * tile.pitch[1] +
         (a.classes + 2) * 16;
}

} // namespace cpu
} // namespace accl
