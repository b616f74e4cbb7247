// The schemas of the ops, and their implementations. One function serves CPU, CUDA and Meta: it
// checks and allocates the same way for all, and launches nothing on meta tensors. There is no rule
// for autocast: the kernels take half precision and accumulate in float32 themselves.
#include <torch/library.h>

#include "ops.h"

TORCH_LIBRARY(accl_ext, m) {
  m.set_python_module("accl_ext.functional");
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  m.def("accl_loss(Tensor scores, float target, str criterion, str reduction) -> Tensor", tags);
  m.def(
      "_accl_loss_backward(Tensor grad_loss, Tensor scores, float target, int criterion, "
      "int reduction) -> Tensor",
      tags);
  m.def(
      "accl_discriminator_loss(Tensor fake_scores, Tensor real_scores, float fake_target, "
      "float real_target, str criterion, float scale, str reduction) -> Tensor",
      tags);
  m.def(
      "_accl_discriminator_loss_backward(Tensor grad_loss, Tensor fake_scores, "
      "Tensor real_scores, float fake_target, float real_target, int criterion, float scale, "
      "int reduction, bool[2] output_mask) -> (Tensor, Tensor)",
      tags);
  m.def(
      "partial_cross_entropy(Tensor logits, Tensor labels, int ignore_index, Tensor? weight, "
      "Tensor? pixel_weight, float label_smoothing, str reduction) -> (Tensor loss, Tensor scale)",
      tags);
  m.def(
      "partial_overlap_loss(Tensor logits, Tensor labels, int ignore_index, Tensor? weight, "
      "Tensor? pixel_weight, float[] overlap) -> (Tensor loss, Tensor sums)",
      tags);
  m.def(
      "size_penalty(Tensor logits, Tensor bounds, str normalize, str reduction) -> "
      "(Tensor penalty, Tensor soft_size, Tensor scale)",
      tags);
  m.def(
      "segmentation_head(Tensor logits, Tensor labels, Tensor? bounds, int ignore_index, "
      "Tensor? weight, Tensor? pixel_weight, float label_smoothing, str normalize, "
      "float[] overlap=[], Tensor? overlap_weight=None) -> "
      "(Tensor probabilities, Tensor partial_ce, Tensor size_penalty, Tensor soft_size, "
      "Tensor ce_scale, Tensor penalty_scale, Tensor overlap_loss, Tensor overlap_sums)",
      tags);
  m.def(
      "_segmentation_head_backward(Tensor? grad_probabilities, Tensor? grad_ce, "
      "Tensor? grad_penalty, Tensor? grad_soft_size, Tensor logits, Tensor? labels, Tensor? "
      "bounds, "
      "Tensor? soft_size, Tensor? ce_scale, Tensor? penalty_scale, int ignore_index, "
      "Tensor? weight, Tensor? pixel_weight, float label_smoothing, int normalize, "
      "int ce_reduction, int size_reduction, Tensor? grad_overlap=None, "
      "Tensor? grad_overlap_sums=None, Tensor? overlap_sums=None, float[] overlap=[], "
      "Tensor? overlap_weight=None) -> Tensor",
      tags);
  m.def(
      "gated_crf_loss(Tensor probabilities, Tensor image, int radius, float[] kernels, "
      "float[] spacing, Tensor? source_mask, Tensor? destination_mask, str reduction, "
      "bool with_gradient) -> (Tensor loss, Tensor gradient)",
      tags);
  m.def(
      "_gated_crf_gather(Tensor values, Tensor image, int radius, float[] kernels, "
      "float[] spacing, Tensor? source_mask, Tensor? destination_mask) -> Tensor",
      tags);
}

namespace accl {
namespace {

void implement(torch::Library& m) {
  m.impl("accl_loss", accl_loss);
  m.impl("_accl_loss_backward", accl_loss_backward);
  m.impl("accl_discriminator_loss", accl_discriminator_loss);
  m.impl("_accl_discriminator_loss_backward", accl_discriminator_loss_backward);
  m.impl("partial_cross_entropy", partial_cross_entropy);
  m.impl("partial_overlap_loss", partial_overlap_loss);
  m.impl("size_penalty", size_penalty);
  m.impl("segmentation_head", segmentation_head);
  m.impl("_segmentation_head_backward",
         ByName<SegmentationHeadBackwardOp>::call<segmentation_head_backward>);
  m.impl("gated_crf_loss", gated_crf_loss);
  m.impl("_gated_crf_gather", gated_crf_gather);
}

} // namespace

TORCH_LIBRARY_IMPL(accl_ext, CPU, m) { implement(m); }
TORCH_LIBRARY_IMPL(accl_ext, CUDA, m) { implement(m); }
TORCH_LIBRARY_IMPL(accl_ext, Meta, m) { implement(m); }

} // namespace accl
