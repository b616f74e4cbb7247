// The Python module accl_ext._C: what was built. Operators are reached through torch's dispatcher,
// not from here: a pybind11 function would break torch.compile's graph.
#include <pybind11/pybind11.h>

#include "build_config.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.def(
      "build_info",
      [] { return py::module_::import("json").attr("loads")(kBuildConfig); },
      "The facts of this build as a dict.");
}
