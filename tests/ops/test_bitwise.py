"""The same bits: run after run, for any number of threads, alone or in a batch, in any strides, and
for every instruction set that fuses multiply-adds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import accl_ext
from ops.op_cases import CASES, FEW, cases, outputs_and_gradients
from ops.oracle import LAYOUTS, assert_near, lay_out, make_labels, make_logits

# Three and a bit chunks of 8192: several units of work for several threads.
SPATIAL = (165, 151)


def seeded(case, dtype=torch.float32, spatial=SPATIAL):
    torch.manual_seed(1)
    return outputs_and_gradients(case, dtype, spatial)


def assert_same_bits(a, b):
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(**cases(CASES))
def test_repeats_and_threads(case):
    torch.set_num_threads(1)
    first = seeded(case)
    for threads in (2, 1, 3, 2):
        torch.set_num_threads(threads)
        assert_same_bits(seeded(case), first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(**cases(FEW))
def test_threads_in_every_dtype(case, dtype):
    torch.set_num_threads(1)
    first = seeded(case, dtype)
    torch.set_num_threads(2)
    assert_same_bits(seeded(case, dtype), first)


def head(logits, labels, bounds, gradients):
    leaf = logits.detach().requires_grad_()
    outputs = accl_ext.segmentation_head(leaf, labels, bounds)
    (gradient,) = torch.autograd.grad([outputs.probabilities, outputs.soft_size], leaf, gradients)
    return outputs.probabilities, outputs.soft_size, gradient


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", [33, 1025, 8193, 20_001])
def test_an_image_alone_or_in_a_batch(classes, size):
    z = make_logits(5, classes, (size,), torch.float32)
    y = make_labels(5, classes, (size,))
    g = torch.randn_like(z), torch.randn(5, classes)
    batch = head(z, y, (1, 2), g)
    each = [accl_ext.partial_cross_entropy(z[i : i + 1], y[i : i + 1]) for i in range(5)]
    penalty = accl_ext.size_penalty(z, (1, 2), reduction="none")
    for i in range(5):
        one = slice(i, i + 1)
        alone = head(z[one], y[one], (1, 2), (g[0][one], g[1][one]))
        assert_same_bits(alone, [x[one] for x in batch])
        assert torch.equal(accl_ext.size_penalty(z[one], (1, 2), reduction="none"), penalty[one])
        ce_map = accl_ext.partial_cross_entropy(z, y, reduction="none")
        assert torch.equal(
            accl_ext.partial_cross_entropy(z[one], y[one], reduction="none"), ce_map[one]
        )
        # The loss of a batch that holds one labelled image is that image's.
        others = torch.full_like(y, 255)
        others[i] = y[i]
        assert torch.equal(accl_ext.partial_cross_entropy(z, others), each[i])


@pytest.mark.parametrize("layout", [x for x in LAYOUTS if not x.startswith("expanded")])
@pytest.mark.parametrize(**cases(FEW))
def test_any_strides_and_alignment(case, layout):
    leaves, run = case.make(torch.float32, (41, 27))
    outputs = run(accl_ext, *leaves)
    cotangents = [torch.randn_like(x) for x in outputs]
    wanted = [*outputs, *torch.autograd.grad(outputs, leaves, cotangents)]
    moved = [lay_out(x.detach(), layout).requires_grad_() for x in leaves]
    outputs = run(accl_ext, *moved)
    assert_same_bits([*outputs, *torch.autograd.grad(outputs, moved, cotangents)], wanted)


def test_labels_in_any_strides_and_of_any_type():
    z = make_logits(3, 1, (41, 27), torch.float32)
    y = make_labels(3, 1, (41, 27))
    wanted = accl_ext.partial_cross_entropy(z, y)
    for layout in LAYOUTS[:5]:
        assert torch.equal(accl_ext.partial_cross_entropy(z, lay_out(y, layout)), wanted)
    for dtype in (torch.int16, torch.int32, torch.int64):
        assert torch.equal(accl_ext.partial_cross_entropy(z, y.to(dtype)), wanted)


# ---------------------------------------------------------------------------------------------
# Instruction sets: each in a process of its own, which writes inputs and results to a file

WRITE_RESULTS = """
import sys, torch, accl_ext
from ops.instruction_set_results import results
torch.save({"isa": accl_ext.build_info()["instruction_set"], "results": results()}, sys.argv[1])
"""


@pytest.fixture(scope="module")
def of_isa(tmp_path_factory):
    """Results of every instruction set that this processor has."""
    found = {}
    for isa in ("baseline", "avx2", "avx512"):
        path = tmp_path_factory.mktemp("isa") / f"{isa}.pt"
        environment = {
            **os.environ,
            "ACCL_EXT_ISA": isa,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        }
        subprocess.run([sys.executable, "-c", WRITE_RESULTS, path], check=True, env=environment)
        saved = torch.load(path)
        if saved["isa"] == isa:
            found[isa] = saved["results"]
    return found


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_is_right(of_isa, isa):
    if isa not in of_isa:
        pytest.skip(f"this processor has no {isa}")
    for name, (got, wanted) in of_isa[isa].items():
        for a, b in zip(got, wanted, strict=True):
            assert_near(a, b, name)


def test_avx2_and_avx512_agree_to_the_last_bit(of_isa):
    if "avx512" not in of_isa:
        pytest.skip("this processor has no avx512")
    for name, (got, _) in of_isa["avx2"].items():
        for a, b in zip(got, of_isa["avx512"][name][0], strict=True):
            assert torch.equal(a, b), name


def test_an_unknown_instruction_set_is_refused():
    code = (
        "import torch, accl_ext\n"
        "for call in (accl_ext.build_info, lambda: accl_ext.accl_loss(torch.zeros(3))):\n"
        "    try: call()\n"
        "    except ValueError as error: print(error)\n"
    )
    environment = {
        **os.environ, "ACCL_EXT_ISA": "avx", "PYTHONPATH": os.pathsep.join(sys.path)
    }  # fmt: skip
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    message = "ACCL_EXT_ISA must be baseline, avx2 or avx512, got avx"
    assert run.stdout.decode().splitlines() == [message, message], run.stderr.decode()
