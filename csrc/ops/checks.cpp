#include "checks.h"

#include <array>
#include <cctype>
#include <cmath>
#include <string>
#include <vector>

namespace accl {
namespace {

constexpr std::array<std::string_view, 3> kCriteria = {"lsgan", "vanilla", "hinge"};
constexpr std::array<std::string_view, 4> kReductions = {"mean", "sum", "none", "image_mean"};
constexpr std::array<std::string_view, 3> kNormalizations = {"area", "none", "area2"};

template <class Names>
int64_t find(const Names& names, size_t count, std::string_view name) {
  for (size_t i = 0; i < count; ++i) {
    if (names[i] == name) return int64_t(i);
  }
  return -1;
}

int64_t check_option(int64_t value, size_t count, const char* argument) {
  TORCH_CHECK_VALUE(value >= 0 && value < int64_t(count), argument, " must be 0 to ", count - 1,
                    ", got ", value);
  return value;
}

bool is_supported_floating(at::ScalarType dtype) {
  return dtype == at::kHalf || dtype == at::kBFloat16 || dtype == at::kFloat ||
         dtype == at::kDouble;
}

bool is_label_type(at::ScalarType dtype) {
  return dtype == at::kByte || dtype == at::kChar || dtype == at::kShort || dtype == at::kInt ||
         dtype == at::kLong || dtype == at::kBool;
}

} // namespace

Criterion parse_criterion(std::string_view criterion) {
  const int64_t found = find(kCriteria, kCriteria.size(), criterion);
  TORCH_CHECK_VALUE(found >= 0, "criterion must be 'lsgan', 'vanilla' or 'hinge', got '", criterion,
                    "'");
  return Criterion(found);
}

Reduction parse_reduction(std::string_view reduction) {
  const int64_t found = find(kReductions, 3, reduction);
  TORCH_CHECK_VALUE(found >= 0, "reduction must be 'mean', 'sum' or 'none', got '", reduction, "'");
  return Reduction(found);
}

Reduction parse_label_reduction(std::string_view reduction) {
  const int64_t found = find(kReductions, kReductions.size(), reduction);
  TORCH_CHECK_VALUE(found >= 0, "reduction must be 'mean', 'image_mean', 'sum' or 'none', got '",
                    reduction, "'");
  return Reduction(found);
}

Normalization parse_normalization(std::string_view normalize) {
  const int64_t found = find(kNormalizations, kNormalizations.size(), normalize);
  TORCH_CHECK_VALUE(found >= 0, "normalize must be 'area', 'none' or 'area2', got '", normalize,
                    "'");
  return Normalization(found);
}

Criterion criterion_of(int64_t criterion) {
  return Criterion(check_option(criterion, kCriteria.size(), "criterion"));
}
Reduction reduction_of(int64_t reduction) {
  return Reduction(check_option(reduction, 3, "reduction"));
}
Reduction label_reduction_of(int64_t reduction) {
  return Reduction(check_option(reduction, kReductions.size(), "reduction"));
}
Normalization normalization_of(int64_t normalize) {
  return Normalization(check_option(normalize, kNormalizations.size(), "normalize"));
}

OverlapOptions parse_overlap(at::ArrayRef<double> numbers, const at::Tensor& logits) {
  TORCH_CHECK_VALUE(numbers.size() == 9, "overlap must be 9 numbers, got ", numbers.size());
  for (size_t i = 0; i < 4; ++i) {
    TORCH_CHECK_VALUE(numbers[i] >= 0 && std::isfinite(numbers[i]), "number ", i,
                      " of overlap must be finite and at least 0, got ", numbers[i]);
  }
  OverlapOptions options;
  options.alpha = numbers[0];
  options.beta = numbers[1];
  options.smooth_numerator = numbers[2];
  options.smooth_denominator = numbers[3];
  options.keep_absent = numbers[4] != 0;
  const bool background = numbers[5] < 0 ? logits.sym_size(1) != 1 : numbers[5] != 0;
  options.first_class = background ? 0 : 1;
  options.squared = numbers[6] != 0;
  options.batch = numbers[7] != 0;
  options.reduction = reduction_of(int64_t(numbers[8]));
  return options;
}

DType kernel_dtype(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf: return DType::kFloat16;
    case at::kBFloat16: return DType::kBFloat16;
    case at::kDouble: return DType::kFloat64;
    default: return DType::kFloat32;
  }
}

LabelType kernel_label_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kByte: return LabelType::kUInt8;
    case at::kChar: return LabelType::kInt8;
    case at::kShort: return LabelType::kInt16;
    case at::kInt: return LabelType::kInt32;
    case at::kBool: return LabelType::kBool;
    default: return LabelType::kInt64;
  }
}

at::ScalarType accumulation_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

// The names that dtypes have in Python: "float32", not "Float".
std::string python_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kByte: return "uint8";
    case at::kChar: return "int8";
    case at::kShort: return "int16";
    case at::kInt: return "int32";
    case at::kLong: return "int64";
    case at::kHalf: return "float16";
    case at::kFloat: return "float32";
    case at::kDouble: return "float64";
    case at::kBFloat16: return "bfloat16";
    case at::kBool: return "bool";
    case at::kComplexFloat: return "complex64";
    case at::kComplexDouble: return "complex128";
    default: break;
  }
  std::string name = c10::toString(dtype);
  for (char& letter : name) letter = char(std::tolower(letter)); // "UInt16" is torch.uint16
  return name;
}

void check_device(const at::Tensor& tensor, const char* argument, const at::Tensor& other,
                  const char* other_argument) {
  TORCH_CHECK_VALUE(tensor.device() == other.device(), argument, " must be on the device of ",
                    other_argument, " (", other.device(), "), got ", tensor.device());
}

void check_map(const at::Tensor& logits, const at::Tensor& map, const char* argument,
               const char* logits_argument) {
  const int64_t spatial = logits.dim() - 2;
  const int64_t skipped = map.dim() - spatial; // batch, or batch and channel
  bool fits = (skipped == 1 || (skipped == 2 && map.sym_size(1) == 1)) &&
              map.sym_size(0) == logits.sym_size(0);
  for (int64_t i = 0; fits && i < spatial; ++i) {
    fits = map.sym_size(skipped + i) == logits.sym_size(2 + i);
  }
  if (fits) return;
  std::vector<c10::SymInt> plain(logits.sym_sizes().begin(), logits.sym_sizes().end());
  std::vector<c10::SymInt> channel = plain;
  plain.erase(plain.begin() + 1);
  channel[1] = 1;
  TORCH_CHECK_VALUE(false, argument, " must have shape ", c10::SymIntArrayRef(plain), " or ",
                    c10::SymIntArrayRef(channel), " to match ", logits_argument, " ",
                    logits.sym_sizes(), ", got ", map.sym_sizes());
}

void check_scores(const at::Tensor& scores, const char* argument) {
  TORCH_CHECK_TYPE(is_supported_floating(scores.scalar_type()), argument,
                   " must be float16, bfloat16, float32 or float64, got ",
                   python_name(scores.scalar_type()));
}

void check_score_pair(const at::Tensor& fake, const at::Tensor& real, Reduction reduction) {
  TORCH_CHECK_TYPE(fake.scalar_type() == real.scalar_type(),
                   "real_scores must have the dtype of fake_scores (",
                   python_name(fake.scalar_type()), "), got ", python_name(real.scalar_type()));
  check_device(real, "real_scores", fake, "fake_scores");
  TORCH_CHECK_VALUE(reduction != Reduction::kNone || fake.sym_sizes().equals(real.sym_sizes()),
                    "real_scores must have the shape of fake_scores for reduction 'none' (",
                    fake.sym_sizes(), "), got ", real.sym_sizes());
}

void check_logits(const at::Tensor& logits, const char* argument) {
  check_scores(logits, argument);
  TORCH_CHECK_VALUE(logits.dim() >= 3 && logits.dim() <= 5, argument,
                    " must have shape [B, C, *S] with 1 to 3 spatial dimensions, got ",
                    logits.sym_sizes());
  TORCH_CHECK_VALUE(logits.sym_size(1) != 0, argument, " must have at least one class, got ",
                    logits.sym_sizes());
}

void check_labels(const at::Tensor& logits, const at::Tensor& labels) {
  TORCH_CHECK_TYPE(is_label_type(labels.scalar_type()),
                   "labels must be uint8, int8, int16, int32, int64 or bool, got ",
                   python_name(labels.scalar_type()));
  TORCH_CHECK_TYPE(labels.scalar_type() != at::kBool || logits.sym_size(1) == 1,
                   "bool labels need logits with one class, got ", logits.sym_size(1), " classes");
  check_device(labels, "labels", logits, "logits");
  check_map(logits, labels, "labels");
}

void check_weight(const at::Tensor& logits, const std::optional<at::Tensor>& weight,
                  const char* argument) {
  if (!weight.has_value()) return;
  TORCH_CHECK_TYPE(at::isFloatingType(weight->scalar_type()), argument,
                   " must be a floating dtype, got ", python_name(weight->scalar_type()));
  const c10::SymInt wanted = logits.sym_size(1) == 1 ? c10::SymInt(2) : logits.sym_size(1);
  TORCH_CHECK_VALUE(weight->dim() == 1 && weight->sym_size(0) == wanted, argument,
                    " must have shape [", wanted, "], one value a class, got ",
                    weight->sym_sizes());
  check_device(*weight, argument, logits, "logits");
  TORCH_CHECK_VALUE(!weight->requires_grad(), argument, " must not require grad");
}

void check_pixel_weight(const at::Tensor& logits, const std::optional<at::Tensor>& pixel_weight) {
  if (!pixel_weight.has_value()) return;
  TORCH_CHECK_TYPE(at::isFloatingType(pixel_weight->scalar_type()),
                   "pixel_weight must be a floating dtype, got ",
                   python_name(pixel_weight->scalar_type()));
  check_device(*pixel_weight, "pixel_weight", logits, "logits");
  check_map(logits, *pixel_weight, "pixel_weight");
  TORCH_CHECK_VALUE(!pixel_weight->requires_grad(), "pixel_weight must not require grad");
}

void check_label_smoothing(double label_smoothing) {
  TORCH_CHECK_VALUE(label_smoothing >= 0 && label_smoothing <= 1,
                    "label_smoothing must be between 0 and 1, got ", label_smoothing);
}

void check_bounds(const at::Tensor& logits, const at::Tensor& bounds) {
  const at::ScalarType dtype = bounds.scalar_type();
  TORCH_CHECK_TYPE(dtype != at::kBool && !bounds.is_complex(),
                   "bounds must be float32, float64 or an integer dtype, got ", python_name(dtype));
  TORCH_CHECK_TYPE(!at::isFloatingType(dtype) || dtype == at::kFloat || dtype == at::kDouble,
                   "bounds must be float32, float64 or an integer dtype, because lower precision "
                   "rounds sizes in pixels and makes large ones infinite, which frees their side; "
                   "got ",
                   python_name(dtype));
  check_device(bounds, "bounds", logits, "logits");
  const int64_t dim = bounds.dim();
  bool fits = dim >= 1 && dim <= 3 && bounds.sym_size(-1) == 2;
  for (int64_t i = 2; fits && i <= dim; ++i) {
    const c10::SymInt size = bounds.sym_size(-i);
    fits = size == 1 || size == logits.sym_size(3 - i);
  }
  TORCH_CHECK_VALUE(fits, "bounds must broadcast to [B, C, 2] = [", logits.sym_size(0), ", ",
                    logits.sym_size(1), ", 2], got ", bounds.sym_sizes());
  TORCH_CHECK_VALUE(!bounds.requires_grad(), "bounds must not require grad");
}

void check_gradient(const at::Tensor& gradient, const char* argument, c10::SymIntArrayRef shape,
                    at::ScalarType dtype, const at::Tensor& like) {
  TORCH_CHECK_TYPE(gradient.scalar_type() == dtype, argument, " must be ", python_name(dtype),
                   ", got ", python_name(gradient.scalar_type()));
  TORCH_CHECK_VALUE(gradient.sym_sizes().equals(shape), argument, " must have shape ", shape,
                    ", got ", gradient.sym_sizes());
  check_device(gradient, argument, like, "the input");
}

void throw_invalid_label(int64_t value, int64_t classes, int64_t ignore_index) {
  if (classes <= 2) {
    TORCH_CHECK_VALUE(false, "labels must be 0, 1 or ignore_index (", ignore_index, "), got ",
                      value);
  }
  TORCH_CHECK_VALUE(false, "labels must be 0 to ", classes - 1, " or ignore_index (", ignore_index,
                    "), got ", value);
}

} // namespace accl
