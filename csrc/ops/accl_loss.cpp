// accl_loss and accl_discriminator_loss: check, allocate, launch.
#include "checks.h"
#include "launch.h"
#include "ops.h"

namespace accl {
namespace {

enum class Side { kGenerator, kFake, kReal };

ScoreTerm term_of(Criterion criterion, Side side) {
  switch (criterion) {
    case Criterion::kLsgan: return ScoreTerm::kLeastSquares;
    case Criterion::kVanilla: return ScoreTerm::kVanilla;
    case Criterion::kHinge: break;
  }
  switch (side) {
    case Side::kGenerator: return ScoreTerm::kHingeGenerator;
    case Side::kFake: return ScoreTerm::kHingeFake;
    case Side::kReal: break;
  }
  return ScoreTerm::kHingeReal;
}

ScoreGroup group_of(const at::Tensor& scores, ScoreTerm term, double target, double scale,
                    Reduction reduction) {
  ScoreGroup group;
  group.scores = scores.const_data_ptr();
  group.count = scores.numel();
  group.term = term;
  group.target = target;
  group.factor = reduction == Reduction::kMean && group.count > 0 ? scale / group.count : scale;
  return group;
}

at::Tensor allocate_loss(const at::Tensor& scores, Reduction reduction) {
  const auto options = scores.options().dtype(accumulation_type(scores.scalar_type()));
  if (reduction == Reduction::kNone) return at::empty_symint(scores.sym_sizes(), options);
  return at::empty({}, options);
}

at::Tensor allocate_like(const at::Tensor& x) {
  return at::empty_symint(x.sym_sizes(), x.options());
}

void run_forward(AcclLossArguments& arguments, const at::Tensor& scores, const at::Tensor& loss) {
  arguments.loss = loss.data_ptr();
  if (!scores.is_cuda()) return cpu::accl_loss_forward(arguments);
  const at::Tensor scratch = cuda_scratch(cuda::accl_loss_scratch(arguments), loss.scalar_type(),
                                          scores, &arguments.scratch, &arguments.ticket);
  launch_cuda(cuda::accl_loss_forward, arguments, scores);
}

void run_backward(const AcclLossArguments& arguments, const at::Tensor& scores) {
  if (!scores.is_cuda()) return cpu::accl_loss_backward(arguments);
  launch_cuda(cuda::accl_loss_backward, arguments, scores);
}

void check_score_gradient(const at::Tensor& grad_loss, const at::Tensor& scores,
                          Reduction reduction) {
  const c10::SymIntArrayRef shape =
      reduction == Reduction::kNone ? scores.sym_sizes() : c10::SymIntArrayRef();
  check_gradient(grad_loss, "grad_loss", shape, accumulation_type(scores.scalar_type()), scores);
}

} // namespace

at::Tensor accl_loss(const at::Tensor& scores, double target, std::string_view criterion,
                     std::string_view reduction_name) {
  check_scores(scores, "scores");
  const ScoreTerm term = term_of(parse_criterion(criterion), Side::kGenerator);
  const Reduction reduction = parse_reduction(reduction_name);
  at::Tensor loss = allocate_loss(scores, reduction);
  if (scores.is_meta()) return loss;
  if (scores.numel() == 0) return loss.zero_();
  const at::Tensor dense = scores.contiguous();
  AcclLossArguments arguments;
  arguments.dtype = kernel_dtype(scores.scalar_type());
  arguments.elementwise = reduction == Reduction::kNone;
  arguments.group[0] = group_of(dense, term, target, 1, reduction);
  run_forward(arguments, dense, loss);
  return loss;
}

at::Tensor accl_loss_backward(const at::Tensor& grad_loss, const at::Tensor& scores, double target,
                              int64_t criterion, int64_t reduction_value) {
  check_scores(scores, "scores");
  const ScoreTerm term = term_of(criterion_of(criterion), Side::kGenerator);
  const Reduction reduction = reduction_of(reduction_value);
  check_score_gradient(grad_loss, scores, reduction);
  at::Tensor grad_scores = allocate_like(scores);
  if (scores.is_meta()) return grad_scores;
  if (scores.numel() == 0) return grad_scores;
  const at::Tensor dense = scores.contiguous(), dense_grad = grad_loss.contiguous();
  AcclLossArguments arguments;
  arguments.dtype = kernel_dtype(scores.scalar_type());
  arguments.elementwise = reduction == Reduction::kNone;
  arguments.group[0] = group_of(dense, term, target, 1, reduction);
  arguments.group[0].grad_scores = grad_scores.data_ptr();
  arguments.grad_loss = dense_grad.const_data_ptr();
  run_backward(arguments, dense);
  return grad_scores;
}

at::Tensor accl_discriminator_loss(const at::Tensor& fake_scores, const at::Tensor& real_scores,
                                   double fake_target, double real_target,
                                   std::string_view criterion_name, double scale,
                                   std::string_view reduction_name) {
  check_scores(fake_scores, "fake_scores");
  check_scores(real_scores, "real_scores");
  const Criterion criterion = parse_criterion(criterion_name);
  const Reduction reduction = parse_reduction(reduction_name);
  check_score_pair(fake_scores, real_scores, reduction);
  at::Tensor loss = allocate_loss(fake_scores, reduction);
  if (fake_scores.is_meta()) return loss;
  if (fake_scores.numel() + real_scores.numel() == 0) return loss.zero_();
  const at::Tensor fake = fake_scores.contiguous(), real = real_scores.contiguous();
  AcclLossArguments arguments;
  arguments.dtype = kernel_dtype(fake.scalar_type());
  arguments.groups = 2;
  arguments.elementwise = reduction == Reduction::kNone;
  arguments.group[0] =
      group_of(fake, term_of(criterion, Side::kFake), fake_target, scale, reduction);
  arguments.group[1] =
      group_of(real, term_of(criterion, Side::kReal), real_target, scale, reduction);
  run_forward(arguments, fake, loss);
  return loss;
}

std::tuple<at::Tensor, at::Tensor> accl_discriminator_loss_backward(
    const at::Tensor& grad_loss, const at::Tensor& fake_scores, const at::Tensor& real_scores,
    double fake_target, double real_target, int64_t criterion_value, double scale,
    int64_t reduction_value, std::array<bool, 2> output_mask) {
  check_scores(fake_scores, "fake_scores");
  check_scores(real_scores, "real_scores");
  const Criterion criterion = criterion_of(criterion_value);
  const Reduction reduction = reduction_of(reduction_value);
  check_score_pair(fake_scores, real_scores, reduction);
  check_score_gradient(grad_loss, fake_scores, reduction);
  const at::Tensor grad_fake = output_mask[0] ? allocate_like(fake_scores) : at::Tensor();
  const at::Tensor grad_real = output_mask[1] ? allocate_like(real_scores) : at::Tensor();
  if (fake_scores.is_meta()) return {grad_fake, grad_real};
  const at::Tensor fake = fake_scores.contiguous(), real = real_scores.contiguous();
  const at::Tensor dense_grad = grad_loss.contiguous();
  AcclLossArguments arguments;
  arguments.dtype = kernel_dtype(fake.scalar_type());
  arguments.groups = 0;
  arguments.elementwise = reduction == Reduction::kNone;
  arguments.grad_loss = dense_grad.const_data_ptr();
  int64_t elements = 0;
  const auto add = [&](const at::Tensor& grad, const at::Tensor& scores, Side side, double target) {
    if (!grad.defined()) return;
    ScoreGroup& group = arguments.group[arguments.groups++];
    group = group_of(scores, term_of(criterion, side), target, scale, reduction);
    group.grad_scores = grad.data_ptr();
    elements += group.count;
  };
  add(grad_fake, fake, Side::kFake, fake_target);
  add(grad_real, real, Side::kReal, real_target);
  if (elements > 0) run_backward(arguments, fake);
  return {grad_fake, grad_real};
}

} // namespace accl
