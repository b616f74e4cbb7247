// Runs csrc/cuda/gated_crf_loss.cu on the cases of a file.
#include "cases.h"

namespace {

using namespace accl;
using cases::Buffer;
using cases::Case;
using cases::Checker;

// Tensors of a case that keep the memory which the arguments point into.
struct Inputs {
  Buffer values, image, source, destination;

  Inputs(const Case& c, bool shifted) {
    const auto shift = [&](const char* dtype) {
      return shifted ? cases::size_of(DType(c.integer(dtype))) : 0;
    };
    values = Buffer(c.fields.at("values"), shift("dtype"));
    image = Buffer(c.fields.at("image"), shift("image_dtype"));
    if (c.has("source")) source = Buffer(c.fields.at("source"), shifted);
    if (c.has("destination")) destination = Buffer(c.fields.at("destination"), shifted);
  }

  void fill(const Case& c, GatedCrfArguments& a) const {
    a.images = c.integer("shape", 0);
    a.classes = c.integer("shape", 1);
    a.channels = c.integer("shape", 2);
    a.pixels = 1;
    const std::vector<double> spacing = c.array<double>("spacing");
    for (size_t axis = 0; axis < 3; ++axis) {
      a.size[axis] = c.integer("size", axis);
      a.pixels *= a.size[axis];
      a.spacing[axis] = spacing[axis];
    }
    a.radius = c.integer("radius");
    const std::vector<double> kernels = c.array<double>("kernels");
    a.kernels = int32_t(kernels.size() / 3);
    for (int32_t m = 0; m < a.kernels; ++m) {
      a.kernel[m] = {kernels[3 * m], kernels[3 * m + 1], kernels[3 * m + 2]};
    }
    a.dtype = DType(c.integer("dtype"));
    a.image_dtype = DType(c.integer("image_dtype"));
    a.values = values.data();
    a.image = image.data();
    a.source = static_cast<const bool*>(source.data());
    a.destination = static_cast<const bool*>(destination.data());
  }
};

struct Results {
  Buffer loss, gradient, sums;
};

Results run_pairs(const Case& c, Checker& checker, bool shifted, int repeats) {
  const Inputs in(c, shifted);
  GatedCrfForward a;
  in.fill(c, a);
  a.reduction = Reduction(c.integer("reduction"));
  const int64_t wide = cases::size_of(cases::accumulation(a.dtype));
  const int64_t shift = shifted ? wide : 0;
  const bool map = a.reduction == Reduction::kNone;

  Results results;
  results.loss = Buffer((map ? a.images * a.pixels : 1) * wide, shift);
  a.loss = results.loss.data();
  if (c.has("gradient")) {
    results.gradient = Buffer(a.images * a.classes * a.pixels * wide, shift);
    a.gradient = results.gradient.data();
  }
  const Buffer scratch(cuda::gated_crf_scratch(a) * wide, 0), ticket(sizeof(int32_t), 0);
  a.scratch = scratch.data();
  a.ticket = static_cast<int32_t*>(ticket.data());
  // A mean over destinations counts them first.
  const bool counts = a.reduction == Reduction::kMean && a.destination;
  for (int repeat = 0; repeat < repeats; ++repeat) { // the second finds a used ticket
    results.loss.poison();
    results.gradient.poison();
    checker.launches(counts ? 2 : 1, "forward",
                     [&] { return cuda::gated_crf_forward(a, nullptr); });
  }

  if (c.has("sums")) {
    GatedCrfGather g;
    in.fill(c, g);
    results.sums = Buffer(a.images * a.classes * a.pixels * wide, shift);
    g.sums = results.sums.data();
    checker.launches(1, "gather", [&] { return cuda::gated_crf_gather(g, nullptr); });
  }
  checker.same("values", in.values.bytes(), c.fields.at("values"));
  checker.same("image", in.image.bytes(), c.fields.at("image"));
  return results;
}

void run_case(const Case& c, Checker& checker) {
  const DType dtype = cases::accumulation(DType(c.integer("dtype")));
  cuda_on_cpu::pool().order = cuda_on_cpu::Order::kForward;
  const Results results = run_pairs(c, checker, false, 2);
  checker.close("loss", results.loss.data(), dtype, c.array<double>("loss"));
  if (results.gradient) {
    checker.close("gradient", results.gradient.data(), dtype, c.array<double>("gradient"));
  }
  if (results.sums) checker.close("sums", results.sums.data(), dtype, c.array<double>("sums"));
  for (auto order : {cuda_on_cpu::Order::kReversed, cuda_on_cpu::Order::kShuffled}) {
    cuda_on_cpu::pool().order = order;
    const Results other = run_pairs(c, checker, true, 1);
    checker.same("loss, misaligned, in another order", other.loss.bytes(), results.loss.bytes());
    checker.same("gradient, misaligned", other.gradient.bytes(), results.gradient.bytes());
    checker.same("sums, misaligned", other.sums.bytes(), results.sums.bytes());
  }
}

} // namespace

int main(int argc, char** argv) { return cases::run(argc, argv, run_case); }
