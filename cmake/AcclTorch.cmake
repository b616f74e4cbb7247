# Finds torch by its folder, without find_package(Torch): that drags Caffe2's and CUDA's own checks
# in, and a CPU build against a CUDA torch would ask for a CUDA toolkit.
#   ACCL_EXT_TORCH   torch's package folder; default: where this Python finds torch
# Gives torch::headers, torch::libraries, ACCL_TORCH_VERSION, ACCL_TORCH_CUDA (nothing: a CPU torch),
# ACCL_TORCH_DIR, CMAKE_CXX_STANDARD.
# A folder that has headers only is enough to compile (target accl_ext_objects), not to link.

set(ACCL_EXT_TORCH "" CACHE PATH "torch's package folder (default: the one that Python finds)")
set(ACCL_TORCH_DIR "${ACCL_EXT_TORCH}")
if(NOT ACCL_TORCH_DIR)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
      "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
    WORKING_DIRECTORY / OUTPUT_VARIABLE ACCL_TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()
if(NOT EXISTS "${ACCL_TORCH_DIR}/version.py")
  message(FATAL_ERROR "accl_ext: no torch for ${Python_EXECUTABLE} (looked in "
    "'${ACCL_TORCH_DIR}'): install torch there, or give its folder as -DACCL_EXT_TORCH=...")
endif()

file(STRINGS "${ACCL_TORCH_DIR}/version.py" ACCL_TORCH_VERSION REGEX "^__version__")
string(REGEX REPLACE ".*['\"](.*)['\"].*" "\\1" ACCL_TORCH_VERSION "${ACCL_TORCH_VERSION}")
string(REGEX MATCH "^[0-9]+\\.[0-9]+" ACCL_TORCH_MINOR "${ACCL_TORCH_VERSION}")
if(ACCL_TORCH_MINOR VERSION_LESS 2.11)
  message(FATAL_ERROR "accl_ext: needs torch 2.11 or newer, found ${ACCL_TORCH_VERSION} in "
    "${ACCL_TORCH_DIR}")
elseif(ACCL_TORCH_MINOR VERSION_GREATER 2.15)
  message(WARNING "accl_ext: torch ${ACCL_TORCH_VERSION} is newer than the newest it was made for, 2.15")
endif()

# cuda: Optional[str] = '13.0', or None
file(STRINGS "${ACCL_TORCH_DIR}/version.py" ACCL_TORCH_CUDA REGEX "^cuda[ :=].*['\"][0-9]")
string(REGEX MATCH "[0-9]+\\.[0-9]+" ACCL_TORCH_CUDA "${ACCL_TORCH_CUDA}")

# What torch's own headers are written in.
set(CMAKE_CXX_STANDARD 17)
if(ACCL_TORCH_MINOR VERSION_GREATER_EQUAL 2.12)
  set(CMAKE_CXX_STANDARD 20)
endif()
file(REAL_PATH "${ACCL_TORCH_DIR}" real_dir) # setup.py gives a link
message(STATUS "accl_ext: torch ${ACCL_TORCH_VERSION} in ${real_dir}, C++${CMAKE_CXX_STANDARD}")

add_library(torch::headers INTERFACE IMPORTED)
target_include_directories(torch::headers SYSTEM INTERFACE
  "${ACCL_TORCH_DIR}/include" "${ACCL_TORCH_DIR}/include/torch/csrc/api/include")
# torch's headers are told apart by torch's version, which stands in the compile commands, and not by
# the time they were unpacked: so what was compiled stays when the same torch is installed elsewhere.
file(SHA256 "${ACCL_TORCH_DIR}/version.py" digest)
string(SUBSTRING ${digest} 0 16 digest)
target_compile_definitions(torch::headers INTERFACE ACCL_TORCH_DIGEST=0x${digest})
string(REPLACE "-MD " "-MMD " CMAKE_DEPFILE_FLAGS_CXX "${CMAKE_DEPFILE_FLAGS_CXX}")

add_library(torch::libraries INTERFACE IMPORTED)
foreach(name torch torch_cpu c10)
  target_link_libraries(torch::libraries INTERFACE "${ACCL_TORCH_DIR}/lib/lib${name}.so")
endforeach()

# std::string in the libraries' interface has one of two forms; the symbols say which.
if(EXISTS "${ACCL_TORCH_DIR}/lib/libc10.so")
  file(STRINGS "${ACCL_TORCH_DIR}/lib/libc10.so" cxx11 REGEX "__cxx1112basic_string" LIMIT_COUNT 1)
  if(NOT cxx11)
    target_compile_definitions(torch::headers INTERFACE _GLIBCXX_USE_CXX11_ABI=0)
  endif()
endif()
