"""What nvcc and ptxas make of csrc/cuda: registers, and stores of whole vectors; and the error of
the exponential of 16-bit types. Needs no GPU.

docs/cuda.md says what the numbers mean; registers.csv holds the budget.
"""

import csv
import os
import re
import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "csrc" / "cuda"
SOURCES = sorted(KERNELS.glob("*.cu"))
NVCC = shutil.which("nvcc", path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin")
FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-gencode", "arch=compute_90,code=sm_90"]

slow = pytest.mark.slow  # two minutes on two cores

MANGLED = re.compile(r"\d+([a-z]+_[a-z_]+)I(6__half|13__nv_bfloat16|f|d|)((?:L[ib]\d+E)*)E")
TYPES = {
    "": "float32",
    "6__half": "float16",
    "13__nv_bfloat16": "bfloat16",
    "f": "float32",
    "d": "float64",
}


def kernel_name(mangled: str) -> str:
    """_ZN...18multiclass_forwardI6__halfLi4EE... -> multiclass_forward float16 4"""
    name, dtype, numbers = MANGLED.search(mangled).groups()
    return " ".join([name, TYPES[dtype], *re.findall(r"\d+", numbers)])


def compile_one(source: Path, folder: Path) -> tuple[str, str]:
    """(what ptxas reports, PTX)"""
    folder.mkdir()
    command = [NVCC, *FLAGS, "-Xptxas", "-v", "--keep", "--keep-dir", folder]
    result = subprocess.run(
        [*command, "-c", source, "-o", folder / "out.o"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stderr, (folder / f"{source.stem}.ptx").read_text()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    if NVCC is None:
        pytest.skip("needs nvcc")
    folder = tmp_path_factory.mktemp("cuda_code")
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda source: compile_one(source, folder / source.stem), SOURCES))


@pytest.fixture(scope="module")
def registers(compiled):
    """Of each kernel: (registers, bytes spilled)."""
    entry = re.compile(
        r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?"
        r"Used (\d+) registers",
        re.DOTALL,
    )
    return {
        kernel_name(name): (int(used), int(stack) + int(spilled))
        for report, _ in compiled
        for name, stack, spilled, used in entry.findall(report)
    }


@pytest.fixture(scope="module")
def ptx(compiled):
    """The instructions of each kernel."""
    return {
        kernel_name(name): body
        for _, text in compiled
        for name, body in re.findall(r"\.entry (\w+)\((.*?)\n}\n", text, re.DOTALL)
    }


@slow
def test_every_kernel_keeps_to_its_registers(registers):
    with (HERE / "registers.csv").open() as file:
        budget = {row["kernel"]: int(row["registers"]) for row in csv.DictReader(file)}
    assert registers.keys() == budget.keys()
    over = {k: used for k, (used, _) in registers.items() if used > budget[k]}
    assert not over, f"more registers than registers.csv allows: {over}"


@slow
def test_nothing_is_kept_in_local_memory(registers, ptx):
    assert not {k: spilled for k, (_, spilled) in registers.items() if spilled}
    assert not [k for k, body in ptx.items() if ".local" in body]


def room(kernel: str) -> int:
    """Classes that a kernel of several classes has room for, else 1."""
    return int(kernel.split()[-1]) if kernel.startswith("multiclass") else 1


# Stores of maps in each kernel that writes nothing else: whole vectors, and elements of the path
# for tails and misaligned rows. The compiler that splits a vector makes 4 scalar stores of it, or
# as many pairs.
VECTORS = {"binary_backward": 2, "multiclass_backward": 1, "many_backward": 1}
VECTORS |= {"score_map": 2, "score_gradient": 2}


@slow
def test_vectors_are_stored_whole(ptx):
    seen = 0
    for kernel, body in ptx.items():
        name, dtype = kernel.split()[:2]
        if name not in VECTORS:
            continue
        seen += 1
        stores = Counter(re.findall(r"st\.global\.(\S+)", body))
        half = dtype.endswith("16") and name != "score_map"  # whose map is of float32
        whole = "v2.b32" if half else "v4.b32"
        count = room(kernel)
        elements = 1
        if name == "many_backward":  # its threads stay together, so a tail is masked
            elements = 2 if dtype == "float64" else 4
        assert stores.pop(whole) == VECTORS[name] * count, f"{kernel}: {stores}"
        assert sum(stores.values()) == elements * count, f"{kernel}: {stores}"
        split = {s for s in stores if s.startswith("v")} - (
            {"v2.b32"} if dtype == "float64" else set()
        )
        assert not split, f"{kernel}: {stores}"  # a float64 is two words
    assert seen == 4 * 5 + 2 * 3  # four types of five kernels; three more rooms of a few classes


def test_the_exponential_of_16_bit_types():
    """2^(x log2(e)) in float32, with the two units in the last place that ex2.approx may be off."""
    source = (KERNELS / "segmentation_head.cuh").read_text()
    (factor,) = re.findall(r"exp2_approximate\(x \* ([\d.]+)f\)", source)
    x = -torch.linspace(0, 87.3, 1_000_001)  # exp(x) is a normal number
    y = torch.exp2((x * torch.tensor(float(factor))).double())
    error = ((y - x.double().exp()) / x.double().exp()).abs() + 2 * 2.0**-23
    assert error.max() < 2.0**-17
    assert error[x > -10].max() < 2.0**-19
