// Runs csrc/cuda/segmentation_head_forward.cu and segmentation_head_backward.cu on the cases of a
// file.
#include "cases.h"

namespace {

using namespace accl;
using cases::Buffer;
using cases::Case;
using cases::Checker;

// The arrays of a case in memory, with the arguments that point to them.
struct Run {
  SegmentationHeadForward forward;
  SegmentationHeadBackward backward;
  int64_t element, wide, label_size = 0;
  std::map<std::string, Buffer> inputs;
  Buffer probabilities, ce, ce_scale, penalty, penalty_scale, soft_size, grad_logits;

  void* input(const Case& c, const std::string& name, int64_t shift) {
    if (!c.has(name)) return nullptr;
    inputs[name] = Buffer(c.fields.at(name), shift);
    return inputs[name].data();
  }

  Run(const Case& c, bool shifted) {
    SegmentationHeadArguments a;
    a.images = c.integer("shape", 0);
    a.classes = c.integer("shape", 1);
    a.pixels = c.integer("shape", 2);
    a.dtype = DType(c.integer("dtype"));
    element = cases::size_of(a.dtype);
    wide = cases::size_of(cases::accumulation(a.dtype));
    const int64_t shift = shifted ? element : 0, wide_shift = shifted ? wide : 0;
    const int64_t pairs = a.images * a.classes;
    a.logits = input(c, "logits", shift);
    if (c.has("labels")) {
      label_size = int64_t(c.fields.at("labels").size()) / (a.images * a.pixels);
      a.labels = input(c, "labels", shifted ? label_size : 0);
      a.label_type = LabelType(c.integer("label_type"));
      a.ignore_index = c.integer("ignore_index");
      a.ce_reduction = Reduction(c.integer("ce_reduction"));
      a.weight = input(c, "weight", wide_shift);
      a.pixel_weight = input(c, "pixel_weight", wide_shift);
      a.label_smoothing = c.array<double>("label_smoothing").at(0);
      ce =
          Buffer((a.ce_reduction == Reduction::kNone ? a.images * a.pixels : 1) * wide, wide_shift);
      ce_scale = Buffer(a.images * wide, wide_shift);
    }
    if (c.has("bounds")) {
      a.bounds = input(c, "bounds", wide_shift);
      for (int i = 0; i < 3; ++i) a.bounds_stride[i] = c.integer("bounds_stride", i);
      a.normalization = Normalization(c.integer("normalization"));
      a.size_reduction = Reduction(c.integer("size_reduction"));
    }
    if (c.has("penalty")) {
      penalty = Buffer((a.size_reduction == Reduction::kNone ? pairs : 1) * wide, wide_shift);
      penalty_scale = Buffer(wide, wide_shift);
    }
    if (c.has("probabilities")) probabilities = Buffer(pairs * a.pixels * element, shift);
    if (c.has("soft_size")) soft_size = Buffer(pairs * wide, wide_shift);
    grad_logits = Buffer(pairs * a.pixels * element, shift);

    static_cast<SegmentationHeadArguments&>(forward) =
        static_cast<SegmentationHeadArguments&>(backward) = a;
    forward.probabilities = probabilities.data();
    forward.ce = ce.data();
    forward.ce_scale = ce_scale.data();
    forward.penalty = penalty.data();
    forward.penalty_scale = penalty_scale.data();
    forward.soft_size = soft_size.data();
    backward.soft_size = soft_size.data();
    backward.ce_scale = ce_scale.data();
    backward.penalty_scale = penalty_scale.data();
    backward.grad_probabilities = input(c, "grad_probabilities", shift);
    backward.grad_ce = input(c, "grad_ce", wide_shift);
    backward.grad_penalty = input(c, "grad_penalty", wide_shift);
    backward.grad_soft_size = input(c, "grad_soft_size", wide_shift);
    backward.grad_logits = grad_logits.data();
  }

  std::map<std::string, std::vector<char>> outputs() const {
    return {{"probabilities", probabilities.bytes()}, {"ce", ce.bytes()},
            {"ce_scale", ce_scale.bytes()},           {"penalty", penalty.bytes()},
            {"penalty_scale", penalty_scale.bytes()}, {"soft_size", soft_size.bytes()},
            {"grad_logits", grad_logits.bytes()}};
  }

  // Vectors of the dtype that so many forwards and a backward store if all arrays are aligned.
  int64_t vectors(int forwards) const {
    const SegmentationHeadArguments& a = forward;
    const int64_t rows = a.images * a.classes, width = cases::width_of(a.dtype);
    if (a.pixels % width && rows > 1) return 0;
    const bool maps_losses = ce && a.ce_reduction == Reduction::kNone && element == wide;
    const int64_t rows_forward = (probabilities ? rows : 0) + (maps_losses ? a.images : 0);
    return a.pixels / width * (forwards * rows_forward + rows);
  }

  void launch(Checker& checker, int repeats) {
    const Buffer scratch(cuda::segmentation_head_scratch(forward) * wide, 0),
        ticket(sizeof(int32_t), 0);
    forward.scratch = scratch.data();
    forward.ticket = static_cast<int32_t*>(ticket.data());
    for (int repeat = 0; repeat < repeats; ++repeat) { // the second finds a used ticket
      for (const Buffer* b :
           {&probabilities, &ce, &ce_scale, &penalty, &penalty_scale, &soft_size}) {
        b->poison();
      }
      checker.one_launch("forward",
                         [&] { return cuda::segmentation_head_forward(forward, nullptr); });
    }
    grad_logits.poison();
    checker.one_launch("backward",
                       [&] { return cuda::segmentation_head_backward(backward, nullptr); });
  }
};

const void* offset(const void* pointer, int64_t bytes) {
  return pointer ? static_cast<const char*>(pointer) + bytes : nullptr;
}

// Image `i` of the batch as a batch of its own gives the same, bit for bit: what belongs to the
// image in forward, and its gradient in backward under the batch's scales.
void run_alone(const Run& batch, int64_t i, Checker& checker) {
  const SegmentationHeadArguments& b = batch.forward;
  const int64_t row = b.classes * b.pixels * batch.element;
  const auto of_image = [&](const std::vector<char>& all, int64_t size) {
    return std::vector<char>(all.begin() + i * size, all.begin() + (i + 1) * size);
  };
  SegmentationHeadArguments a = b;
  a.images = 1;
  a.logits = offset(b.logits, i * row);
  a.labels = offset(b.labels, i * b.pixels * batch.label_size);
  a.pixel_weight = offset(b.pixel_weight, i * b.pixels * batch.wide);
  a.bounds = offset(b.bounds, i * b.bounds_stride[0] * batch.wide);

  SegmentationHeadForward f;
  static_cast<SegmentationHeadArguments&>(f) = a;
  const Buffer probabilities(row, 0), soft_size(b.classes * batch.wide, 0);
  const Buffer ce(b.pixels * batch.wide, 0), scale(batch.wide, 0), penalty_scale(batch.wide, 0);
  const Buffer penalty(b.classes * batch.wide, 0);
  f.probabilities = batch.probabilities ? probabilities.data() : nullptr;
  f.soft_size = batch.soft_size ? soft_size.data() : nullptr;
  f.ce = ce.data();
  f.ce_scale = scale.data();
  f.penalty = penalty.data();
  f.penalty_scale = penalty_scale.data();
  const Buffer scratch(cuda::segmentation_head_scratch(f) * batch.wide, 0),
      ticket(sizeof(int32_t), 0);
  f.scratch = scratch.data();
  f.ticket = static_cast<int32_t*>(ticket.data());
  checker.one_launch("forward", [&] { return cuda::segmentation_head_forward(f, nullptr); });
  if (batch.probabilities) {
    checker.same("probabilities alone", probabilities.bytes(),
                 of_image(batch.probabilities.bytes(), row));
  }
  if (batch.soft_size) {
    checker.same("soft_size alone", soft_size.bytes(),
                 of_image(batch.soft_size.bytes(), b.classes * batch.wide));
  }
  const bool map = b.labels && b.ce_reduction == Reduction::kNone;
  if (map) {
    checker.same("ce alone", ce.bytes(), of_image(batch.ce.bytes(), b.pixels * batch.wide));
  }

  SegmentationHeadBackward g = batch.backward;
  static_cast<SegmentationHeadArguments&>(g) = a;
  const bool pairs = b.size_reduction == Reduction::kNone;
  const int64_t pair_row = b.classes * batch.wide;
  const Buffer grad(row, 0);
  g.soft_size = offset(g.soft_size, i * pair_row);
  g.ce_scale = offset(g.ce_scale, i * batch.wide);
  g.grad_probabilities = offset(g.grad_probabilities, i * row);
  g.grad_ce = offset(g.grad_ce, map ? i * b.pixels * batch.wide : 0);
  g.grad_penalty = offset(g.grad_penalty, pairs ? i * pair_row : 0);
  g.grad_soft_size = offset(g.grad_soft_size, i * pair_row);
  g.grad_logits = grad.data();
  checker.one_launch("backward", [&] { return cuda::segmentation_head_backward(g, nullptr); });
  checker.same("grad_logits alone", grad.bytes(), of_image(batch.grad_logits.bytes(), row));
}

void run_case(const Case& c, Checker& checker) {
  const DType dtype = DType(c.integer("dtype")), wide = cases::accumulation(dtype);
  cuda_on_cpu::pool().order = cuda_on_cpu::Order::kForward;
  Run run(c, false);
  checker.stores_vectors(dtype, run.vectors(2), run.forward.pixels % 4 ? 4 : 0,
                         [&] { run.launch(checker, 2); });
  for (const auto& input : run.inputs) {
    checker.same(input.first, input.second.bytes(), c.fields.at(input.first));
  }
  const auto close = [&](const char* name, const Buffer& got, DType type) {
    if (c.has(name)) checker.close(name, got.data(), type, c.array<double>(name));
  };
  close("probabilities", run.probabilities, dtype);
  close("ce", run.ce, wide);
  close("penalty", run.penalty, wide);
  close("soft_size", run.soft_size, wide);
  close("grad_logits", run.grad_logits, dtype);

  const auto wanted = run.outputs();
  for (auto order : {cuda_on_cpu::Order::kReversed, cuda_on_cpu::Order::kShuffled}) {
    cuda_on_cpu::pool().order = order;
    Run other(c, true);
    other.launch(checker, 1);
    for (const auto& output : other.outputs()) {
      checker.same(output.first + ", misaligned, in another order", output.second,
                   wanted.at(output.first));
    }
  }
  if (run.forward.images > 1 && run.forward.images < 8) {
    for (int64_t i = 0; i < run.forward.images; ++i) run_alone(run, i, checker);
  }
}

} // namespace

int main(int argc, char** argv) { return cases::run(argc, argv, run_case); }
