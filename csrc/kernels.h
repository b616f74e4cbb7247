// The contract between ops/ (which checks and allocates) and the kernels in cpu/ and cuda/ (which
// walk memory and reduce): plain pointers and sizes, no torch header, so that the same structs
// reach code compiled by nvcc, for several instruction sets, or outside torch altogether.
#pragma once

#include <cstdint>

namespace accl {

enum class DType : int32_t { kFloat16, kBFloat16, kFloat32, kFloat64 };
enum class LabelType : int32_t { kUInt8, kInt8, kInt16, kInt32, kInt64, kBool };
enum class Reduction : int32_t { kMean, kSum, kNone, kImageMean };
enum class Normalization : int32_t { kArea, kNone, kArea2 };

// "Accumulation type" below: float64 for float64 input, else float32.

// ---------------------------------------------------------------------------------------------
// Patch scores: eqs. (5) and (6)

enum class ScoreTerm : int32_t {
  kLeastSquares,   // (d - t)^2
  kVanilla,        // softplus(d) - t d
  kHingeGenerator, // -d
  kHingeFake,      // relu(1 + d)
  kHingeReal,      // relu(1 - d)
};

struct ScoreGroup {
  const void* scores = nullptr; // [count] dtype
  void* grad_scores = nullptr;  // [count] dtype, backward only
  int64_t count = 0;
  ScoreTerm term = ScoreTerm::kLeastSquares;
  double target = 0;
  double factor = 1; // of this group's sum in the loss: scale, or scale / count for a mean
};

// One group for accl_loss, two (fake, real) for accl_discriminator_loss.
struct AcclLossArguments {
  DType dtype = DType::kFloat32;
  int32_t groups = 1;
  ScoreGroup group[2];
  bool elementwise = false; // reduction "none": loss and grad_loss are maps over the elements

  void* loss = nullptr;            // [] or [count] accumulation type, forward only
  const void* grad_loss = nullptr; // [] or [count] accumulation type, backward only

  void* partials = nullptr;  // CUDA: [accl_loss_partials(*this)] accumulation type
  int32_t* ticket = nullptr; // CUDA: one, which the launch clears
};

// ---------------------------------------------------------------------------------------------
// Pixels: eqs. (1) to (3). segmentation_head, partial_cross_entropy and size_penalty are this one
// computation with outputs left out (a null pointer).

struct SegmentationHeadArguments {
  int64_t images = 0;  // B
  int64_t classes = 0; // C
  int64_t pixels = 0;  // N, flattened spatial size
  DType dtype = DType::kFloat32;
  const void* logits = nullptr; // [B, C, N] dtype

  // Partial cross-entropy; all null when only the size is asked for. With v the pixel_weight, w
  // the weight, e the label_smoothing and K = max(C, 2), a pixel of label y costs
  //   v sum_c q_c (-log p_c),  q_c = w_c ((1 - e) [c = y] + e / K),
  // and counts v w_y in the means; C = 1 is two classes of logits 0 and z. A factor of 0 gives 0
  // whatever it multiplies: v = 0 the whole pixel, q_c = 0 the term of that class. Unlabelled
  // pixels are not looked at; an invalid label gives NaN.
  const void* labels = nullptr; // [B, N] label_type
  LabelType label_type = LabelType::kUInt8;
  int64_t ignore_index = 255;
  const void* weight = nullptr;       // [max(C, 2)] accumulation type, or null: all 1
  const void* pixel_weight = nullptr; // [B, N] accumulation type, or null: all 1
  double label_smoothing = 0;         // in [0, 1]
  Reduction ce_reduction = Reduction::kMean;

  // Size penalty; with null bounds every pair is free: penalty and its scale, if asked for, are 0.
  const void* bounds = nullptr;           // accumulation type, [B, C, 2] through the strides
  int64_t bounds_stride[3] = {0, 0, 0};   // in elements
  Normalization normalization = Normalization::kArea;
  Reduction size_reduction = Reduction::kMean;
};

struct SegmentationHeadForward : SegmentationHeadArguments {
  void* probabilities = nullptr; // [B, C, N] dtype
  void* ce = nullptr;            // [] accumulation type, or [B, N] for kNone
  void* ce_scale = nullptr;      // [B] accumulation type: factor of each image's summed loss
  void* penalty = nullptr;       // [] accumulation type, or [B, C] for kNone
  void* penalty_scale = nullptr; // [] accumulation type: factor of each pair's squared excess
  void* soft_size = nullptr;     // [B, C] accumulation type

  void* partials = nullptr;  // CUDA: [segmentation_head_partials(*this)] accumulation type
  int32_t* ticket = nullptr; // CUDA: one, which the launch clears
};

struct SegmentationHeadBackward : SegmentationHeadArguments {
  const void* soft_size = nullptr;          // [B, C] accumulation type
  const void* ce_scale = nullptr;           // [B] accumulation type
  const void* penalty_scale = nullptr;      // [] accumulation type
  const void* grad_probabilities = nullptr; // [B, C, N] dtype
  const void* grad_ce = nullptr;            // [] accumulation type, or [B, N] for kNone
  const void* grad_penalty = nullptr;       // [] accumulation type, or [B, C] for kNone
  const void* grad_soft_size = nullptr;     // [B, C] accumulation type
  void* grad_logits = nullptr;              // [B, C, N] dtype
};

// ---------------------------------------------------------------------------------------------
// Pairs of pixels: the gated CRF loss (math/gated_crf_loss.h). Both ops sum over the window of
// every pixel with the weights k_ij.

constexpr int kMaxCrfKernels = 16;

struct GatedCrfKernel {
  double weight;
  double sigma_space;
  double sigma_image; // infinite: space alone
};

struct GatedCrfArguments {
  int64_t images = 0;              // B
  int64_t classes = 0;             // C
  int64_t channels = 0;            // K
  int64_t size[3] = {1, 1, 1};     // spatial, the last axis varies fastest; leading ones for less
  double spacing[3] = {1, 1, 1};   // of neighbouring pixels, by axis
  int64_t pixels = 0;              // N, the product of size
  int64_t radius = 1;              // of the window, in pixels
  int32_t kernels = 0;
  GatedCrfKernel kernel[kMaxCrfKernels];
  DType dtype = DType::kFloat32;   // of values
  DType image_dtype = DType::kFloat32;
  const void* values = nullptr;    // [B, C, N] dtype
  const void* image = nullptr;     // [B, K, N] image_dtype
  // Pixels that give to others, and that receive; null: all. [B, N]
  const bool* source = nullptr;
  const bool* destination = nullptr;
};

// values: the probabilities.
struct GatedCrfForward : GatedCrfArguments {
  Reduction reduction = Reduction::kMean;
  void* loss = nullptr;     // [] accumulation type, or [B, N] for kNone
  void* gradient = nullptr; // [B, C, N] accumulation type, of a scalar loss; or null

  void* partials = nullptr;  // CUDA: [gated_crf_partials(*this)] accumulation type
  int32_t* ticket = nullptr; // CUDA: one, which the launch clears
};

// sums_i = sum_j k_ij values_j over the sources j, 0 where i is no destination.
struct GatedCrfGather : GatedCrfArguments {
  void* sums = nullptr; // [B, C, N] accumulation type
};

// ---------------------------------------------------------------------------------------------
// Kernels. Empty input never reaches them.

namespace cpu {
void accl_loss_forward(const AcclLossArguments& arguments);
void accl_loss_backward(const AcclLossArguments& arguments);
// Returns where in labels the first value stands that is neither a class nor ignore_index, or -1.
int64_t segmentation_head_forward(const SegmentationHeadForward& arguments);
void segmentation_head_backward(const SegmentationHeadBackward& arguments);
void gated_crf_forward(const GatedCrfForward& arguments);
void gated_crf_gather(const GatedCrfGather& arguments);
} // namespace cpu

// Scratch that ops/ allocates for a CUDA launch: elements of the accumulation type.
namespace cuda {
int64_t accl_loss_partials(const AcclLossArguments& arguments);
int64_t segmentation_head_partials(const SegmentationHeadArguments& arguments);
int64_t gated_crf_partials(const GatedCrfForward& arguments);
// stream: a cudaStream_t. Each returns a cudaError_t as int (0: launched).
int accl_loss_forward(const AcclLossArguments& arguments, void* stream);
int accl_loss_backward(const AcclLossArguments& arguments, void* stream);
int segmentation_head_forward(const SegmentationHeadForward& arguments, void* stream);
int segmentation_head_backward(const SegmentationHeadBackward& arguments, void* stream);
int gated_crf_forward(const GatedCrfForward& arguments, void* stream);
int gated_crf_gather(const GatedCrfGather& arguments, void* stream);
const char* error_string(int error);
} // namespace cuda

} // namespace accl
