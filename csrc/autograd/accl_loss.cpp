// Derivatives of the losses on patch scores. First: the backward ops. Second: plain ATen, so that
// every further derivative follows by itself.
#include "handles.h"

namespace accl {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

ACCL_OP(accl_loss, "accl_loss")
ACCL_OP(accl_loss_backward, "_accl_loss_backward")
ACCL_OP(accl_discriminator_loss, "accl_discriminator_loss")
ACCL_OP(accl_discriminator_loss_backward, "_accl_discriminator_loss_backward")

// How scores enter a loss: the hinge has three faces.
struct Term {
  Criterion criterion;
  double target;
  double hinge_sign; // +1 fake: relu(1 + d), -1 real: relu(1 - d), 0 generator: -d
  double scale;
  Reduction reduction;
};

double factor(const Term& term, const at::Tensor& scores) {
  // numel is at least 1 here: the gradient of an empty tensor is empty whatever the factor.
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

// The backward op maps (g, d) to slope(d) factor g. Given the gradient u of its result: the
// gradients of g and of d.
std::pair<at::Tensor, at::Tensor> second_derivative(const Term& term, const at::Tensor& u,
                                                    const at::Tensor& g, const at::Tensor& scores) {
  const auto type = accumulation_type(scores.scalar_type());
  const at::Tensor d = scores.to(type);
  const at::Tensor scaled = u.to(type) * (scores.sym_numel() == 0 ? 0.0 : factor(term, scores));
  const at::Tensor to_g = scaled * slope(term, d);
  const at::Tensor to_d = (scaled * curvature(term, d) * g).to(scores.scalar_type());
  return {term.reduction == Reduction::kNone ? to_g : to_g.sum(), to_d};
}

int64_t pack(Criterion criterion, Reduction reduction) {
  return int64_t(criterion) * 8 + int64_t(reduction);
}
Criterion unpack_criterion(int64_t packed) { return Criterion(packed / 8); }
Reduction unpack_reduction(int64_t packed) { return Reduction(packed % 8); }

struct AcclLossBackward : Function<AcclLossBackward> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& grad_loss,
                            const at::Tensor& scores, double target, std::string_view criterion,
                            std::string_view reduction) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({grad_loss, scores});
    ctx->saved_data["target"] = target;
    ctx->saved_data["options"] = pack(parse_criterion(criterion), parse_reduction(reduction));
    return call_accl_loss_backward(grad_loss, scores, target, criterion, reduction);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& u) {
    if (!u[0].defined()) return variable_list(5);
    const variable_list saved = ctx->get_saved_variables();
    const int64_t options = ctx->saved_data["options"].toInt();
    const Term term = {unpack_criterion(options), ctx->saved_data["target"].toDouble(), 0, 1,
                       unpack_reduction(options)};
    auto [to_g, to_d] = second_derivative(term, u[0], saved[0], saved[1]);
    return {to_g, to_d, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct AcclLoss : Function<AcclLoss> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& scores, double target,
                            std::string_view criterion, std::string_view reduction) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    at::Tensor loss = call_accl_loss(scores, target, criterion, reduction);
    ctx->save_for_backward({scores});
    ctx->saved_data["target"] = target;
    ctx->saved_data["options"] = pack(parse_criterion(criterion), parse_reduction(reduction));
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    if (!g[0].defined()) return variable_list(4);
    const variable_list saved = ctx->get_saved_variables();
    const int64_t options = ctx->saved_data["options"].toInt();
    return {
        call_accl_loss_backward(g[0], saved[0], ctx->saved_data["target"].toDouble(),
                                name(unpack_criterion(options)), name(unpack_reduction(options))),
        at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct DiscriminatorOptions {
  double fake_target;
  double real_target;
  double scale;
  Criterion criterion;
  Reduction reduction;

  void save(AutogradContext* ctx) const {
    ctx->saved_data["numbers"] = c10::List<double>({fake_target, real_target, scale});
    ctx->saved_data["options"] = pack(criterion, reduction);
  }
  static DiscriminatorOptions load(AutogradContext* ctx) {
    const auto numbers = ctx->saved_data["numbers"].toDoubleVector();
    const int64_t options = ctx->saved_data["options"].toInt();
    return {numbers[0], numbers[1], numbers[2], unpack_criterion(options),
            unpack_reduction(options)};
  }
};

struct DiscriminatorLossBackward : Function<DiscriminatorLossBackward> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& grad_loss,
                               const at::Tensor& fake, const at::Tensor& real, double fake_target,
                               double real_target, std::string_view criterion, double scale,
                               std::string_view reduction) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({grad_loss, fake, real});
    DiscriminatorOptions{fake_target, real_target, scale, parse_criterion(criterion),
                         parse_reduction(reduction)}
        .save(ctx);
    auto [grad_fake, grad_real] = call_accl_discriminator_loss_backward(
        grad_loss, fake, real, fake_target, real_target, criterion, scale, reduction);
    return {grad_fake, grad_real};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& u) {
    const variable_list saved = ctx->get_saved_variables();
    const DiscriminatorOptions o = DiscriminatorOptions::load(ctx);
    variable_list result(8);
    for (int i = 0; i < 2; ++i) {
      if (!u[i].defined()) continue;
      const Term term = {o.criterion, i == 0 ? o.fake_target : o.real_target, i == 0 ? 1.0 : -1.0,
                         o.scale, o.reduction};
      auto [to_g, to_d] = second_derivative(term, u[i], saved[0], saved[1 + i]);
      result[0] = result[0].defined() ? result[0] + to_g : to_g;
      result[1 + i] = to_d;
    }
    return result;
  }
};

struct DiscriminatorLoss : Function<DiscriminatorLoss> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& fake, const at::Tensor& real,
                            double fake_target, double real_target, std::string_view criterion,
                            double scale, std::string_view reduction) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    ctx->set_materialize_grads(false);
    at::Tensor loss = call_accl_discriminator_loss(fake, real, fake_target, real_target, criterion,
                                                   scale, reduction);
    ctx->save_for_backward({fake, real});
    DiscriminatorOptions{fake_target, real_target, scale, parse_criterion(criterion),
                         parse_reduction(reduction)}
        .save(ctx);
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    variable_list result(7);
    if (!g[0].defined()) return result;
    const variable_list saved = ctx->get_saved_variables();
    const DiscriminatorOptions o = DiscriminatorOptions::load(ctx);
    std::tie(result[0], result[1]) = call_accl_discriminator_loss_backward(
        g[0], saved[0], saved[1], o.fake_target, o.real_target, name(o.criterion), o.scale,
        name(o.reduction));
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
                                       double target, std::string_view criterion,
                                       std::string_view reduction) {
  if (needs_graph(grad_loss) || needs_graph(scores)) {
    return AcclLossBackward::apply(grad_loss, scores, target, criterion, reduction);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_accl_loss_backward(grad_loss, scores, target, criterion, reduction);
}

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
    double real_target, std::string_view criterion, double scale, std::string_view reduction) {
  if (needs_graph(grad_loss) || needs_graph(fake) || needs_graph(real)) {
    const variable_list grads = DiscriminatorLossBackward::apply(
        grad_loss, fake, real, fake_target, real_target, criterion, scale, reduction);
    return {grads[0], grads[1]};
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_accl_discriminator_loss_backward(grad_loss, fake, real, fake_target, real_target,
                                               criterion, scale, reduction);
}

} // namespace

TORCH_LIBRARY_IMPL(accl_ext, Autograd, m) {
  m.impl("accl_loss", accl_loss_autograd);
  m.impl("_accl_loss_backward", accl_loss_backward_autograd);
  m.impl("accl_discriminator_loss", accl_discriminator_loss_autograd);
  m.impl("_accl_discriminator_loss_backward", accl_discriminator_loss_backward_autograd);
}

} // namespace accl
