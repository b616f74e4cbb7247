// Derivatives of the gated CRF loss. It is quadratic in the probabilities, so all of them are sums
// over the window with the same weights k_ij. Let A(s -> t) be the gather,
//   A(s -> t) x_i = t_i sum_j s_j k_ij x_j,
// and a_i the gradient of the inner sum of pixel i. Then
//   dL/dp = -(a A(s -> t) y + A(t -> s) (a y)),   y = p, or 2 p - 1 where one class stands for two.
// A is linear, and exchanging the two masks gives its adjoint, so one op and ATen are enough for
// derivatives of any order. For a scalar loss the forward pass computes this gradient already.
#include "handles.h"

namespace accl {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

ACCL_OP(gated_crf_loss, decltype(gated_crf_loss), "gated_crf_loss")
ACCL_OP(gated_crf_gather, decltype(gated_crf_gather), "_gated_crf_gather")

struct Window {
  at::Tensor image;
  OptionalTensor source;
  OptionalTensor destination;
  int64_t radius;
  std::vector<double> kernels;
  std::vector<double> spacing;
  bool symmetric; // sources and destinations are the same pixels: no mask, or one for both

  Window(const at::Tensor& image_, int64_t radius_, at::ArrayRef<double> kernels_,
         at::ArrayRef<double> spacing_, const OptionalTensor& source_,
         const OptionalTensor& destination_)
      : image(image_),
        source(source_),
        destination(destination_),
        radius(radius_),
        kernels(kernels_.vec()),
        spacing(spacing_.vec()),
        symmetric(source_.has_value() == destination_.has_value() &&
                  (!source_.has_value() || source_->is_same(*destination_))) {}
  // image, source and destination are saved[first] and the two after it.
  Window(AutogradContext* ctx, const variable_list& saved, size_t first)
      : image(saved[first]),
        source(optional(saved[first + 1])),
        destination(optional(saved[first + 2])),
        radius(ctx->saved_data["radius"].toInt()),
        kernels(ctx->saved_data["kernels"].toDoubleVector()),
        spacing(ctx->saved_data["spacing"].toDoubleVector()),
        symmetric(ctx->saved_data["symmetric"].toBool()) {}

  void save(AutogradContext* ctx) const {
    ctx->saved_data["radius"] = radius;
    ctx->saved_data["kernels"] = kernels;
    ctx->saved_data["spacing"] = spacing;
    ctx->saved_data["symmetric"] = symmetric;
  }
  variable_list tensors() const { return {image, or_undefined(source), or_undefined(destination)}; }

  at::Tensor gather(const at::Tensor& x, bool to_source = false) const {
    return call_gated_crf_gather(x, image, radius, kernels, spacing,
                                 to_source ? destination : source,
                                 to_source ? source : destination);
  }
};

// Brings a mask [B, *S] or [B, 1, *S] to a shape that broadcasts over the channels of x.
at::Tensor over_channels(const at::Tensor& mask, const at::Tensor& x) {
  return mask.dim() == x.dim() ? mask : mask.unsqueeze(1);
}

// The dL/dp above. a is a scalar or a map [B, 1, *S].
at::Tensor slope(const Window& window, const at::Tensor& a, const at::Tensor& y) {
  if (a.dim() == 0) {
    const at::Tensor received = window.gather(y);
    if (window.symmetric) return a * received * -2;
    return -a * (received + window.gather(y, true));
  }
  at::Tensor weight = a;
  if (window.destination.has_value()) { // infinity at a pixel outside the mask must not spread
    weight = at::where(over_channels(*window.destination, a), a, 0.0);
  }
  return -(weight * window.gather(y) + window.gather(weight * y, true));
}

// g divided by the number of destinations for a mean, g itself otherwise.
at::Tensor over_destinations(const at::Tensor& g, Reduction reduction, const Window& window,
                             const at::Tensor& like) {
  if (reduction != Reduction::kMean) return g;
  if (window.destination.has_value()) return g / window.destination->sum().clamp_min(1);
  c10::SymInt n = like.sym_size(0);
  for (int64_t i = 2; i < like.dim(); ++i) n = n * like.sym_size(i);
  return g / at::Scalar(n);
}

struct GatedCrfGatherFunction : TraceableFunction<GatedCrfGatherFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& values, const at::Tensor& image,
                            int64_t radius, at::ArrayRef<double> kernels,
                            at::ArrayRef<double> spacing, const OptionalTensor& source,
                            const OptionalTensor& destination) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    const Window window(image, radius, kernels, spacing, source, destination);
    window.save(ctx);
    ctx->save_for_backward(window.tensors());
    return window.gather(values);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& u) {
    variable_list result(7);
    if (!u[0].defined()) return result;
    const Window window(ctx, ctx->get_saved_variables(), 0);
    result[0] = window.gather(u[0], true);
    return result;
  }
};

struct GatedCrfLoss : TraceableFunction<GatedCrfLoss> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& p, const at::Tensor& image,
                               int64_t radius, at::ArrayRef<double> kernels,
                               at::ArrayRef<double> spacing, const OptionalTensor& source,
                               const OptionalTensor& destination, std::string_view reduction_name,
                               bool with_gradient) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    const Reduction reduction = parse_reduction(reduction_name);
    auto [loss, gradient] = call_gated_crf_loss(p, image, radius, kernels, spacing, source,
                                                destination, reduction_name, with_gradient);
    const Window window(image, radius, kernels, spacing, source, destination);
    window.save(ctx);
    variable_list saved = window.tensors();
    saved.push_back(p);
    saved.push_back(gradient);
    ctx->save_for_backward(saved);
    ctx->saved_data["reduction"] = int64_t(reduction);
    ctx->saved_data["has_gradient"] = with_gradient && reduction != Reduction::kNone;
    return {loss, gradient};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    variable_list result(9);
    const variable_list saved = ctx->get_saved_variables();
    const Window window(ctx, saved, 0);
    const at::Tensor &p = saved[3], &gradient = saved[4];
    const Reduction reduction = Reduction(ctx->saved_data["reduction"].toInt());
    const bool has_gradient = ctx->saved_data["has_gradient"].toBool();
    const bool one_class = p.sym_size(1) == 1;
    at::Tensor to_p;
    if (g[0].defined() && has_gradient) {
      to_p = g[0] * gradient;
      to_p = select_pixels(window, to_p);
    } else if (g[0].defined()) {
      const at::Tensor wide = p.to(g[0].scalar_type());
      const at::Tensor a = over_destinations(g[0], reduction, window, p);
      to_p = slope(window, reduction == Reduction::kNone ? a.unsqueeze(1) : a,
                   one_class ? 2 * wide - 1 : wide);
    }
    if (g[1].defined() && has_gradient) { // the gradient is linear in p, so the -1 drops out
      const at::Tensor a = over_destinations(at::ones({}, g[1].options()), reduction, window, p);
      const at::Tensor second = slope(window, a, one_class ? 2 * g[1] : g[1]);
      to_p = to_p.defined() ? to_p + second : second;
    }
    if (to_p.defined()) result[0] = to_p.to(p.scalar_type());
    return result;
  }

  // Sets pixels that neither give nor receive to 0, even if the gradient of the loss is infinite.
  static at::Tensor select_pixels(const Window& window, const at::Tensor& x) {
    if (!window.source.has_value() || !window.destination.has_value()) return x;
    const at::Tensor source = over_channels(*window.source, x);
    return at::where(source.logical_or(over_channels(*window.destination, x)), x, 0.0);
  }
};

std::tuple<at::Tensor, at::Tensor> gated_crf_loss_autograd(
    const at::Tensor& p, const at::Tensor& image, int64_t radius, at::ArrayRef<double> kernels,
    at::ArrayRef<double> spacing, const OptionalTensor& source, const OptionalTensor& destination,
    std::string_view reduction, bool with_gradient) {
  if (needs_graph(p) || needs_graph(image)) {
    const variable_list outputs = GatedCrfLoss::apply(p, image, radius, kernels, spacing, source,
                                                      destination, reduction, with_gradient);
    return {outputs[0], outputs[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_gated_crf_loss(p, image, radius, kernels, spacing, source, destination, reduction,
                             with_gradient);
}

at::Tensor gated_crf_gather_autograd(const at::Tensor& values, const at::Tensor& image,
                                     int64_t radius, at::ArrayRef<double> kernels,
                                     at::ArrayRef<double> spacing, const OptionalTensor& source,
                                     const OptionalTensor& destination) {
  if (needs_graph(values) || needs_graph(image)) {
    return GatedCrfGatherFunction::apply(values, image, radius, kernels, spacing, source,
                                         destination);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_gated_crf_gather(values, image, radius, kernels, spacing, source, destination);
}

} // namespace

TORCH_LIBRARY_IMPL(accl_ext, Autograd, m) {
  m.impl("gated_crf_loss", gated_crf_loss_autograd);
  m.impl("_gated_crf_gather", gated_crf_gather_autograd);
}

} // namespace accl
