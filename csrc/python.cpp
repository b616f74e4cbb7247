// The Python module accl_ext._C: what was built. Operators are reached through torch's dispatcher,
// not from here: a pybind11 function would break torch.compile's graph.
#include <c10/util/Exception.h>
#include <pybind11/pybind11.h>

#include "build_config.h"
#include "cpu/isa.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.def(
      "build_info",
      [] {
        py::dict facts = py::module_::import("json").attr("loads")(kBuildConfig);
        try {
          facts["instruction_set"] = accl::cpu::kernels().name;
        } catch (const c10::Error& error) {
          throw py::value_error(error.what_without_backtrace());
        }
        return facts;
      },
      "The facts of this build as a dict, and the instruction set that this processor runs.");
}
