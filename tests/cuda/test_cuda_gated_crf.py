"""gated_crf_loss on a GPU: against the reference in float64, and what only a GPU can show."""

import math

import pytest
import torch
from ops.oracle import LAYOUTS, assert_near, check, lay_out, make_probabilities
from test_cuda_ops import DEVICE, for_dtypes  # skips where there is no GPU
from torch.library import opcheck

import accl_ext
from accl_ext import reference

pytestmark = pytest.mark.cuda

KERNELS = ((1.0, 2.0, 0.3),)
for_classes = pytest.mark.parametrize("classes", [1, 3, 9])
for_reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def make(classes=1, spatial=(37, 70), dtype=torch.float32, batch=2, channels=1):
    p = make_probabilities(batch, classes, spatial, dtype)
    return p.to(DEVICE), torch.rand(batch, channels, *spatial, device=DEVICE)


def make_masks(batch=2, spatial=(37, 70)):
    source, destination = torch.rand(2, batch, *spatial, device=DEVICE) < 0.6
    return {"source_mask": source, "destination_mask": destination}


@for_dtypes
@for_classes
@for_reductions
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients(dtype, classes, reduction, masked):
    masks = make_masks() if masked else {}
    for channels, kernels in ((1, KERNELS), (5, ((1.0, 2.0, 0.3), (0.5, 1.0, None)))):
        p, image = make(classes, dtype=dtype, channels=channels)
        check("gated_crf_loss", p, image, kernels=kernels, reduction=reduction, **masks)


@pytest.mark.parametrize("radius", [1, 7, 8, 20, 2**40])
@pytest.mark.parametrize(
    "spatial",
    [(1,), (129,), (1000,), (3, 31), (4, 32), (5, 33), (40, 3), (64, 128), (5, 6, 40), (1, 9, 33)],
    ids=str,
)
def test_sizes(spatial, radius):
    for classes in (1, 2):
        for dtype in (torch.float32, torch.float64):
            p, image = make(classes, spatial, dtype)
            check("gated_crf_loss", p, image, radius=radius, kernels=KERNELS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    p, image = make(3)
    image, mask = lay_out(image, "offset"), lay_out(make_masks()["source_mask"], "transposed")
    check("gated_crf_loss", lay_out(p, layout), image, source_mask=mask, destination_mask=mask)


@for_classes
def test_second_derivatives(classes):
    p, image = make(classes, (9, 40), torch.float64)
    for reduction in ("mean", "none"):
        products = []
        for api in (accl_ext, reference):
            leaf = p.clone().requires_grad_()
            loss = api.gated_crf_loss(
                leaf, image, radius=2, reduction=reduction, **make_some(image, classes)
            )
            (g,) = torch.autograd.grad(loss.square().sum(), leaf, create_graph=True)
            products.append(torch.autograd.grad(g.square().sum(), leaf)[0])
        assert_near(*products)


def make_some(image, seed):
    """The same masks at each call."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    shape = (image.shape[0], *image.shape[2:])
    drawn = [torch.rand(shape, generator=generator, device=DEVICE) < 0.6 for _ in range(2)]
    return dict(zip(("source_mask", "destination_mask"), drawn, strict=True))


def test_opcheck():
    p, image = make(3, (9, 40))
    masks = tuple(make_masks(2, (9, 40)).values())
    window = (image, 2, [1.0, 2.0, 0.3], [], *masks)
    opcheck(torch.ops.accl_ext.gated_crf_loss.default, (p.requires_grad_(), *window, "mean", True))
    opcheck(torch.ops.accl_ext._gated_crf_gather.default, (p, *window))


@for_dtypes
@for_classes
def test_the_same_bits_alone_in_a_batch_and_again(dtype, classes):
    p, image = make(classes, (70, 90), dtype, batch=4)

    def run(at):
        leaf = p[at].clone().requires_grad_()
        each = accl_ext.gated_crf_loss(leaf, image[at], reduction="none")
        total = accl_ext.gated_crf_loss(leaf, image[at], reduction="sum")
        return [x.detach() for x in (each, *torch.autograd.grad([total, each.sum()], leaf))]

    batch = run(slice(0, 4))
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(run(slice(0, 4)), batch, strict=True))
    for i in range(4):
        alone = run(slice(i, i + 1))
        assert all(torch.equal(a, b[i : i + 1]) for a, b in zip(alone, batch, strict=True))


def test_pixels_of_no_pair_have_no_influence():
    p, image = make(3)
    mask = make_masks()["source_mask"]
    masks = {"source_mask": mask, "destination_mask": mask}
    wanted = accl_ext.gated_crf_loss(p, image, **masks)
    unused = ~mask.unsqueeze(1)
    leaf = p.masked_fill(unused, math.nan).requires_grad_()
    got = accl_ext.gated_crf_loss(leaf, image.masked_fill(unused, math.nan), **masks)
    assert torch.equal(got, wanted)
    (gradient,) = torch.autograd.grad(got, leaf)
    assert not gradient.masked_select(unused).any()


@pytest.mark.parametrize("masked", [False, True])
def test_graph_capture_without_synchronising(masked):
    p, image = make(spatial=(250, 250))
    masks = make_masks(2, (250, 250)) if masked else {}
    leaf = p.clone().requires_grad_()

    def step():
        loss = accl_ext.gated_crf_loss(leaf, image, **masks)
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        captured = step()
    for _ in range(2):
        image.uniform_()
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))


def test_memory_is_a_map_and_the_sums_of_tiles():
    p, image = make(1, (512, 512), batch=8)
    leaf = p.requires_grad_()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    accl_ext.gated_crf_loss(leaf, image).backward()
    rise = torch.cuda.max_memory_allocated() - before
    assert rise <= 2.05 * p.numel() * 4  # the map, and the gradient
