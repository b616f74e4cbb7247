"""The fused ops on a GPU: against the reference in float64, and what only a GPU can show: streams,
graphs, launches, memory and sizes beyond 2^31."""

import math

import pytest
import torch
from ops.oracle import (
    DTYPES,
    LABEL_TYPES,
    LAYOUTS,
    assert_near,
    check,
    dtype_id,
    ignore_of,
    lay_out,
    make_labels,
    make_logits,
)
from torch import Tensor

import accl_ext
from accl_ext import reference

DEVICE = "cuda"


def _reason() -> str | None:
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    info = accl_ext.build_info()
    if not info["loaded"]:
        return info["reason"]
    return None if info["cuda"] else "accl_ext was built without CUDA kernels"


if _reason() is not None:
    pytest.skip(_reason(), allow_module_level=True)
pytestmark = pytest.mark.cuda

for_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
for_classes = pytest.mark.parametrize("classes", [1, 2, 3, 5, 40])
# Around a vector, a warp, a block and a chunk of 4096 pixels; few chunks, and more than 32.
SIZES = (1, 3, 31, 33, 255, 257, 900, 4095, 4097, 65_536, 1_000_001)


def bounds_around(logits: Tensor) -> Tensor:
    """[B, C, 2] in pixels: sizes fall below, inside and above, and some sides are free."""
    batch, classes = logits.shape[:2]
    shares = torch.tensor([[0.9, 0.95], [-math.inf, 0.1], [0.0, 1.0], [0.85, math.inf]])
    shares = shares[torch.arange(batch * classes) % 4].reshape(batch, classes, 2)
    return (shares * math.prod(logits.shape[2:])).to(logits.device)


def head_inputs(dtype=torch.float32, batch=2, classes=1, spatial=(64, 64)) -> tuple[Tensor, ...]:
    logits = make_logits(batch, classes, spatial, dtype).to(DEVICE)
    return logits, make_labels(batch, classes, spatial).to(DEVICE), bounds_around(logits)


# ------------------------------------------------------------------------------------------------
# Values and gradients


@for_dtypes
@for_classes
@pytest.mark.parametrize("pixels", SIZES)
def test_head(dtype, classes, pixels):
    if classes == 40 and pixels > 65_536:
        pytest.skip("the reference would need gigabytes")
    check("segmentation_head", *head_inputs(dtype, 2, classes, (pixels,)))


@for_classes
@pytest.mark.parametrize("label_type", LABEL_TYPES, ids=dtype_id)
@pytest.mark.parametrize("reduction", ["mean", "image_mean", "sum", "none"])
@pytest.mark.parametrize("pixels", [35, 5000])
def test_labels(classes, label_type, reduction, pixels):
    if label_type == torch.bool and classes > 1:
        pytest.skip("bool labels are for one class")
    labels = make_labels(3, classes, (pixels,), label_type)
    if label_type != torch.bool:
        labels[1] = ignore_of(label_type)
    for weight in (None, torch.rand(max(classes, 2)).double()):
        check(
            "partial_cross_entropy",
            make_logits(3, classes, (pixels,), torch.float32).to(DEVICE),
            labels.to(DEVICE),
            ignore_index=ignore_of(label_type),
            weight=weight if weight is None else weight.to(DEVICE),
            reduction=reduction,
        )


@for_dtypes
@for_classes
@pytest.mark.parametrize("normalize", ["area", "none", "area2"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_size(dtype, classes, normalize, reduction):
    logits = make_logits(3, classes, (61, 71), dtype).to(DEVICE)
    for bounds in (bounds_around(logits), (100.0, 200.0)):
        check("size_penalty", logits, bounds, normalize=normalize, reduction=reduction)


@for_dtypes
@pytest.mark.parametrize("criterion", ["lsgan", "vanilla", "hinge"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("count", [1, 900, 14_400, 100_003])
def test_scores(dtype, criterion, reduction, count):
    fake, real = (3 * torch.randn(2, count, device=DEVICE)).to(dtype)
    options = {"criterion": criterion, "reduction": reduction}
    check("accl_loss", fake, target=0.9, **options)
    check("accl_discriminator_loss", fake, real, scale=0.5, **options)
    if reduction != "none":
        check("accl_discriminator_loss", fake[:0], real, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", [1, 3])
def test_layouts(layout, classes):
    logits, labels, bounds = head_inputs(torch.bfloat16, 2, classes, (12, 20))
    other = layout if layout != "channels_last" else "transposed"
    check("segmentation_head", lay_out(logits, layout), lay_out(labels, other), bounds)


@for_dtypes
def test_infinite_logits_that_are_right_cost_nothing(dtype):
    logits = torch.tensor([[[math.inf, -math.inf, 0.0]]], device=DEVICE, dtype=dtype)
    labels = torch.tensor([[1, 0, 255]], device=DEVICE)
    loss = accl_ext.partial_cross_entropy(logits.requires_grad_(), labels)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize("classes", [1, 3])
def test_an_invalid_label_is_nan_at_its_pixel_alone(classes):
    logits, labels, _ = head_inputs(torch.float32, 2, classes)
    labels[1, 3, 5] = 77
    logits.requires_grad_()
    loss = accl_ext.partial_cross_entropy(logits, labels)
    loss.backward()
    assert loss.isnan()
    nan = logits.grad.isnan()
    assert nan[1, :, 3, 5].all()
    assert nan.sum() == classes
    with pytest.raises(ValueError, match="77"):
        accl_ext.validate_labels(labels, classes)


def test_empty():
    logits = torch.empty(0, 1, 8, 8, device=DEVICE, requires_grad=True)
    labels = torch.empty(0, 8, 8, device=DEVICE, dtype=torch.uint8)
    out = accl_ext.segmentation_head(logits, labels, (1.0, 2.0))
    (out.partial_ce + out.size_penalty + out.soft_size.sum()).backward()
    assert out.partial_ce.item() == out.size_penalty.item() == 0
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("classes", [1, 3])
def test_second_derivatives(classes):
    logits, labels, bounds = head_inputs(torch.float64, 2, classes, (3, 3))

    def head(x):
        return tuple(accl_ext.segmentation_head(x, labels, bounds))

    assert torch.autograd.gradcheck(head, logits.requires_grad_())
    assert torch.autograd.gradgradcheck(head, logits)
    fake, real = torch.randn(2, 7, device=DEVICE, dtype=torch.float64)
    for criterion in ("lsgan", "vanilla"):
        assert torch.autograd.gradgradcheck(
            lambda f, r, c=criterion: accl_ext.accl_discriminator_loss(f, r, criterion=c),
            (fake.clone().requires_grad_(), real.clone().requires_grad_()),
        )


def test_opcheck():
    logits, labels, bounds = head_inputs(torch.float32, 2, 3, (5, 7))
    scores = torch.randn(2, 900, device=DEVICE, requires_grad=True)
    ops = torch.ops.accl_ext
    logits.requires_grad_()
    options = (255, None, None, 0.0)
    torch.library.opcheck(ops.segmentation_head.default, (logits, labels, bounds, *options, "area"))
    torch.library.opcheck(ops.partial_cross_entropy.default, (logits, labels, *options, "mean"))
    torch.library.opcheck(ops.size_penalty.default, (logits, bounds, "area", "mean"))
    torch.library.opcheck(ops.accl_loss.default, (scores, 1.0, "lsgan", "mean"))


def test_other_devices_are_refused_by_name():
    logits, labels, _ = head_inputs()
    with pytest.raises(ValueError, match=r"cuda:0.*cpu"):
        accl_ext.partial_cross_entropy(logits, labels.cpu())


# ------------------------------------------------------------------------------------------------
# Determinism


def step(logits: Tensor, labels: Tensor, bounds: Tensor) -> tuple[Tensor, ...]:
    """All outputs of the head, and a gradient through all of them."""
    leaf = logits.detach().requires_grad_()
    out = accl_ext.segmentation_head(leaf, labels, bounds)
    weight = torch.linspace(-1, 1, leaf.numel(), device=leaf.device).view_as(leaf)
    loss = (out.probabilities * weight.to(leaf.dtype)).sum() + out.soft_size.sum()
    (grad,) = torch.autograd.grad(loss + out.partial_ce + out.size_penalty, leaf)
    return (*(x.detach() for x in out), grad)


@for_dtypes
@pytest.mark.parametrize("classes", [1, 3])
def test_repeats_and_alignment_change_no_bit(dtype, classes):
    logits, labels, bounds = head_inputs(dtype, 3, classes, (250, 200))
    wanted = step(logits, labels, bounds)
    for layout in ("contiguous", "offset") * 10:
        got = step(lay_out(logits, layout), lay_out(labels, layout), bounds)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@for_dtypes
@pytest.mark.parametrize("classes", [1, 3])
def test_an_image_alone_is_the_image_in_a_batch(dtype, classes):
    logits, labels, bounds = head_inputs(dtype, 5, classes, (251, 201))
    batch = accl_ext.segmentation_head(logits, labels, bounds)
    for i in range(5):
        one = slice(i, i + 1)
        alone = accl_ext.segmentation_head(logits[one], labels[one], bounds[one])
        assert torch.equal(alone.probabilities, batch.probabilities[one])
        assert torch.equal(alone.soft_size, batch.soft_size[one])


# ------------------------------------------------------------------------------------------------
# Streams, graphs, launches, memory


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


def kernels(work) -> list[str]:
    """Names of the kernels that work() launches; memory copies and sets do not count."""
    work()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    names = [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return [n for n in names if not n.startswith(("Memset", "Memcpy"))]


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("spatial", [(16, 16), (512, 512)], ids=str)
def test_one_launch_forward_and_one_backward(classes, spatial):
    logits, labels, bounds = head_inputs(torch.float32, 4, classes, spatial)
    calls = {
        "accl_loss": ([logits], lambda x: accl_ext.accl_loss(x)),
        "accl_discriminator_loss": (
            [logits, -logits],
            lambda x, y: accl_ext.accl_discriminator_loss(x, y),
        ),
        "partial_cross_entropy": (
            [logits],
            lambda x: accl_ext.partial_cross_entropy(x, labels, reduction="image_mean"),
        ),
        "size_penalty": ([logits], lambda x: accl_ext.size_penalty(x, bounds)),
        "segmentation_head": (
            [logits],
            lambda x: tuple(accl_ext.segmentation_head(x, labels, bounds)),
        ),
    }
    for name, (inputs, call) in calls.items():
        leaves = [x.detach().requires_grad_() for x in inputs]
        outputs = call(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        cotangents = [torch.randn_like(x) for x in outputs]
        forward = kernels(lambda c=call, x=leaves: c(*x))
        backward = kernels(
            lambda o=outputs, x=leaves, g=cotangents: torch.autograd.grad(
                o, x, g, retain_graph=True
            )
        )
        assert len(forward) == 1, f"{name} forward: {forward}"
        assert len(backward) == 1, f"{name} backward: {backward}"


@pytest.mark.parametrize("classes", [1, 3])
def test_memory_is_outputs_and_a_thousandth(classes):
    logits, labels, bounds = head_inputs(torch.float32, 16, classes, (512, 512))
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
