"""What only a GPU can show: streams, graphs, launches, memory, sizes beyond 2^31, other devices."""

import math
import os
import subprocess
import sys

import pytest
import torch
from ops.oracle import assert_near
from test_cuda_ops import DEVICE, head_inputs, step

import accl_ext
from accl_ext import reference

pytestmark = pytest.mark.cuda


def test_the_current_stream_is_used():
    logits, labels, bounds = head_inputs(spatial=(256, 256))
    wanted = step(logits, labels, bounds)
    late = torch.zeros_like(logits)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)  # a kernel on another stream would read the zeros
        late.copy_(logits)
        got = step(late, labels, bounds)
    side.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_nothing_synchronises():
    logits, labels, bounds = head_inputs()
    accl_ext.size_penalty(logits, (10.0, 20.0))  # puts the pair on the device
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(logits, labels, bounds)
        accl_ext.size_penalty(logits, (10.0, 20.0))
        accl_ext.accl_discriminator_loss(logits, logits)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_graph_capture():
    logits, labels, bounds = head_inputs(spatial=(250, 250))  # several blocks, so a ticket
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(logits, labels, bounds)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        captured = step(logits, labels, bounds)
    for seed in range(2):
        torch.manual_seed(seed)
        logits.normal_()
        labels.copy_(torch.where(torch.rand(labels.shape, device=DEVICE) < 0.1, 1, 255))
        graph.replay()
        wanted = step(logits, labels, bounds)
        assert all(torch.equal(a, b) for a, b in zip(captured, wanted, strict=True))


FIRST_CALL_IN_A_CAPTURE = """
import torch, accl_ext

logits = torch.linspace(-3, 3, 2 * 3 * 300 * 300, device="cuda").view(2, 3, 300, 300)
labels = torch.arange(2 * 300 * 300, device="cuda").view(2, 300, 300) % 4
leaf = logits.clone().requires_grad_()
bounds = torch.tensor([10.0, 20.0], device="cuda")


def step():
    out = accl_ext.segmentation_head(leaf, labels, bounds, ignore_index=3)
    loss = out.partial_ce + out.size_penalty + accl_ext.accl_loss(out.probabilities)
    return [loss.detach(), *torch.autograd.grad(loss, leaf)]


torch.autograd.grad((leaf * 2).sum(), leaf)  # starts autograd's thread and torch's own kernels
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    captured = step()
for _ in range(2):
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))
"""


def test_a_first_call_inside_a_capture():
    # In a process of its own, where no kernel of ours is loaded yet.
    result = subprocess.run(
        [sys.executable, "-c", FIRST_CALL_IN_A_CAPTURE],
        env={**os.environ, "CUDA_MODULE_LOADING": "LAZY"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_a_new_pair_of_bounds_during_capture_says_to_pass_a_tensor():
    logits, *_ = head_inputs()
    with pytest.raises(RuntimeError, match="tensor"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        accl_ext.size_penalty(logits, (123.25, 124.75))
    torch.cuda.synchronize()


@pytest.mark.slow
def test_reduce_overhead():
    logits, labels, bounds = head_inputs(spatial=(128, 128))

    @torch.compile(mode="reduce-overhead", fullgraph=True)
    def loss(x):
        out = accl_ext.segmentation_head(x, labels, bounds)
        return out.partial_ce + 0.01 * out.size_penalty + accl_ext.accl_loss(out.probabilities)

    for _ in range(4):
        leaf, oracle = logits.clone().requires_grad_(), logits.double().requires_grad_()
        torch.compiler.cudagraph_mark_step_begin()
        loss(leaf).backward()
        wanted = reference.segmentation_head(oracle, labels, bounds.double())
        (
            wanted.partial_ce
            + 0.01 * wanted.size_penalty
            + reference.accl_loss(wanted.probabilities)
        ).backward()
        assert_near(leaf.grad, oracle.grad)
        logits = logits + 0.1


def device_work(work) -> tuple[int, int]:
    """Kernels that work() launches, and memory that it sets."""
    work()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    names = [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    sets = sum(name.startswith("Memset") for name in names)
    return len(names) - sets, sets


# A forward that sums in several blocks clears their ticket first: 4 bytes.
@pytest.mark.parametrize("classes", [1, 3, 12])
@pytest.mark.parametrize("spatial", [(16, 16), (512, 512)], ids=str)
def test_one_launch_forward_and_one_backward(classes, spatial):
    logits, labels, bounds = head_inputs(torch.float32, 4, classes, spatial)
    few = spatial == (16, 16)  # scores that one block sums
    calls = {
        "accl_loss": ([logits], lambda x: accl_ext.accl_loss(x), not few),
        "accl_loss, none": ([logits], lambda x: accl_ext.accl_loss(x, reduction="none"), False),
        "accl_discriminator_loss": (
            [logits, -logits],
            lambda x, y: accl_ext.accl_discriminator_loss(x, y),
            not few,
        ),
        "partial_cross_entropy": (
            [logits],
            lambda x: accl_ext.partial_cross_entropy(x, labels, reduction="image_mean"),
            True,
        ),
        "size_penalty": ([logits], lambda x: accl_ext.size_penalty(x, bounds), True),
        "segmentation_head": (
            [logits],
            lambda x: tuple(accl_ext.segmentation_head(x, labels, bounds)),
            True,
        ),
    }
    for name, (inputs, call, has_ticket) in calls.items():
        leaves = [x.detach().requires_grad_() for x in inputs]
        outputs = call(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        cotangents = [torch.randn_like(x) for x in outputs]
        forward = device_work(lambda c=call, x=leaves: c(*x))
        backward = device_work(
            lambda o=outputs, x=leaves, g=cotangents: torch.autograd.grad(
                o, x, g, retain_graph=True
            )
        )
        assert forward == (1, int(has_ticket)), f"{name} forward: (kernels, sets) {forward}"
        assert backward == (1, 0), f"{name} backward: (kernels, sets) {backward}"


@pytest.mark.parametrize("classes", [1, 3])
def test_memory_is_outputs_and_a_thousandth(classes):
    logits, labels, bounds = head_inputs(torch.float32, 4, classes, (1024, 1024))
    accl_ext.segmentation_head(logits, labels, bounds)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = accl_ext.segmentation_head(logits, labels, bounds)
    extra = torch.cuda.max_memory_allocated() - before - out.probabilities.nbytes
    assert extra <= (logits.nbytes + labels.nbytes) / 1000 + 6 * 512  # small tensors: 512 bytes


def test_beyond_2_to_the_31_elements():
    pixels = 2**31 + 4101
    free, _ = torch.cuda.mem_get_info()
    if free < 13 * pixels:
        pytest.skip(f"needs {13 * pixels >> 30} GiB of free GPU memory, got {free >> 30}")
    # p = 1/2 adds up exactly, so the last pixels show: read, summed and written, or not.
    logits = torch.zeros(1, 1, pixels, device=DEVICE, dtype=torch.bfloat16)
    labels = torch.full((1, pixels), 255, device=DEVICE, dtype=torch.uint8)
    logits[..., -8:] = 4.0
    labels[..., -1] = 1
    logits.requires_grad_()
    out = accl_ext.segmentation_head(logits, labels)
    p = torch.sigmoid(torch.tensor(4.0, dtype=torch.float64)).item()
    size = (pixels - 8) / 2 + 8 * p
    assert out.soft_size.item() == pytest.approx(size, rel=1e-6)
    assert out.partial_ce.item() == pytest.approx(-math.log(p), rel=1e-5)
    assert out.probabilities[0, 0, 2**31 - 1 : 2**31 + 1].tolist() == [0.5, 0.5]
    assert out.probabilities[0, 0, -8:].tolist() == [torch.tensor(p).bfloat16().item()] * 8
    (grad,) = torch.autograd.grad(out.partial_ce + out.soft_size.sum(), logits)
    slope = p * (1 - p)
    assert grad[0, 0, 2**31 - 1 : 2**31 + 1].tolist() == [0.25, 0.25]
    assert grad[0, 0, -2].item() == pytest.approx(slope, rel=2**-8)
    assert grad[0, 0, -1].item() == pytest.approx(slope - (1 - p), rel=2**-6)


def test_another_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    logits, labels, bounds = head_inputs()
    got = step(*(x.to("cuda:1") for x in (logits, labels, bounds)))
    wanted = step(logits, labels, bounds)
    assert all(x.device.index == 1 for x in got)
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(got, wanted, strict=True))
