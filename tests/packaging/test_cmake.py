"""The decisions of the CMake build, from its configure step alone."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
HIDE_NVCC = "-DCMAKE_IGNORE_PATH=/usr/local/cuda/bin;" + ";".join(
    folder for folder in os.get_exec_path() if (Path(folder) / "nvcc").exists()
)

pytestmark = [
    pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake"),
    pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler"),
]


def configure(build, *options, environment=None):
    """(whether it worked, everything it printed)"""
    result = subprocess.run(
        ["cmake", "-S", ROOT, "-B", build, "-DACCL_EXT_TESTS=OFF", *options],
        env=environment,
        capture_output=True,
        text=True,
    )
    return result.returncode == 0, " ".join((result.stdout + result.stderr).split())


def fake_torch(folder, version):
    (folder / "include/torch/csrc/api/include").mkdir(parents=True)
    (folder / "version.py").write_text(f"__version__ = '{version}'\n")
    return f"-DACCL_EXT_TORCH={folder}"


def test_cpu_build_says_why(tmp_path):
    works, output = configure(tmp_path, "-DACCL_EXT_CUDA=off")
    assert works, output
    assert "CPU only, because ACCL_EXT_CUDA=off" in output
    assert f"torch {torch.__version__} in {Path(torch.__file__).parent}" in output


def test_auto_without_nvcc_builds_for_the_cpu(tmp_path):
    works, output = configure(tmp_path, "-DACCL_EXT_CUDA=auto", HIDE_NVCC)
    assert works, output
    assert "CPU only, because there is no nvcc" in output


def test_on_without_nvcc_is_an_error(tmp_path):
    works, output = configure(tmp_path, "-DACCL_EXT_CUDA=on", HIDE_NVCC)
    assert not works
    assert "ACCL_EXT_CUDA=on, but no nvcc" in output


def test_unknown_option_is_an_error(tmp_path):
    works, output = configure(tmp_path, "-DACCL_EXT_CUDA=perhaps")
    assert not works
    assert "ACCL_EXT_CUDA must be auto, on or off, not 'perhaps'" in output


@pytest.mark.parametrize(("version", "standard"), [("2.11.0", 17), ("2.12.1+cu130", 20)])
def test_standard_follows_torch(tmp_path, version, standard):
    option = fake_torch(tmp_path / "torch", version)
    works, output = configure(tmp_path / "build", "-DACCL_EXT_CUDA=off", option)
    assert works, output
    assert f"torch {version} in {tmp_path}/torch, C++{standard}" in output


def test_too_old_torch_is_an_error(tmp_path):
    works, output = configure(tmp_path / "build", fake_torch(tmp_path / "torch", "2.10.0"))
    assert not works
    assert "needs torch 2.11 or newer, found 2.10.0" in output


def test_folder_without_torch_is_an_error(tmp_path):
    works, output = configure(tmp_path, "-DACCL_EXT_TORCH=/nowhere")
    assert not works
    assert "(looked in '/nowhere'): install torch there" in output


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
class TestArchitectures:
    def test_torch_cuda_arch_list(self, tmp_path):
        works, output = configure(tmp_path, "-DTORCH_CUDA_ARCH_LIST=8.0 9.0+PTX")
        assert works, output
        assert "architectures 8.0;9.0+PTX (TORCH_CUDA_ARCH_LIST)" in output
        cache = (tmp_path / "generated" / "_build_config.json").read_text()
        assert '"cuda_architectures": ["8.0", "9.0+PTX"]' in cache
        flags = (tmp_path / "compile_commands.json").read_text()
        assert "arch=compute_80,code=[sm_80]" in flags
        assert "arch=compute_90,code=[sm_90]" in flags
        assert "arch=compute_90,code=[compute_90]" in flags

    def test_unreadable_list_is_an_error(self, tmp_path):
        works, output = configure(tmp_path, "-DTORCH_CUDA_ARCH_LIST=9.0;Hopper")
        assert not works
        assert "TORCH_CUDA_ARCH_LIST holds 'Hopper'" in output
