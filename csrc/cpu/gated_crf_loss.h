// The arguments of the CPU kernel of the gated CRF loss: the window as a table, and one tile of the
// image.
#pragma once

#include <cstdint>

#include "../kernels.h"

namespace accl {
namespace cpu {

// A run of `count` neighbours that lie side by side in memory. The first lies `delta` elements from
// the pixel and is entry `first` of the table.
struct WindowRun {
  int64_t delta;
  int64_t first;
  int64_t count;
};

// The window around a pixel of a tile, without the pixel itself. The arrays hold numbers of the
// accumulation type.
struct Window {
  const WindowRun* runs = nullptr;
  int64_t run_count = 0;
  // For each neighbour the sum of the kernels that do not look at the image; null if there is none.
  const void* flat = nullptr;
  // The other kernels are 2^(factor[m] |I_i - I_j|^2 + exponent[m][neighbour]) weight[m].
  int32_t gated = 0;
  const void* const* exponent = nullptr; // [gated]
  const void* factor = nullptr; // [gated]
  const void* weight = nullptr; // [gated]
  double scale = 1; // factor of every k_ij: the weight of a kernel that is the only one
};

struct GatedCrfTile {
  Window window;
  int64_t reach[3]; // how far the window goes: the radius, or less in a small image
  int64_t extent[3]; // pixels of a whole tile
  int64_t pitch[2]; // elements between planes and between rows of the padded tile
  int64_t padded; // elements of one channel of the padded tile

  int64_t image;
  int64_t begin[3]; // first pixel of this tile
  int64_t count[3]; // pixels of this tile, fewer than extent at the end of the image

  const bool* source = nullptr; // of this pass, [B, N] or null
  const bool* destination = nullptr; // of this pass, [B, N] or null
  // What is written, each in the accumulation type or null.
  void* loss_map = nullptr; // [B, N]
  void* gradient = nullptr; // [B, C, N]
  void* sums = nullptr; // [B, C, N]
  double gradient_factor = 1; // includes the scale of the kernels
  bool adds_gradient = false; // adds to `gradient` instead of overwriting it
};

// Channels of a padded tile: those of the image and of the values, one that marks the sources, and
// one for the complement of a single class.
constexpr int64_t gated_crf_channels(const GatedCrfArguments& a) {
  return a.channels + a.classes + 2;
}

// Sums over a window that are computed at once: they stay in registers, beside the numbers of the
// kernel itself.
constexpr int kGatedCrfSums = 5;

// Elements for the weights of sixteen pixels' windows, if not all sums are computed at once.
constexpr int64_t gated_crf_kept(const GatedCrfArguments& a, const GatedCrfTile& tile) {
  const bool keeps = a.classes + 1 > kGatedCrfSums;
  return keeps ? 16 * (2 * tile.reach[0] + 1) * (2 * tile.reach[1] + 1) * (2 * tile.reach[2] + 1)
               : 0;
}

// Elements of a tile's scratch: the weights that are kept; the padded channels; a row of the image
// and of the values; and sixteen sums for each value, for the marks and for the complement.
constexpr int64_t gated_crf_scratch(const GatedCrfArguments& a, const GatedCrfTile& tile) {
  return gated_crf_kept(a, tile) + gated_crf_channels(a) * tile.padded +
         (a.channels + a.classes) * tile.pitch[1] + (a.classes + 2) * 16;
}

} // namespace cpu
} // namespace accl
