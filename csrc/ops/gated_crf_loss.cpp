// gated_crf_loss and the gather that its derivatives are made of: check, allocate, launch.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "checks.h"
#include "launch.h"
#include "ops.h"

namespace accl {
namespace {

// Python has checked the options already. These checks are for callers of the ops themselves.
void check_options(int64_t radius, at::ArrayRef<double> kernels, at::ArrayRef<double> spacing,
                   const at::Tensor& like) {
  TORCH_CHECK_VALUE(radius >= 1, "radius must be at least 1, got ", radius);
  const int64_t n = int64_t(kernels.size());
  TORCH_CHECK_VALUE(n > 0 && n % 3 == 0 && n / 3 <= kMaxCrfKernels,
                    "kernels must be three numbers each of 1 to ", kMaxCrfKernels, " kernels, got ",
                    n, " numbers");
  for (int64_t m = 0; m < n; m += 3) {
    TORCH_CHECK_VALUE(std::isfinite(kernels[m]), "weight of kernels[", m / 3,
                      "] must be finite, got ", kernels[m]);
    TORCH_CHECK_VALUE(kernels[m + 1] > 0, "sigma_space of kernels[", m / 3,
                      "] must be above 0, got ", kernels[m + 1]);
    TORCH_CHECK_VALUE(kernels[m + 2] > 0, "sigma_image of kernels[", m / 3,
                      "] must be above 0, got ", kernels[m + 2]);
  }
  if (spacing.empty()) return;
  TORCH_CHECK_VALUE(int64_t(spacing.size()) == like.dim() - 2,
                    "spacing must have one number per spatial axis (", like.dim() - 2, "), got ",
                    spacing.size());
  for (const double step : spacing) {
    TORCH_CHECK_VALUE(step > 0 && std::isfinite(step),
                      "spacing must be finite numbers above 0, got ", spacing);
  }
}

void check_image(const at::Tensor& like, const char* argument, const at::Tensor& image) {
  check_scores(image, "image");
  check_device(image, "image", like, argument);
  bool fits = image.dim() == like.dim() && image.sym_size(0) == like.sym_size(0);
  for (int64_t i = 2; fits && i < like.dim(); ++i) fits = image.sym_size(i) == like.sym_size(i);
  if (!fits) {
    std::string wanted = c10::str(like.sym_size(0), ", K");
    for (int64_t i = 2; i < like.dim(); ++i) wanted += c10::str(", ", like.sym_size(i));
    TORCH_CHECK_VALUE(false, "image must have shape [", wanted, "] to match ", argument, " ",
                      like.sym_sizes(), ", got ", image.sym_sizes());
  }
  TORCH_CHECK_VALUE(image.sym_size(1) != 0, "image must have at least one channel, got ",
                    image.sym_sizes());
  TORCH_CHECK_VALUE(!image.requires_grad(),
                    "image must not require grad: the loss has no derivative by the image");
}

void check_mask(const at::Tensor& like, const char* like_argument, const OptionalTensor& mask,
                const char* argument) {
  if (!mask.has_value()) return;
  TORCH_CHECK_TYPE(mask->scalar_type() == at::kBool, argument, " must be bool, got ",
                   python_name(mask->scalar_type()));
  check_device(*mask, argument, like, like_argument);
  check_map(like, *mask, argument, like_argument);
}

// Keeps the contiguous tensors that the raw pointers of the arguments point into.
struct Inputs {
  at::Tensor values;
  at::Tensor image;
  at::Tensor source;
  at::Tensor destination;

  Inputs(const at::Tensor& given_values, const at::Tensor& given_image,
         const OptionalTensor& source_mask, const OptionalTensor& destination_mask)
      : values(given_values.contiguous()), image(given_image.contiguous()) {
    if (source_mask.has_value()) source = source_mask->contiguous();
    if (!destination_mask.has_value()) return;
    // One tensor given for both masks stays one tensor: the kernels then need one sum, not two.
    const bool same = source_mask.has_value() && source_mask->is_same(*destination_mask);
    destination = same ? source : destination_mask->contiguous();
  }

  void fill(GatedCrfArguments& a, int64_t radius, at::ArrayRef<double> kernels,
            at::ArrayRef<double> spacing) const {
    a.images = values.size(0);
    a.classes = values.size(1);
    a.channels = image.size(1);
    const int64_t rank = values.dim() - 2;
    a.pixels = 1;
    for (int64_t i = 0; i < rank; ++i) {
      a.size[3 - rank + i] = values.size(2 + i);
      a.pixels *= values.size(2 + i);
      if (!spacing.empty()) a.spacing[3 - rank + i] = spacing[i];
    }
    a.radius = radius;
    a.kernels = int32_t(kernels.size() / 3);
    for (int32_t m = 0; m < a.kernels; ++m) {
      a.kernel[m] = {kernels[3 * m], kernels[3 * m + 1], kernels[3 * m + 2]};
    }
    a.dtype = kernel_dtype(values.scalar_type());
    a.image_dtype = kernel_dtype(image.scalar_type());
    a.values = values.const_data_ptr();
    a.image = image.const_data_ptr();
    if (source.defined()) a.source = source.const_data_ptr<bool>();
    if (destination.defined()) a.destination = destination.const_data_ptr<bool>();
  }
};

at::Tensor allocate_loss(const at::Tensor& probabilities, Reduction reduction) {
  const auto options =
      probabilities.options().dtype(accumulation_type(probabilities.scalar_type()));
  if (reduction != Reduction::kNone) return at::empty({}, options);
  std::vector<c10::SymInt> shape(probabilities.sym_sizes().begin(),
                                 probabilities.sym_sizes().end());
  shape.erase(shape.begin() + 1);
  return at::empty_symint(shape, options);
}

} // namespace

std::tuple<at::Tensor, at::Tensor> gated_crf_loss(
    const at::Tensor& probabilities, const at::Tensor& image, int64_t radius,
    at::ArrayRef<double> kernels, at::ArrayRef<double> spacing, const OptionalTensor& source_mask,
    const OptionalTensor& destination_mask, std::string_view reduction_name, bool with_gradient) {
  check_logits(probabilities, "probabilities");
  check_image(probabilities, "probabilities", image);
  check_mask(probabilities, "probabilities", source_mask, "source_mask");
  check_mask(probabilities, "probabilities", destination_mask, "destination_mask");
  check_options(radius, kernels, spacing, probabilities);
  const Reduction reduction = parse_reduction(reduction_name);
  at::Tensor loss = allocate_loss(probabilities, reduction);
  const bool makes_gradient = with_gradient && reduction != Reduction::kNone;
  at::Tensor gradient = makes_gradient ? at::empty_symint(probabilities.sym_sizes(), loss.options())
                                       : at::empty({0}, loss.options());
  if (probabilities.is_meta()) return {loss, gradient};
  if (probabilities.numel() == 0) return {loss.zero_(), gradient};

  const Inputs in(probabilities, image, source_mask, destination_mask);
  GatedCrfForward a;
  in.fill(a, radius, kernels, spacing);
  a.reduction = reduction;
  a.loss = loss.data_ptr();
  if (makes_gradient) a.gradient = gradient.data_ptr();
  if (in.values.is_cuda()) {
    const at::Tensor scratch = cuda_scratch(cuda::gated_crf_scratch(a), loss.scalar_type(),
                                            in.values, &a.scratch, &a.ticket);
    launch_cuda(cuda::gated_crf_forward, a, in.values);
  } else {
    cpu::gated_crf_forward(a);
  }
  return {loss, gradient};
}

at::Tensor gated_crf_gather(const at::Tensor& values, const at::Tensor& image, int64_t radius,
                            at::ArrayRef<double> kernels, at::ArrayRef<double> spacing,
                            const OptionalTensor& source_mask,
                            const OptionalTensor& destination_mask) {
  check_logits(values, "values");
  TORCH_CHECK_TYPE(values.scalar_type() == accumulation_type(values.scalar_type()),
                   "values must be float32 or float64, got ", python_name(values.scalar_type()));
  check_image(values, "values", image);
  check_mask(values, "values", source_mask, "source_mask");
  check_mask(values, "values", destination_mask, "destination_mask");
  check_options(radius, kernels, spacing, values);
  at::Tensor sums = at::empty_symint(values.sym_sizes(), values.options());
  if (values.is_meta() || values.numel() == 0) return sums;

  const Inputs in(values, image, source_mask, destination_mask);
  GatedCrfGather a;
  in.fill(a, radius, kernels, spacing);
  a.sums = sums.data_ptr();
  if (in.values.is_cuda()) {
    launch_cuda(cuda::gated_crf_gather, a, in.values);
  } else {
    cpu::gated_crf_gather(a);
  }
  return sums;
}

} // namespace accl
