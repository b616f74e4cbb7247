// Runs csrc/cuda/accl_loss.cu on the cases of a file.
#include "cases.h"

namespace {

using namespace accl;
using cases::Buffer;
using cases::Case;
using cases::Checker;

struct Results {
  Buffer loss, grad[2];
};

Results run_scores(const Case& c, Checker& checker, bool shifted, int repeats) {
  AcclLossArguments a;
  a.dtype = DType(c.integer("dtype"));
  a.groups = int32_t(c.integer("groups"));
  a.elementwise = c.integer("elementwise");
  const int64_t element = cases::size_of(a.dtype);
  const int64_t wide = cases::size_of(cases::accumulation(a.dtype));
  const auto shift = [shifted](int64_t bytes) { return shifted ? bytes : 0; };

  Results results;
  Buffer scores[2];
  for (int32_t g = 0; g < a.groups; ++g) {
    const std::string prefix = "group" + std::to_string(g) + ".";
    const std::vector<double> values = c.array<double>(prefix + "values");
    scores[g] = Buffer(c.fields.at(prefix + "scores"), shift(element));
    a.group[g].scores = scores[g].data();
    a.group[g].count = c.integer(prefix + "count");
    a.group[g].term = ScoreTerm(c.integer(prefix + "term"));
    a.group[g].target = values[0];
    a.group[g].factor = values[1];
    results.grad[g] = Buffer(a.group[g].count * element, shift(element));
  }
  results.loss = Buffer((a.elementwise ? a.group[0].count : 1) * wide, shift(wide));
  a.loss = results.loss.data();
  const Buffer scratch(cuda::accl_loss_scratch(a) * wide, 0), ticket(sizeof(int32_t), 0);
  a.scratch = scratch.data();
  a.ticket = static_cast<int32_t*>(ticket.data());
  for (int repeat = 0; repeat < repeats; ++repeat) { // the second finds a used ticket
    results.loss.poison();
    checker.one_launch("forward", [&] { return cuda::accl_loss_forward(a, nullptr); });
  }

  const Buffer grad_loss(c.fields.at("grad_loss"), shift(wide));
  a.grad_loss = grad_loss.data();
  for (int32_t g = 0; g < a.groups; ++g) a.group[g].grad_scores = results.grad[g].data();
  int64_t vectors = 0; // of the gradients
  for (int32_t g = 0; g < a.groups; ++g) {
    vectors += shifted ? 0 : a.group[g].count / cases::width_of(a.dtype);
  }
  checker.stores_vectors(a.dtype, vectors, a.groups, [&] {
    checker.one_launch("backward", [&] { return cuda::accl_loss_backward(a, nullptr); });
  });
  for (int32_t g = 0; g < a.groups; ++g) {
    checker.same("input", scores[g].bytes(), c.fields.at("group" + std::to_string(g) + ".scores"));
  }
  return results;
}

void run_case(const Case& c, Checker& checker) {
  const DType dtype = DType(c.integer("dtype"));
  cuda_on_cpu::pool().order = cuda_on_cpu::Order::kForward;
  const Results results = run_scores(c, checker, false, 2);
  checker.close("loss", results.loss.data(), cases::accumulation(dtype), c.array<double>("loss"));
  for (int64_t g = 0; g < c.integer("groups"); ++g) {
    const std::string name = "group" + std::to_string(g) + ".grad";
    checker.close(name, results.grad[g].data(), dtype, c.array<double>(name));
  }
  for (auto order : {cuda_on_cpu::Order::kReversed, cuda_on_cpu::Order::kShuffled}) {
    cuda_on_cpu::pool().order = order;
    const Results other = run_scores(c, checker, true, 1);
    checker.same("loss, misaligned, in another order", other.loss.bytes(), results.loss.bytes());
    for (int g = 0; g < 2; ++g) {
      checker.same("gradient, misaligned", other.grad[g].bytes(), results.grad[g].bytes());
    }
  }
}

} // namespace

int main(int argc, char** argv) { return cases::run(argc, argv, run_case); }
