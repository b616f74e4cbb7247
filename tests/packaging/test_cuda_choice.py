"""Whether CUDA is built, with which nvcc and for which architectures: cmake/AcclCudaChoice.cmake
run alone, with a script in the place of nvcc and of nvidia-smi."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from build_tools import CMAKE, HIDE_NVCC, ROOT, environment

pytestmark = pytest.mark.skipif(CMAKE is None, reason="needs CMake")

NVCC_11 = "sm_70 sm_75 sm_80 sm_86"
NVCC_13 = "sm_75 sm_80 sm_86 sm_87 sm_88 sm_89 sm_90 sm_100 sm_110 sm_103 sm_120 sm_121"


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


class Machine:
    """A folder of programs first on PATH: an nvcc that prints, a GPU or none."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.gpu(None)

    def nvcc(self, version="13.0", codes=NVCC_13, compiles=True, folder=None):
        refusal = "echo 'host_config.h: error: unsupported GNU version!' >&2; exit 1"
        script(
            (folder or self.folder) / "nvcc",
            f'case "$*" in *--version*) echo "release {version}, V{version}.88" ;;\n'
            f'*--list-gpu-code*) printf "%s\\n" {codes} ;;\n'
            f"*) {'exit 0' if compiles else refusal} ;; esac",
        )
        return self

    def gpu(self, *capabilities):
        answer = "exit 9" if capabilities == (None,) else f"printf '%s\\n' {' '.join(capabilities)}"
        script(self.folder / "nvidia-smi", answer)
        return self

    def choose(self, *options, torch="13.0", **variables):
        """(whether it worked, everything that was printed)"""
        if not (self.folder / "nvcc").exists():
            options = (*options, HIDE_NVCC)
        result = subprocess.run(
            [
                *(CMAKE, "-DACCL_TORCH_VERSION=2.13.0", f"-DACCL_TORCH_CUDA={torch}", *options),
                *("-P", ROOT / "cmake" / "AcclCudaChoice.cmake"),
            ],
            env=environment(PATH=f"{self.folder}:{os.environ['PATH']}", **variables),
            capture_output=True,
            text=True,
        )
        return result.returncode == 0, " ".join((result.stdout + result.stderr).split())

    def architectures(self, *options, **variables):
        works, output = self.choose(*options, **variables)
        assert works, output
        return re.search(r"architectures (\S+) \(", output).group(1).split(";"), output


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "bin")


class TestWhetherCudaIsBuilt:
    def test_off(self, machine):
        works, output = machine.nvcc().choose(ACCL_EXT_CUDA="off")
        assert works
        assert output == "-- accl_ext: CPU only, because ACCL_EXT_CUDA=off"

    def test_auto_where_torch_and_nvcc_have_it(self, machine):
        works, output = machine.nvcc().choose()
        assert works
        assert f"CUDA 13.0 ({machine.folder}/nvcc), because ACCL_EXT_CUDA=auto" in output

    def test_auto_with_a_torch_without_cuda(self, machine):
        works, output = machine.nvcc().choose(torch="")
        assert works
        assert "CPU only, because torch 2.13.0 has no CUDA; ACCL_EXT_CUDA=on builds" in output

    def test_on_with_a_torch_without_cuda(self, machine):
        works, output = machine.nvcc().choose(torch="", ACCL_EXT_CUDA="on")
        assert works
        assert "accl_ext: CUDA 13.0" in output

    def test_no_nvcc(self, machine):
        works, output = machine.choose()
        assert works
        assert "CPU only, because there is no nvcc on PATH" in output
        works, output = machine.choose(ACCL_EXT_CUDA="on")
        assert not works
        assert "ACCL_EXT_CUDA=on, but there is no nvcc on PATH" in output

    @pytest.mark.parametrize(("nvcc", "torch"), [("13.0", "12.8"), ("12.4", "11.8")])
    def test_nvcc_of_a_higher_major_than_torch(self, machine, nvcc, torch):
        driver = {"13.0": "580", "12.4": "525.60.13"}[nvcc]
        machine.nvcc(nvcc)
        works, output = machine.choose(torch=torch)
        assert works
        assert f"CPU only, because {machine.folder}/nvcc is of CUDA {nvcc} and torch" in output
        assert f"would need a driver of {driver} or newer" in output
        works, output = machine.choose("-DACCL_EXT_CUDA=on", torch=torch)
        assert not works
        assert f"but {machine.folder}/nvcc is of CUDA {nvcc} and torch 2.13.0 of CUDA" in output

    @pytest.mark.parametrize("nvcc", ["12.4", "12.9", "11.8"])
    def test_nvcc_of_the_same_or_a_lower_major(self, machine, nvcc):
        works, output = machine.nvcc(nvcc).choose(torch="12.6")
        assert works
        assert f"accl_ext: CUDA {nvcc}" in output

    def test_cuda_home_and_cudacxx_come_before_the_path(self, machine, tmp_path):
        machine.nvcc("13.0")
        machine.nvcc("12.8", folder=tmp_path / "old" / "bin")
        home = machine.choose(torch="12.6", CUDA_HOME=str(tmp_path / "old"))[1]
        assert f"CUDA 12.8 ({tmp_path}/old/bin/nvcc)" in home
        cxx = machine.choose(torch="12.6", CUDACXX=str(tmp_path / "old" / "bin" / "nvcc"))[1]
        assert cxx == home

    def test_nvcc_that_does_not_run_or_compile(self, machine):
        script(machine.folder / "nvcc", "exit 1")
        works, output = machine.choose()
        assert works
        assert "nvcc --version does not run" in output
        machine.nvcc(compiles=False)
        works, output = machine.choose()
        assert works
        assert "does not compile with this C++ compiler (host_config.h: error: unsup" in output
        assert not machine.choose(ACCL_EXT_CUDA="on")[0]


class TestArchitectures:
    def test_default(self, machine):
        got, output = machine.nvcc().architectures()
        assert got == ["7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0+PTX"]
        assert "no GPU is visible and TORCH_CUDA_ARCH_LIST is not set" in output

    def test_default_of_an_older_nvcc_keeps_ptx(self, machine):
        got, output = machine.nvcc("11.2", NVCC_11).architectures()
        assert got == ["7.5", "8.0", "8.6+PTX"]
        assert "leaves out 8.9, which nvcc 11.2 does not know" in output

    def test_visible_gpus(self, machine):
        got, output = machine.nvcc().gpu("9.0", "8.0", "9.0").architectures()
        assert got == ["8.0", "9.0+PTX"]
        assert "(the visible GPU's)" in output

    def test_gpu_newer_than_nvcc_gets_the_nearest_ptx(self, machine):
        got, output = machine.nvcc("11.2", NVCC_11).gpu("12.0", "7.5").architectures()
        assert got == ["7.5", "8.6+PTX"]
        assert "8.6+PTX for the GPU's 12.0, which nvcc 11.2 does not know" in output

    def test_gpu_older_than_nvcc(self, machine):
        works, output = machine.nvcc().gpu("6.1").choose()
        assert works
        assert "nvcc 13.0 knows none of the architectures '6.1' (the visible GPU's)" in output

    def test_list_wins_over_the_gpu(self, machine):
        machine.nvcc().gpu("9.0")
        assert machine.architectures(TORCH_CUDA_ARCH_LIST="8.0")[0] == ["8.0+PTX"]
        assert machine.architectures(TORCH_CUDA_ARCH_LIST="native")[0] == ["9.0+PTX"]

    @pytest.mark.parametrize("choice", ["auto", "on"])
    def test_list_of_an_older_container(self, machine, choice):
        got, output = machine.nvcc().architectures(
            TORCH_CUDA_ARCH_LIST="5.2 6.0 7.0 7.5 8.0 9.0+PTX", ACCL_EXT_CUDA=choice
        )
        assert got == ["7.5", "8.0", "9.0+PTX"]
        for number in ("5.2", "6.0", "7.0"):
            assert f"leaves out {number}, which nvcc 13.0 does not know" in output

    @pytest.mark.parametrize(
        ("wanted", "got"),
        [
            ("8.0+PTX;9.0", ["8.0+PTX", "9.0+PTX"]),
            ("Ampere;Hopper", ["8.0", "8.6", "9.0+PTX"]),
            ("Ampere+Tegra, Blackwell", ["8.7", "10.0", "10.3", "12.0", "12.1+PTX"]),
            ("9.0a 10.0a", ["9.0", "10.0+PTX"]),
        ],
    )
    def test_names_and_forms_of_torch(self, machine, wanted, got):
        assert machine.nvcc().architectures(TORCH_CUDA_ARCH_LIST=wanted)[0] == got

    def test_unknown_name(self, machine):
        machine.nvcc()
        got, output = machine.architectures(TORCH_CUDA_ARCH_LIST="9.0;Hoper")
        assert got == ["9.0+PTX"]
        assert "TORCH_CUDA_ARCH_LIST holds 'Hoper': wanted numbers like 8.0" in output
        works, output = machine.choose(TORCH_CUDA_ARCH_LIST="9.0;Hoper", ACCL_EXT_CUDA="on")
        assert not works
        assert "TORCH_CUDA_ARCH_LIST holds 'Hoper': wanted numbers like 8.0" in output

    def test_nothing_remains(self, machine):
        machine.nvcc()
        works, output = machine.choose(TORCH_CUDA_ARCH_LIST="5.2 6.0")
        assert works
        assert "CPU only, because nvcc 13.0 knows none of the architectures '5.2;6.0'" in output
        works, output = machine.choose(TORCH_CUDA_ARCH_LIST="5.2 6.0", ACCL_EXT_CUDA="on")
        assert not works
        assert "ACCL_EXT_CUDA=on, but nvcc 13.0 knows none" in output
