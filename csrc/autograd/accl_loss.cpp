// Derivatives of the losses on patch scores. The first derivatives are the backward ops. The second
// ones are written in ATen, so that autograd derives every further one.
#include "handles.h"

namespace accl {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

ACCL_OP(accl_loss, decltype(accl_loss), "accl_loss")
ACCL_OP(accl_loss_backward, decltype(accl_loss_backward), "_accl_loss_backward")
ACCL_OP(accl_discriminator_loss, decltype(accl_discriminator_loss), "accl_discriminator_loss")
ACCL_OP(accl_discriminator_loss_backward, decltype(accl_discriminator_loss_backward),
        "_accl_discriminator_loss_backward")

// How the scores of one group enter a loss.
struct Term {
  Criterion criterion;
  double target;
  double hinge_sign; // 1 for fake, relu(1 + d); -1 for real, relu(1 - d); 0 for generator, -d
  double scale;
  Reduction reduction;
};

double factor(const Term& term, const at::Tensor& scores) {
  // Dividing by a count of 0 does no harm: the gradient of an empty tensor is empty.
  return term.reduction == Reduction::kMean
             ? term.scale / double(scores.sym_numel().guard_int(__FILE__, __LINE__))
             : term.scale;
}

at::Tensor slope(const Term& term, const at::Tensor& d) {
  switch (term.criterion) {
    case Criterion::kLsgan: return 2 * (d - term.target);
    case Criterion::kVanilla: return (1 - term.target) * d.sigmoid() - term.target * (-d).sigmoid();
    case Criterion::kHinge: break;
  }
  if (term.hinge_sign == 0) return at::full_like(d, -1);
  return at::where(term.hinge_sign * d <= -1, 0.0, term.hinge_sign).to(d.scalar_type());
}

at::Tensor curvature(const Term& term, const at::Tensor& d) {
  switch (term.criterion) {
    case Criterion::kLsgan: return at::full_like(d, 2);
    case Criterion::kVanilla: return d.sigmoid() * (-d).sigmoid();
    case Criterion::kHinge: break;
  }
  return at::zeros_like(d);
}

// The backward op maps (g, d) to slope(d) factor g. This returns the
// gradients of g and of d from u, the gradient of its result.
std::pair<at::Tensor, at::Tensor> second_derivative(const Term& term, const at::Tensor& u,
                                                    const at::Tensor& g, const at::Tensor& scores) {
  const auto type = accumulation_type(scores.scalar_type());
  const at::Tensor d = scores.to(type);
  const at::Tensor scaled = u.to(type) * (scores.sym_numel() == 0 ? 0.0 : factor(term, scores));
  const at::Tensor to_g = scaled * slope(term, d);
  const at::Tensor to_d = (scaled * curvature(term, d) * g).to(scores.scalar_type());
  return {term.reduction == Reduction::kNone ? to_g : to_g.sum(), to_d};
}

// ---------------------------------------------------------------------------------------------
// accl_loss

struct LossOptions {
  double target;
  int64_t criterion, reduction;

  void save(AutogradContext* ctx) const {
    ctx->saved_data["target"] = target;
    ctx->saved_data["criterion"] = criterion;
    ctx->saved_data["reduction"] = reduction;
  }
  static LossOptions load(AutogradContext* ctx) {
    return {ctx->saved_data["target"].toDouble(), ctx->saved_data["criterion"].toInt(),
            ctx->saved_data["reduction"].toInt()};
  }
};

struct AcclLossBackward : TraceableFunction<AcclLossBackward> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& grad_loss,
                            const at::Tensor& scores, const LossOptions& o) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({grad_loss, scores});
    o.save(ctx);
    return call_accl_loss_backward(grad_loss, scores, o.target, o.criterion, o.reduction);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& u) {
    variable_list result(3);
    if (!u[0].defined()) return result;
    const variable_list saved = ctx->get_saved_variables();
    const LossOptions o = LossOptions::load(ctx);
    const Term term = {Criterion(o.criterion), o.target, 0, 1, Reduction(o.reduction)};
    std::tie(result[0], result[1]) = second_derivative(term, u[0], saved[0], saved[1]);
    return result;
  }
};

struct AcclLoss : TraceableFunction<AcclLoss> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& scores, double target,
                            std::string_view criterion, std::string_view reduction) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    at::Tensor loss = call_accl_loss(scores, target, criterion, reduction);
    ctx->save_for_backward({scores});
    LossOptions{target, int64_t(parse_criterion(criterion)), int64_t(parse_reduction(reduction))}
        .save(ctx);
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    variable_list result(4);
    if (!g[0].defined()) return result;
    const LossOptions o = LossOptions::load(ctx);
    result[0] = call_accl_loss_backward(g[0], ctx->get_saved_variables()[0], o.target, o.criterion,
                                        o.reduction);
    return result;
  }
};

at::Tensor accl_loss_autograd(const at::Tensor& scores, double target, std::string_view criterion,
                              std::string_view reduction) {
  if (needs_graph(scores)) return AcclLoss::apply(scores, target, criterion, reduction);
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_accl_loss(scores, target, criterion, reduction);
}

at::Tensor accl_loss_backward_autograd(const at::Tensor& grad_loss, const at::Tensor& scores,
                                       double target, int64_t criterion, int64_t reduction) {
  if (needs_graph(grad_loss) || needs_graph(scores)) {
    return AcclLossBackward::apply(grad_loss, scores, LossOptions{target, criterion, reduction});
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_accl_loss_backward(grad_loss, scores, target, criterion, reduction);
}

// ---------------------------------------------------------------------------------------------
// accl_discriminator_loss

struct DiscriminatorOptions {
  double target[2]; // of the fake and of the real scores
  double scale;
  int64_t criterion, reduction;

  void save(AutogradContext* ctx) const {
    ctx->saved_data["fake_target"] = target[0];
    ctx->saved_data["real_target"] = target[1];
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["criterion"] = criterion;
    ctx->saved_data["reduction"] = reduction;
  }
  static DiscriminatorOptions load(AutogradContext* ctx) {
    return {{ctx->saved_data["fake_target"].toDouble(), ctx->saved_data["real_target"].toDouble()},
            ctx->saved_data["scale"].toDouble(),
            ctx->saved_data["criterion"].toInt(),
            ctx->saved_data["reduction"].toInt()};
  }
};

// Gradients of the fake and of the real scores. One that is not wanted is an undefined tensor.
std::array<at::Tensor, 2> dispatch_backward(const at::Tensor& grad_loss, const at::Tensor& fake,
                                            const at::Tensor& real, const DiscriminatorOptions& o,
                                            std::array<bool, 2> wanted) {
  auto [grad_fake, grad_real] = call_accl_discriminator_loss_backward(
      grad_loss, fake, real, o.target[0], o.target[1], o.criterion, o.scale, o.reduction, wanted);
  return {grad_fake, grad_real};
}

struct DiscriminatorLossBackward : TraceableFunction<DiscriminatorLossBackward> {
  // Returns only the gradients that are wanted.
  static variable_list forward(AutogradContext* ctx, const at::Tensor& grad_loss,
                               const at::Tensor& fake, const at::Tensor& real,
                               const DiscriminatorOptions& o, std::array<bool, 2> wanted) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({grad_loss, fake, real});
    o.save(ctx);
    ctx->saved_data["fake"] = wanted[0];
    ctx->saved_data["real"] = wanted[1];
    variable_list result;
    for (const at::Tensor& grad : dispatch_backward(grad_loss, fake, real, o, wanted)) {
      if (grad.defined()) result.push_back(grad);
    }
    return result;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& u) {
    const variable_list saved = ctx->get_saved_variables();
    const DiscriminatorOptions o = DiscriminatorOptions::load(ctx);
    const bool wanted[2] = {ctx->saved_data["fake"].toBool(), ctx->saved_data["real"].toBool()};
    variable_list result(5);
    size_t came = 0;
    for (int i = 0; i < 2; ++i) {
      if (!wanted[i] || !u[came++].defined()) continue;
      const Term term = {Criterion(o.criterion), o.target[i], i == 0 ? 1.0 : -1.0, o.scale,
                         Reduction(o.reduction)};
      auto [to_g, to_d] = second_derivative(term, u[came - 1], saved[0], saved[1 + i]);
      result[0] = result[0].defined() ? result[0] + to_g : to_g;
      result[1 + i] = to_d;
    }
    return result;
  }
};

struct DiscriminatorLoss : TraceableFunction<DiscriminatorLoss> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& fake, const at::Tensor& real,
                            double fake_target, double real_target, std::string_view criterion,
                            double scale, std::string_view reduction) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    at::Tensor loss = call_accl_discriminator_loss(fake, real, fake_target, real_target, criterion,
                                                   scale, reduction);
    ctx->save_for_backward({fake, real});
    DiscriminatorOptions{{fake_target, real_target},
                         scale,
                         int64_t(parse_criterion(criterion)),
                         int64_t(parse_reduction(reduction))}
        .save(ctx);
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    variable_list result(7);
    if (!g[0].defined()) return result;
    const variable_list saved = ctx->get_saved_variables();
    const std::array<bool, 2> wanted = {ctx->needs_input_grad(0), ctx->needs_input_grad(1)};
    const auto grads =
        dispatch_backward(g[0], saved[0], saved[1], DiscriminatorOptions::load(ctx), wanted);
    std::copy(grads.begin(), grads.end(), result.begin());
    return result;
  }
};

at::Tensor accl_discriminator_loss_autograd(const at::Tensor& fake, const at::Tensor& real,
                                            double fake_target, double real_target,
                                            std::string_view criterion, double scale,
                                            std::string_view reduction) {
  if (needs_graph(fake) || needs_graph(real)) {
    return DiscriminatorLoss::apply(fake, real, fake_target, real_target, criterion, scale,
                                    reduction);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_accl_discriminator_loss(fake, real, fake_target, real_target, criterion, scale,
                                      reduction);
}

std::tuple<at::Tensor, at::Tensor> accl_discriminator_loss_backward_autograd(
    const at::Tensor& grad_loss, const at::Tensor& fake, const at::Tensor& real, double fake_target,
    double real_target, int64_t criterion, double scale, int64_t reduction,
    std::array<bool, 2> wanted) {
  const DiscriminatorOptions o = {{fake_target, real_target}, scale, criterion, reduction};
  if (needs_graph(grad_loss) || needs_graph(fake) || needs_graph(real)) {
    const variable_list came = DiscriminatorLossBackward::apply(grad_loss, fake, real, o, wanted);
    return {wanted[0] ? came.front() : at::Tensor(), wanted[1] ? came.back() : at::Tensor()};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto grads = dispatch_backward(grad_loss, fake, real, o, wanted);
  return {grads[0], grads[1]};
}

} // namespace

TORCH_LIBRARY_IMPL(accl_ext, Autograd, m) {
  m.impl("accl_loss", accl_loss_autograd);
  m.impl("_accl_loss_backward", accl_loss_backward_autograd);
  m.impl("accl_discriminator_loss", accl_discriminator_loss_autograd);
  m.impl("_accl_discriminator_loss_backward", accl_discriminator_loss_backward_autograd);
}

} // namespace accl
