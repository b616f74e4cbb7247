# The facts of this build, once as a file that accl_ext/_library.py reads before it loads anything
# (a binary made for another torch must not be loaded) and once inside the binary, for build_info().

set(ACCL_GENERATED "${CMAKE_CURRENT_BINARY_DIR}/generated")

set(ACCL_GIT_REVISION "")
find_package(Git QUIET)
if(Git_FOUND AND EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/.git")
  execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --abbrev=12 --exclude=*
    WORKING_DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}"
    OUTPUT_VARIABLE ACCL_GIT_REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()

function(accl_json_list result)
  set(items)
  foreach(item IN LISTS ARGN)
    list(APPEND items "\"${item}\"")
  endforeach()
  list(JOIN items ", " joined)
  set(${result} "[${joined}]" PARENT_SCOPE)
endfunction()
accl_json_list(ACCL_ISAS_JSON ${ACCL_ISAS})
accl_json_list(ACCL_CUDA_ARCHITECTURES_JSON ${ACCL_CUDA_ARCHITECTURES})
foreach(name ACCL_GIT_REVISION ACCL_CUDA_VERSION ACCL_CUDA_DRIVER)
  set(${name}_JSON null)
  if(${name})
    set(${name}_JSON "\"${${name}}\"")
  endif()
endforeach()

# What Python calls and how the values are meant. accl_ext/_library.py computes the same digest from
# the sources that it lies beside, if any: a binary made from other ones is stale.
set(contract)
foreach(file csrc/ops/library.cpp csrc/kernels.h)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
  file(SHA256 "${CMAKE_CURRENT_SOURCE_DIR}/${file}" digest)
  string(APPEND contract ${digest})
endforeach()
string(SHA256 ACCL_CONTRACT "${contract}")

string(CONFIGURE [[{
  "version": "@ACCL_EXT_VERSION@",
  "contract": "@ACCL_CONTRACT@",
  "git_revision": @ACCL_GIT_REVISION_JSON@,
  "torch": "@ACCL_TORCH_VERSION@",
  "python": "@Python_VERSION_MAJOR@.@Python_VERSION_MINOR@",
  "compiler": "@CMAKE_CXX_COMPILER_ID@ @CMAKE_CXX_COMPILER_VERSION@",
  "cxx_standard": @CMAKE_CXX_STANDARD@,
  "build_type": "@CMAKE_BUILD_TYPE@",
  "instruction_sets": @ACCL_ISAS_JSON@,
  "cuda": @ACCL_CUDA_VERSION_JSON@,
  "cuda_driver": @ACCL_CUDA_DRIVER_JSON@,
  "cuda_architectures": @ACCL_CUDA_ARCHITECTURES_JSON@
}
]] ACCL_BUILD_CONFIG @ONLY)
file(CONFIGURE OUTPUT "${ACCL_GENERATED}/_build_config.json" CONTENT "@ACCL_BUILD_CONFIG@" @ONLY)
file(CONFIGURE OUTPUT "${ACCL_GENERATED}/build_config.h" @ONLY CONTENT
  "constexpr const char* kBuildConfig = R\"json(@ACCL_BUILD_CONFIG@)json\";\n")
