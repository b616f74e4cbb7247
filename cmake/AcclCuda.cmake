# The CUDA language and what the kernels are compiled with; AcclCudaChoice.cmake decides whether and
# for which architectures. nvcc alone is needed: the sources include no torch header and the runtime
# is linked statically, so the result also loads under a CPU-only torch. Gives accl_add_cuda(target).

include(AcclCudaChoice)
if(NOT ACCL_CUDA)
  return()
endif()

# "8.0;9.0+PTX" -> "80-real;90-real;90-virtual"
set(CMAKE_CUDA_ARCHITECTURES)
foreach(architecture IN LISTS ACCL_CUDA_ARCHITECTURES)
  string(REGEX REPLACE "[.]|\\+PTX" "" number ${architecture})
  list(APPEND CMAKE_CUDA_ARCHITECTURES ${number}-real)
  if(architecture MATCHES "PTX")
    list(APPEND CMAKE_CUDA_ARCHITECTURES ${number}-virtual)
  endif()
endforeach()
set(CMAKE_CUDA_COMPILER ${ACCL_NVCC})
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
set(ACCL_CUDA_VERSION ${CMAKE_CUDA_COMPILER_VERSION})

# Source lines for compute-sanitizer and the profilers; they triple the size of the library.
option(ACCL_EXT_LINEINFO "CUDA kernels that know their source lines (-lineinfo)" OFF)

# No fast-math: losses with logarithms near 0 and NaN rules must not use it. --fmad=false: contracted
# or not would be the compiler's choice for every copy of a formula, and head, tail and vector body
# have to agree bit for bit.
file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS csrc/cuda/*.cu)
function(accl_add_cuda target)
  target_sources(${target} PRIVATE ${CUDA_SOURCES})
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-O3
    $<$<BOOL:${ACCL_EXT_LINEINFO}>:-lineinfo> --fmad=false
    -Xcompiler=-O3,-ffp-contract=off,-Wall,-Wextra>)
endfunction()
