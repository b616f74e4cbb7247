"""Finds CMake and Ninja as the build does, in an environment that nothing has activated, too."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

sys.path.insert(0, str(ROOT / "build_backend"))
from accl_build import find_cmake, find_ninja  # noqa: E402

CMAKE = find_cmake()
NINJA = find_ninja()
GENERATOR = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}"] if NINJA else []
HIDE_NVCC = "-DCMAKE_IGNORE_PATH=/usr/local/cuda/bin;" + ";".join(
    folder for folder in os.get_exec_path() if (Path(folder) / "nvcc").exists()
)
CUDA_VARIABLES = (
    *("ACCL_EXT_CUDA", "ACCL_EXT_LINEINFO", "TORCH_CUDA_ARCH_LIST"),
    *("CUDA_HOME", "CUDA_PATH", "CUDACXX", "CUDAHOSTCXX"),
)


def environment(**variables: str) -> dict[str, str]:
    """This one, without what decides about CUDA, and with the variables given."""
    kept = {name: value for name, value in os.environ.items() if name not in CUDA_VARIABLES}
    return kept | variables
