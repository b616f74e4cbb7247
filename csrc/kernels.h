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
  double factor = 1; // what the group's sum is multiplied by: scale, or scale / count for a mean
};

// One group for accl_loss, two (fake, real) for accl_discriminator_loss.
struct AcclLossArguments {
  DType dtype = DType::kFloat32;
  int32_t groups = 1;
  ScoreGroup group[2];
  bool elementwise = false; // reduction "none": loss and grad_loss are maps over the elements

  void* loss = nullptr;            // [] or [count] accumulation type, forward only
  const void* grad_loss = nullptr; // [] or [count] accumulation type, backward only

  void* scratch = nullptr;   // CUDA: [accl_loss_scratch(*this)] accumulation type
  int32_t* ticket = nullptr; // CUDA: a counter of blocks, which the launch sets to 0
};

// ---------------------------------------------------------------------------------------------
// Pixels: eqs. (1) to (3). segmentation_head, partial_cross_entropy, size_penalty and
// partial_overlap_loss are this one computation with outputs left out (a null pointer).

// How the sums of math/overlap.h become a loss; in the ops a list of these numbers in this order,
// with absent (0: skip, 1: keep), include_background (-1: none given), reduction.
struct OverlapOptions {
  double alpha = 0.5, beta = 0.5;
  double smooth_numerator = 0, smooth_denominator = 0;
  bool keep_absent = false;
  int32_t first_class = 0; // 1 without the background
  bool squared = false;
  bool batch = false;
  Reduction reduction = Reduction::kMean;
};

// K, the number of labels: one class counts as two, background and object.
constexpr int64_t overlap_labels(int64_t classes) { return classes == 1 ? 2 : classes; }

struct SegmentationHeadArguments {
  int64_t images = 0;  // B
  int64_t classes = 0; // C
  int64_t pixels = 0;  // N, flattened spatial size
  DType dtype = DType::kFloat32;
  const void* logits = nullptr; // [B, C, N] dtype

  // Partial cross-entropy; all null when only the size is asked for. With v the pixel_weight, w
  // the weight, e the label_smoothing and K = max(C, 2), the loss of a pixel with label y is
  //   v sum_c q_c (-log p_c),  q_c = w_c ((1 - e) [c = y] + e / K),
  // and its weight in the means is v w_y. C = 1 stands for two classes with logits 0 and z. A
  // factor of 0 gives 0 even where it multiplies infinity or NaN: v = 0 makes the whole pixel 0,
  // and q_c = 0 makes the term of class c 0. The logits of unlabelled pixels are not read. An
  // invalid label gives NaN.
  const void* labels = nullptr; // [B, N] label_type
  LabelType label_type = LabelType::kUInt8;
  int64_t ignore_index = 255;
  const void* weight = nullptr;       // [max(C, 2)] accumulation type, or null: all 1
  const void* pixel_weight = nullptr; // [B, N] accumulation type, or null: all 1
  double label_smoothing = 0;         // in [0, 1]
  Reduction ce_reduction = Reduction::kMean;

  // Size penalty. Null bounds mean that no pair of image and class is bounded: penalty and
  // penalty_scale, if asked for, are then 0.
  const void* bounds = nullptr;           // accumulation type, [B, C, 2] through the strides
  int64_t bounds_stride[3] = {0, 0, 0};   // in elements
  Normalization normalization = Normalization::kArea;
  Reduction size_reduction = Reduction::kMean;

  // Overlap over the labelled pixels, whose weight is pixel_weight.
  OverlapOptions overlap;
  const void* overlap_weight = nullptr; // [K] accumulation type, or null: all 1
};

struct SegmentationHeadForward : SegmentationHeadArguments {
  void* probabilities = nullptr; // [B, C, N] dtype
  void* ce = nullptr;            // [] accumulation type, or [B, N] for kNone
  void* ce_scale = nullptr;      // [B] accumulation type: factor of an image's summed loss in ce
  void* penalty = nullptr;       // [] accumulation type, or [B, C] for kNone
  void* penalty_scale = nullptr; // [] accumulation type: factor of a squared excess in penalty
  void* soft_size = nullptr;     // [B, C] accumulation type
  // [B, K, 3] accumulation type: hit, predicted, labelled of each pair. Null: no overlap.
  void* overlap_sums = nullptr;
  // [] accumulation type, or for kNone [B, K'], with `batch` [K'], K' = K - first_class
  void* overlap_loss = nullptr;

  void* scratch = nullptr;   // CUDA: [segmentation_head_scratch(*this)] accumulation type
  int32_t* ticket = nullptr; // CUDA: a counter of blocks, which the launch sets to 0
};

struct SegmentationHeadBackward : SegmentationHeadArguments {
  const void* soft_size = nullptr;          // [B, C] accumulation type
  const void* ce_scale = nullptr;           // [B] accumulation type
  const void* penalty_scale = nullptr;      // [] accumulation type
  const void* grad_probabilities = nullptr; // [B, C, N] dtype
  const void* grad_ce = nullptr;            // [] accumulation type, or [B, N] for kNone
  const void* grad_penalty = nullptr;       // [] accumulation type, or [B, C] for kNone
  const void* grad_soft_size = nullptr;     // [B, C] accumulation type
  const void* overlap_sums = nullptr;       // [B, K, 3] accumulation type
  const void* grad_overlap = nullptr;       // as overlap_loss
  const void* grad_overlap_sums = nullptr;  // [B, K, 3] accumulation type
  void* grad_logits = nullptr;              // [B, C, N] dtype
};

// ---------------------------------------------------------------------------------------------
// Pairs of pixels: the gated CRF loss (math/gated_crf_loss.h). Both ops sum over the window of
// every pixel with the weights k_ij.

constexpr int kMaxCrfKernels = 16;

struct GatedCrfKernel {
  double weight;
  double sigma_space;
  double sigma_image; // infinity: the kernel depends on the distance alone
};

struct GatedCrfArguments {
  int64_t images = 0;              // B
  int64_t classes = 0;             // C
  int64_t channels = 0;            // K
  int64_t size[3] = {1, 1, 1};     // spatial, last axis contiguous; 1 in front of fewer than 3
  double spacing[3] = {1, 1, 1};   // of neighbouring pixels, by axis
  int64_t pixels = 0;              // N, the product of size
  int64_t radius = 1;              // of the window, in pixels
  int32_t kernels = 0;
  GatedCrfKernel kernel[kMaxCrfKernels];
  DType dtype = DType::kFloat32;   // of values
  DType image_dtype = DType::kFloat32;
  const void* values = nullptr;    // [B, C, N] dtype
  const void* image = nullptr;     // [B, K, N] image_dtype
  // [B, N]: the pixels j that give to others, and the pixels i that receive. Null means all.
  const bool* source = nullptr;
  const bool* destination = nullptr;
};

// values: the probabilities.
struct GatedCrfForward : GatedCrfArguments {
  Reduction reduction = Reduction::kMean;
  void* loss = nullptr;     // [] accumulation type, or [B, N] for kNone
  void* gradient = nullptr; // [B, C, N] accumulation type, of a scalar loss; or null

  void* scratch = nullptr;   // CUDA: [gated_crf_scratch(*this)] accumulation type
  int32_t* ticket = nullptr; // CUDA: a counter of blocks, which the launch sets to 0
};

// sums_i = sum_j k_ij values_j over the sources j, and 0 where i is not a destination.
struct GatedCrfGather : GatedCrfArguments {
  void* sums = nullptr; // [B, C, N] accumulation type
};

// ---------------------------------------------------------------------------------------------
// Kernels. They are never called with empty input.

namespace cpu {
void accl_loss_forward(const AcclLossArguments& arguments);
void accl_loss_backward(const AcclLossArguments& arguments);
// Returns the index in labels of the first value that is neither a class nor ignore_index, or -1.
int64_t segmentation_head_forward(const SegmentationHeadForward& arguments);
void segmentation_head_backward(const SegmentationHeadBackward& arguments);
void gated_crf_forward(const GatedCrfForward& arguments);
void gated_crf_gather(const GatedCrfGather& arguments);
} // namespace cpu

namespace cuda {
// Length of the scratch that ops/ allocates for a launch, in elements of the accumulation type.
int64_t accl_loss_scratch(const AcclLossArguments& arguments);
int64_t segmentation_head_scratch(const SegmentationHeadArguments& arguments);
int64_t gated_crf_scratch(const GatedCrfForward& arguments);
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
