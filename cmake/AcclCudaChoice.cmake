# Decides whether the CUDA kernels are built, with which nvcc and for which architectures.
#   ACCL_EXT_CUDA          auto (default: on where torch has CUDA and a fitting nvcc is found), on,
#                          off; also as environment variable
#   TORCH_CUDA_ARCH_LIST   architectures as torch writes them, "8.0;9.0+PTX" or "Ampere;Hopper"; also
#                          as environment variable; default: the visible GPU's, else a list that
#                          covers the usual ones. The highest always comes with PTX, for later GPUs.
#   ACCL_TORCH_VERSION, ACCL_TORCH_CUDA   torch's version, and the CUDA it was built with or nothing
# Gives ACCL_CUDA, ACCL_NVCC, ACCL_CUDA_VERSION, ACCL_CUDA_DRIVER (the lowest that runs the result)
# and ACCL_CUDA_ARCHITECTURES. Under auto nothing here stops the configuration. No project is
# needed, so the tests run this file alone: cmake -DACCL_TORCH_CUDA=13.0 -P AcclCudaChoice.cmake
cmake_minimum_required(VERSION 3.24)

set(ACCL_DEFAULT_CUDA_ARCHITECTURES 7.5 8.0 8.6 8.9 9.0 10.0 12.0)

# The families that torch.utils.cpp_extension knows by name.
set(ACCL_FAMILY_Volta 7.0)
set(ACCL_FAMILY_Volta+Tegra 7.2)
set(ACCL_FAMILY_Turing 7.5)
set(ACCL_FAMILY_Ampere 8.0 8.6)
set(ACCL_FAMILY_Ampere+Tegra 8.7)
set(ACCL_FAMILY_Ada 8.9)
set(ACCL_FAMILY_Hopper 9.0)
set(ACCL_FAMILY_Blackwell 10.0 10.3 12.0 12.1)
set(ACCL_FAMILY_Blackwell+Tegra 11.0)
set(ACCL_FAMILY_Kepler 3.5)
set(ACCL_FAMILY_Kepler+Tesla 3.7)
set(ACCL_FAMILY_Maxwell 5.0 5.2)
set(ACCL_FAMILY_Maxwell+Tegra 5.3)
set(ACCL_FAMILY_Pascal 6.0 6.1)

# The CUDA runtime is linked statically and runs with any driver of its toolkit's major version:
# https://docs.nvidia.com/deploy/cuda-compatibility, "minor version compatibility", Linux.
set(ACCL_DRIVER_11 450.80.02)
set(ACCL_DRIVER_12 525.60.13)
set(ACCL_DRIVER_13 580)

function(accl_cuda_option result)
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
  set(${result} ${choice} PARENT_SCOPE)
endfunction()

# Ends the calling function: an error if CUDA was demanded, else a CPU build that says why.
macro(accl_no_cuda reason)
  if(choice STREQUAL "on")
    message(FATAL_ERROR "accl_ext: ACCL_EXT_CUDA=on, but ${reason}")
  endif()
  message(STATUS "accl_ext: CPU only, because ${reason}")
  return()
endmacro()

# Whether this nvcc can be used at all: why not, or nothing.
function(accl_nvcc_fault result_fault result_version)
  execute_process(COMMAND ${ACCL_NVCC} --version OUTPUT_VARIABLE text ERROR_VARIABLE text
    RESULT_VARIABLE failed)
  if(failed OR NOT text MATCHES "release ([0-9]+\\.[0-9]+)")
    set(${result_fault} "${ACCL_NVCC} --version does not run" PARENT_SCOPE)
    return()
  endif()
  set(version ${CMAKE_MATCH_1})
  set(${result_version} ${version} PARENT_SCOPE)

  string(REGEX MATCH "^[0-9]+" major ${version})
  string(REGEX MATCH "^[0-9]+" torch_major "${ACCL_TORCH_CUDA}")
  if(torch_major AND major GREATER torch_major)
    set(${result_fault} "${ACCL_NVCC} is of CUDA ${version} and torch ${ACCL_TORCH_VERSION} of CUDA \
${ACCL_TORCH_CUDA}: the kernels would need a driver of ${ACCL_DRIVER_${major}} or newer, where torch \
runs with ${ACCL_DRIVER_${torch_major}}. Set CUDA_HOME to a toolkit of CUDA ${torch_major}" PARENT_SCOPE)
    return()
  endif()

  # A host compiler that is too new for this nvcc is refused by its headers.
  set(host)
  foreach(compiler "${CMAKE_CUDA_HOST_COMPILER}" "$ENV{CUDAHOSTCXX}")
    if(compiler AND NOT host)
      set(host -ccbin ${compiler})
    endif()
  endforeach()
  execute_process(COMMAND ${ACCL_NVCC} ${host} -std=c++17 -E -x cu /dev/null
    OUTPUT_QUIET ERROR_VARIABLE text RESULT_VARIABLE failed)
  if(failed)
    string(REGEX MATCH "[^\n]*(error|fatal)[^\n]*" line "${text}")
    set(${result_fault} "${ACCL_NVCC} does not compile with this C++ compiler (${line}). CUDAHOSTCXX \
names another one" PARENT_SCOPE)
  endif()
endfunction()

# The architectures asked for, one "8.0" or "9.0+PTX" an item, and by whom.
function(accl_wanted_architectures result_wanted result_reason)
  set(TORCH_CUDA_ARCH_LIST "$ENV{TORCH_CUDA_ARCH_LIST}" CACHE STRING
    "CUDA architectures: 8.0;9.0+PTX")
  string(REGEX REPLACE "[ ,;]+" ";" list "${TORCH_CUDA_ARCH_LIST}")
  list(REMOVE_ITEM list "")
  if(list AND NOT list STREQUAL "native")
    set(wanted)
    foreach(item IN LISTS list)
      if(DEFINED ACCL_FAMILY_${item})
        list(APPEND wanted ${ACCL_FAMILY_${item}})
      elseif(item MATCHES "^([0-9]+\\.[0-9])[af]?(\\+PTX)?$")
        # No kernel uses what only "9.0a" has, and its PTX would run on nothing else.
        list(APPEND wanted ${CMAKE_MATCH_1}${CMAKE_MATCH_2})
      else()
        set(text "accl_ext: TORCH_CUDA_ARCH_LIST holds '${item}': wanted numbers like 8.0 or 9.0+PTX, \
or names like Ampere, separated by ; or spaces")
        if(choice STREQUAL "on")
          message(FATAL_ERROR "${text}")
        endif()
        message(STATUS "${text}; left out")
      endif()
    endforeach()
    set(${result_wanted} ${wanted} PARENT_SCOPE)
    set(${result_reason} "TORCH_CUDA_ARCH_LIST" PARENT_SCOPE)
    return()
  endif()

  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE visible ERROR_QUIET RESULT_VARIABLE failed)
  string(REGEX MATCHALL "[0-9]+\\.[0-9]" visible "${visible}")
  if(visible AND NOT failed)
    set(${result_wanted} ${visible} PARENT_SCOPE)
    set(${result_reason} "the visible GPU's" PARENT_SCOPE)
  else()
    set(${result_wanted} ${ACCL_DEFAULT_CUDA_ARCHITECTURES} PARENT_SCOPE)
    set(${result_reason} "the default: no GPU is visible and TORCH_CUDA_ARCH_LIST is not set"
      PARENT_SCOPE)
  endif()
endfunction()

# Of the architectures given, those that this nvcc knows, in order, the highest with PTX.
function(accl_known_architectures result reason)
  execute_process(COMMAND ${ACCL_NVCC} --list-gpu-code OUTPUT_VARIABLE codes ERROR_QUIET)
  string(REGEX MATCHALL "sm_[0-9]+" codes "${codes}")
  set(known)
  foreach(code IN LISTS codes)
    string(REGEX REPLACE "sm_([0-9]+)([0-9])" "\\1.\\2" number ${code})
    list(APPEND known ${number})
  endforeach()
  list(SORT known COMPARE NATURAL)

  set(numbers)
  set(with_ptx)
  foreach(item IN LISTS ARGN)
    string(REPLACE "+PTX" "" number ${item})
    if(known AND NOT number IN_LIST known)
      set(lower)
      foreach(other IN LISTS known)
        if(other VERSION_LESS number)
          set(lower ${other})
        endif()
      endforeach()
      if(NOT lower OR NOT reason STREQUAL "the visible GPU's")
        message(STATUS "accl_ext: leaves out ${number}, which nvcc ${ACCL_CUDA_VERSION} does not know")
        continue()
      endif()
      # A GPU newer than nvcc compiles the PTX of the one below for itself.
      message(STATUS "accl_ext: ${lower}+PTX for the GPU's ${number}, which nvcc \
${ACCL_CUDA_VERSION} does not know")
      set(number ${lower})
      list(APPEND with_ptx ${number})
    elseif(item MATCHES "PTX")
      list(APPEND with_ptx ${number})
    endif()
    list(APPEND numbers ${number})
  endforeach()

  list(SORT numbers COMPARE NATURAL)
  list(REMOVE_DUPLICATES numbers)
  if(numbers)
    list(GET numbers -1 highest)
    list(APPEND with_ptx ${highest})
  endif()
  set(architectures)
  foreach(number IN LISTS numbers)
    if(number IN_LIST with_ptx)
      string(APPEND number "+PTX")
    endif()
    list(APPEND architectures ${number})
  endforeach()
  set(${result} ${architectures} PARENT_SCOPE)
endfunction()

function(accl_choose_cuda)
  foreach(name ACCL_CUDA_VERSION ACCL_CUDA_DRIVER ACCL_CUDA_ARCHITECTURES)
    set(${name} "" PARENT_SCOPE)
  endforeach()
  set(ACCL_CUDA OFF PARENT_SCOPE)
  accl_cuda_option(choice)
  if(choice STREQUAL "off")
    accl_no_cuda("ACCL_EXT_CUDA=off")
  elseif(choice STREQUAL "auto" AND NOT ACCL_TORCH_CUDA)
    accl_no_cuda("torch ${ACCL_TORCH_VERSION} has no CUDA; ACCL_EXT_CUDA=on builds the kernels all the same")
  endif()

  find_program(ACCL_NVCC NAMES $ENV{CUDACXX} nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin
    PATHS /usr/local/cuda/bin)
  if(NOT ACCL_NVCC)
    accl_no_cuda("there is no nvcc on PATH, in CUDA_HOME/bin or in /usr/local/cuda/bin: install the \
CUDA toolkit, or set ACCL_EXT_CUDA=off")
  endif()
  accl_nvcc_fault(fault ACCL_CUDA_VERSION)
  if(fault)
    accl_no_cuda("${fault}")
  endif()
  accl_wanted_architectures(wanted reason)
  accl_known_architectures(architectures "${reason}" ${wanted})
  if(NOT architectures)
    accl_no_cuda("nvcc ${ACCL_CUDA_VERSION} knows none of the architectures '${wanted}' (${reason})")
  endif()

  message(STATUS "accl_ext: CUDA ${ACCL_CUDA_VERSION} (${ACCL_NVCC}), because \
ACCL_EXT_CUDA=${choice}; architectures ${architectures} (${reason})")
  string(REGEX MATCH "^[0-9]+" major ${ACCL_CUDA_VERSION})
  set(ACCL_CUDA ON PARENT_SCOPE)
  set(ACCL_CUDA_VERSION ${ACCL_CUDA_VERSION} PARENT_SCOPE)
  set(ACCL_CUDA_DRIVER "${ACCL_DRIVER_${major}}" PARENT_SCOPE)
  set(ACCL_CUDA_ARCHITECTURES ${architectures} PARENT_SCOPE)
endfunction()

accl_choose_cuda()
