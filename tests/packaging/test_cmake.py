"""The decisions of the CMake build, from its configure step alone."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from build_tools import CMAKE, GENERATOR, HIDE_NVCC, ROOT, environment

from accl_ext import _library

pytestmark = [
    pytest.mark.skipif(CMAKE is None, reason="needs CMake"),
    pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler"),
]


def configure(build, *options, **variables):
    """(whether it worked, everything it printed)"""
    result = subprocess.run(
        [
            *(CMAKE, "-S", ROOT, "-B", build, *GENERATOR, "-DACCL_EXT_TESTS=OFF"),
            *(f"-DPython_EXECUTABLE={sys.executable}", *options),
        ],
        env=environment(**variables),
        capture_output=True,
        text=True,
    )
    return result.returncode == 0, " ".join((result.stdout + result.stderr).split())


def fake_torch(folder, version, cuda="None"):
    (folder / "include/torch/csrc/api/include").mkdir(parents=True)
    (folder / "version.py").write_text(
        "from typing import Optional\n__all__ = ['__version__', 'cuda', 'hip']\n"
        f"__version__ = '{version}'\ncuda: Optional[str] = {cuda}\nhip: Optional[str] = None\n"
    )
    return f"-DACCL_EXT_TORCH={folder}"


def test_cpu_build_says_why(tmp_path):
    works, output = configure(tmp_path, "-DACCL_EXT_CUDA=off")
    assert works, output
    assert "CPU only, because ACCL_EXT_CUDA=off" in output
    folder = Path(torch.__file__).parent.resolve()
    assert f"torch {torch.__version__} in {folder}" in output


def test_nothing_needs_to_be_activated(tmp_path):
    """Python, CMake and Ninja are those of this interpreter, whatever PATH says first."""
    path = os.pathsep.join(
        folder for folder in os.get_exec_path() if not (Path(folder).parent / "pyvenv.cfg").exists()
    )
    works, output = configure(tmp_path, "-DACCL_EXT_CUDA=off", PATH=path)
    assert works, output
    config = json.loads((tmp_path / "generated" / "_build_config.json").read_text())
    assert config["torch"] == torch.__version__
    assert config["contract"] == _library._contract() is not None


def test_torch_without_cuda_gets_a_cpu_build(tmp_path):
    option = fake_torch(tmp_path / "torch", "2.13.0+cpu")
    works, output = configure(tmp_path / "build", option)
    assert works, output
    assert "CPU only, because torch 2.13.0+cpu has no CUDA" in output


@pytest.mark.parametrize("cuda", ["'13.0'", '"12.8"'])
def test_auto_without_nvcc_builds_for_the_cpu(tmp_path, cuda):
    option = fake_torch(tmp_path / "torch", "2.13.0", cuda)
    works, output = configure(tmp_path / "build", "-DACCL_EXT_CUDA=auto", option, HIDE_NVCC)
    assert works, output
    assert "CPU only, because there is no nvcc" in output


def test_on_without_nvcc_is_an_error(tmp_path):
    works, output = configure(tmp_path, "-DACCL_EXT_CUDA=on", HIDE_NVCC)
    assert not works
    assert "ACCL_EXT_CUDA=on, but there is no nvcc" in output


def test_unknown_option_is_an_error(tmp_path):
    works, output = configure(tmp_path, "-DACCL_EXT_CUDA=perhaps")
    assert not works
    assert "ACCL_EXT_CUDA must be auto, on or off, not 'perhaps'" in output


@pytest.mark.parametrize(("version", "standard"), [("2.11.0", 17), ("2.12.1+cu130", 20)])
def test_standard_follows_torch(tmp_path, version, standard):
    option = fake_torch(tmp_path / "torch", version)
    works, output = configure(tmp_path / "build", "-DACCL_EXT_CUDA=off", option)
    assert works, output
    assert f"torch {version} in {tmp_path.resolve()}/torch, C++{standard}" in output


def test_too_old_torch_is_an_error(tmp_path):
    works, output = configure(tmp_path / "build", fake_torch(tmp_path / "torch", "2.10.0"))
    assert not works
    assert "needs torch 2.11 or newer, found 2.10.0" in output


def test_folder_without_torch_is_an_error(tmp_path):
    works, output = configure(tmp_path, "-DACCL_EXT_TORCH=/nowhere")
    assert not works
    assert "(looked in '/nowhere'): install torch there" in output


def test_compile_commands_change_with_torch_but_not_with_its_place(tmp_path):
    """What was compiled stays when the same torch is unpacked elsewhere, and only then."""

    def commands(place, version):
        link = tmp_path / "torch"
        link.unlink(missing_ok=True)
        fake_torch(tmp_path / place, version)
        link.symlink_to(tmp_path / place)
        works, output = configure(tmp_path / "build", f"-DACCL_EXT_TORCH={link}")
        assert works, output
        return (tmp_path / "build" / "compile_commands.json").read_text()

    first = commands("one", "2.13.0")
    assert commands("two", "2.13.0") == first
    assert commands("three", "2.13.1") != first


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
class TestWithNvcc:
    @pytest.mark.slow
    def test_architectures_and_driver_reach_the_compiler_and_the_facts(self, tmp_path):
        options = ("-DACCL_EXT_CUDA=on", "-DTORCH_CUDA_ARCH_LIST=8.0 9.0")
        works, output = configure(tmp_path, *options)
        assert works, output
        assert "architectures 8.0;9.0+PTX (TORCH_CUDA_ARCH_LIST)" in output
        config = json.loads((tmp_path / "generated" / "_build_config.json").read_text())
        assert config["cuda_architectures"] == ["8.0", "9.0+PTX"]
        drivers = {"11": "450.80.02", "12": "525.60.13", "13": "580"}
        assert config["cuda_driver"] == drivers.get(config["cuda"].split(".")[0])
        flags = (tmp_path / "compile_commands.json").read_text()
        assert "arch=compute_80,code=[sm_80]" in flags
        assert "arch=compute_90,code=[sm_90]" in flags
        assert "arch=compute_90,code=[compute_90]" in flags
        assert "-lineinfo" not in flags
        works, output = configure(tmp_path, *options, "-DACCL_EXT_LINEINFO=ON")
        assert works, output
        assert "-lineinfo" in (tmp_path / "compile_commands.json").read_text()

    def test_advice_stands_at_the_errors_it_is_meant_for(self):
        """The numbers of csrc/ops/cuda_advice.h against the toolkit's own header."""
        nvcc = Path(shutil.which("nvcc"))
        verbose = subprocess.run(
            [nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True
        ).stderr
        top = re.search(r"\$ TOP=(.+)", verbose).group(1).strip()
        header = (Path(top) / "include" / "driver_types.h").read_text()
        numbers = dict(re.findall(r"(cudaError\w+)\s*=\s*(\d+)", header))
        advice = (ROOT / "csrc" / "ops" / "cuda_advice.h").read_text()
        cases = re.findall(r"case (\d+): // (\w+)", advice)
        assert len(cases) == advice.count("case ")
        assert {name: number for number, name in cases} == {
            name: numbers[name] for _, name in cases
        }
