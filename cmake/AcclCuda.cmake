# Decides whether the CUDA kernels are built, and for which architectures.
#   ACCL_EXT_CUDA          auto (default: on if nvcc is found), on, off; also as environment variable
#   TORCH_CUDA_ARCH_LIST   architectures as torch writes them, "8.0;9.0+PTX"; also as environment
#                          variable; default: the visible GPU's, else a list that covers the usual
#                          ones, with PTX for later ones
# nvcc alone decides: the sources include no torch header and the runtime is linked statically, so
# the result also loads under a CPU-only torch. Gives ACCL_CUDA, ACCL_CUDA_VERSION,
# ACCL_CUDA_ARCHITECTURES and accl_add_cuda(target).

set(ACCL_DEFAULT_CUDA_ARCHITECTURES 7.5 8.0 8.6 8.9 9.0+PTX)

set(default auto)
if(DEFINED ENV{ACCL_EXT_CUDA})
  set(default $ENV{ACCL_EXT_CUDA})
endif()
set(ACCL_EXT_CUDA ${default} CACHE STRING "CUDA kernels: auto, on or off")
string(TOLOWER "${ACCL_EXT_CUDA}" choice)
if(choice MATCHES "^(1|true|yes)$")
  set(choice on)
elseif(choice MATCHES "^(0|false|no)$")
  set(choice off)
elseif(NOT choice MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "accl_ext: ACCL_EXT_CUDA must be auto, on or off, not '${ACCL_EXT_CUDA}'")
endif()

set(ACCL_CUDA OFF)
set(ACCL_CUDA_VERSION "")
set(ACCL_CUDA_ARCHITECTURES "")
file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS csrc/cuda/*.cu)
if(choice STREQUAL "off")
  message(STATUS "accl_ext: CPU only, because ACCL_EXT_CUDA=off")
elseif(NOT CUDA_SOURCES)
  message(STATUS "accl_ext: CPU only, because csrc/cuda has no sources")
else()
  find_program(ACCL_NVCC nvcc HINTS $ENV{CUDACXX} $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin
    PATHS /usr/local/cuda/bin)
  if(ACCL_NVCC)
    set(ACCL_CUDA ON)
  elseif(choice STREQUAL "on")
    message(FATAL_ERROR "accl_ext: ACCL_EXT_CUDA=on, but no nvcc on PATH, in CUDA_HOME/bin or in "
      "/usr/local/cuda/bin: install the CUDA toolkit or set ACCL_EXT_CUDA=off")
  else()
    message(STATUS "accl_ext: CPU only, because there is no nvcc (PATH, CUDA_HOME, /usr/local/cuda)")
  endif()
endif()
if(NOT ACCL_CUDA)
  return()
endif()

# "8.0;9.0+PTX" -> "80-real;90-real;90-virtual"
function(accl_cmake_architectures result)
  set(list)
  foreach(architecture IN LISTS ARGN)
    if(NOT architecture MATCHES "^([0-9]+)\\.([0-9])([af]?)(\\+PTX)?$")
      message(FATAL_ERROR "accl_ext: TORCH_CUDA_ARCH_LIST holds '${architecture}': wanted numbers "
        "like 8.0 or 9.0+PTX, separated by ; or spaces")
    endif()
    set(number "${CMAKE_MATCH_1}${CMAKE_MATCH_2}${CMAKE_MATCH_3}")
    list(APPEND list ${number}-real)
    if(CMAKE_MATCH_4)
      list(APPEND list ${number}-virtual)
    endif()
  endforeach()
  set(${result} ${list} PARENT_SCOPE)
endfunction()

set(TORCH_CUDA_ARCH_LIST "$ENV{TORCH_CUDA_ARCH_LIST}" CACHE STRING "CUDA architectures: 8.0;9.0+PTX")
if(TORCH_CUDA_ARCH_LIST)
  string(REGEX REPLACE "[ ,]+" ";" ACCL_CUDA_ARCHITECTURES "${TORCH_CUDA_ARCH_LIST}")
  set(reason "TORCH_CUDA_ARCH_LIST")
else()
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE visible OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed AND visible MATCHES "^[0-9]+\\.[0-9]")
    string(REGEX MATCHALL "[0-9]+\\.[0-9]" ACCL_CUDA_ARCHITECTURES "${visible}")
    list(REMOVE_DUPLICATES ACCL_CUDA_ARCHITECTURES)
    set(reason "the visible GPU's")
  else()
    set(ACCL_CUDA_ARCHITECTURES ${ACCL_DEFAULT_CUDA_ARCHITECTURES})
    set(reason "the default: no GPU is visible and TORCH_CUDA_ARCH_LIST is not set")
    execute_process(COMMAND ${ACCL_NVCC} --list-gpu-code OUTPUT_VARIABLE known ERROR_QUIET)
    foreach(architecture IN LISTS ACCL_DEFAULT_CUDA_ARCHITECTURES)
      string(REGEX REPLACE "[.]|\\+PTX" "" number ${architecture})
      if(known AND NOT known MATCHES "sm_${number}")
        list(REMOVE_ITEM ACCL_CUDA_ARCHITECTURES ${architecture})
        message(STATUS "accl_ext: leaves out ${architecture}, which this nvcc does not know")
      endif()
    endforeach()
  endif()
endif()

accl_cmake_architectures(CMAKE_CUDA_ARCHITECTURES ${ACCL_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_COMPILER ${ACCL_NVCC})
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
set(ACCL_CUDA_VERSION ${CMAKE_CUDA_COMPILER_VERSION})
message(STATUS "accl_ext: CUDA ${ACCL_CUDA_VERSION} (${ACCL_NVCC}), because ACCL_EXT_CUDA=${choice} "
  "and nvcc was found; architectures ${ACCL_CUDA_ARCHITECTURES} (${reason})")

# No fast-math: losses with logarithms near 0 and NaN rules must not use it. --fmad=false: contracted
# or not would be the compiler's choice for every copy of a formula, and head, tail and vector body
# have to agree bit for bit. -lineinfo costs nothing at run time and lets compute-sanitizer and the
# profilers name the source line.
function(accl_add_cuda target)
  target_sources(${target} PRIVATE ${CUDA_SOURCES})
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-O3 -lineinfo --fmad=false
    -Xcompiler=-O3,-ffp-contract=off,-Wall,-Wextra>)
endfunction()
