// The operators from C++, without Python: values worked out by hand, first and second derivatives,
// and the same bits for any number of threads.
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "../../csrc/include/accl_ext.h"
#include "../../csrc/ops/cuda_advice.h"

namespace {

int failures = 0;

void expect(bool condition, const char* what, int line) {
  if (condition) return;
  std::fprintf(stderr, "test_ops.cpp:%d: %s\n", line, what);
  ++failures;
}
#define EXPECT(condition) expect((condition), #condition, __LINE__)

bool near(const at::Tensor& got, double wanted) {
  return std::abs(got.item<double>() - wanted) <= 1e-6 * std::max(1.0, std::abs(wanted));
}

c10::OperatorHandle find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
}

at::Tensor accl_loss(const at::Tensor& scores, double target) {
  static const auto op =
      find("accl_ext::accl_loss")
          .typed<at::Tensor(const at::Tensor&, double, std::string_view, std::string_view)>();
  return op.call(scores, target, "lsgan", "mean");
}

using T = at::Tensor;
using Head = std::tuple<T, T, T, T, T, T, T, T>;
Head segmentation_head(const at::Tensor& logits, const at::Tensor& labels,
                       const at::Tensor& bounds) {
  static const auto op =
      find("accl_ext::segmentation_head")
          .typed<Head(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                      int64_t, const std::optional<at::Tensor>&, const std::optional<at::Tensor>&,
                      double, std::string_view, at::ArrayRef<double>,
                      const std::optional<at::Tensor>&)>();
  // Dice, as accl_ext::OverlapOptions gives it.
  return op.call(logits, labels, bounds, 255, std::nullopt, std::nullopt, 0.0, "none",
                 accl_ext::OverlapOptions().numbers(), std::nullopt);
}

// Eq. (5): mean of (d - 1)^2 over {0, 1, 3} is (1 + 0 + 4) / 3; its gradient 2 (d - 1) / 3 and its
// second derivative 2 / 3.
void test_accl_loss() {
  const at::Tensor scores = torch::tensor({0.0, 1.0, 3.0}, at::kDouble).requires_grad_();
  const at::Tensor loss = accl_loss(scores, 1.0);
  EXPECT(near(loss, 5.0 / 3));
  const at::Tensor grad = torch::autograd::grad({loss}, {scores}, {}, true, true)[0];
  EXPECT(near(grad[0], -2.0 / 3) && near(grad[1], 0) && near(grad[2], 4.0 / 3));
  const at::Tensor second = torch::autograd::grad({grad.sum()}, {scores})[0];
  EXPECT(near(second[0], 2.0 / 3) && near(second[2], 2.0 / 3));
}

// Four logits of 0: p = 1/2 everywhere, V = 2. One labelled pixel costs log 2. V is 1 above b = 1.
void test_segmentation_head() {
  const at::Tensor logits = torch::zeros({1, 1, 2, 2}, at::kDouble).requires_grad_();
  const at::Tensor labels = torch::tensor({1, 255, 255, 255}, at::kByte).view({1, 2, 2});
  const at::Tensor bounds = torch::tensor({0.0, 1.0}, at::kDouble);
  const Head head = segmentation_head(logits, labels, bounds);
  EXPECT(near(std::get<0>(head).sum(), 2));
  EXPECT(near(std::get<1>(head), std::log(2.0)));
  EXPECT(near(std::get<2>(head), 1));
  EXPECT(near(std::get<3>(head).sum(), 2));
  // Dice of one pixel labelled 1 with p = 1/2: 1 - 2 (1/2) / (1/2 + 1) = 1/3.
  EXPECT(near(std::get<6>(head), 1.0 / 3));
  EXPECT(near(accl_ext::partial_overlap_loss(logits, labels), 1.0 / 3));
  // d ce / d z = p - 1 = -1/2 at the labelled pixel; d penalty / d z = 2 (V - b) p (1 - p) = 1/2.
  const at::Tensor grad =
      torch::autograd::grad({std::get<1>(head) + std::get<2>(head)}, {logits})[0].flatten();
  EXPECT(near(grad[0], 0) && near(grad[1], 0.5) && near(grad[3], 0.5));
}

// Sums go chunk by chunk in a fixed order, whoever computes the chunks.
void test_threads_change_no_bit() {
  torch::manual_seed(0);
  const at::Tensor logits = torch::randn({2, 1, 300, 301});
  const at::Tensor labels = torch::randint(0, 2, {2, 300, 301}, at::kByte);
  const at::Tensor bounds = torch::tensor({10.0F, 20.0F});
  at::set_num_threads(1);
  const Head one = segmentation_head(logits, labels, bounds);
  at::set_num_threads(3);
  const Head three = segmentation_head(logits, labels, bounds);
  EXPECT(at::equal(std::get<0>(one), std::get<0>(three)));
  EXPECT(at::equal(std::get<1>(one), std::get<1>(three)));
  EXPECT(at::equal(std::get<2>(one), std::get<2>(three)));
  EXPECT(at::equal(std::get<3>(one), std::get<3>(three)));
  EXPECT(at::equal(std::get<6>(one), std::get<6>(three)));
}

void test_cuda_advice() {
  const auto advises = [](int error, const char* words) {
    return std::string(accl::cuda_advice(error)).find(words) != std::string::npos;
  };
  EXPECT(advises(35, "build_info()['cuda_driver']") && advises(35, "torch.version.cuda"));
  EXPECT(advises(209, "TORCH_CUDA_ARCH_LIST") && advises(209, "'cuda_architectures'"));
  EXPECT(advises(222, "newer driver"));
  for (const int sticky : {700, 702, 710, 714, 715, 716, 717, 718, 719}) {
    EXPECT(advises(sticky, "CUDA_LAUNCH_BLOCKING=1") && advises(sticky, "start it anew"));
  }
  for (const int other : {0, 1, 2, 701, -1}) EXPECT(*accl::cuda_advice(other) == 0);
}

} // namespace

int main() {
  test_cuda_advice();
  test_accl_loss();
  test_segmentation_head();
  test_threads_change_no_bit();
  if (failures == 0) std::puts("test_ops: all passed");
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
