// Typed handles of the ops. Forward and backward call each other through the dispatcher, so that
// autograd, tracing and double backward see every call.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "../ops/checks.h"
#include "../ops/ops.h"

namespace accl {

template <class Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// ACCL_OP(accl_loss, signature, "accl_loss"): call_accl_loss() calls the op of that name.
#define ACCL_OP(function, signature, schema_name)                            \
  template <class... Arguments>                                              \
  auto call_##function(Arguments&&... arguments) {                           \
    static const auto handle = find_op<signature>("accl_ext::" schema_name); \
    return handle.call(std::forward<Arguments>(arguments)...);               \
  }

// A function whose backward uses nothing but its inputs and what ctx holds: compiled autograd may
// trace it instead of breaking its graph there.
template <class T>
struct TraceableFunction : torch::autograd::Function<T> {
  static constexpr bool is_traceable = true;
};

// True if an input needs a gradient or carries a tangent of forward mode. The autograd Function
// refuses a tangent with an error; if it were not called, the tangent would be lost silently.
inline bool needs_graph(const at::Tensor& a) {
  return (c10::GradMode::is_enabled() && a.requires_grad()) || a._fw_grad(0).defined();
}

inline OptionalTensor optional(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

inline at::Tensor or_undefined(const OptionalTensor& tensor) {
  return tensor.has_value() ? *tensor : at::Tensor();
}

} // namespace accl
