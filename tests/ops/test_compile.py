"""torch.compile: whole graphs, no recompilation when sizes, bounds or weights change, the same
numbers, and what is refused."""

import pytest
import torch
from torch._dynamo import compiled_autograd
from torch._dynamo.testing import CompileCounterWithBackend

import accl_ext
from accl_ext import reference
from ops.op_cases import FEW, cases
from ops.oracle import as_tuple, make_labels, make_logits

BACKENDS = ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def counting(function, backend="aot_eager", **options):
    counter = CompileCounterWithBackend(backend)
    return torch.compile(function, backend=counter, fullgraph=True, **options), counter


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(**cases(FEW))
def test_equals_eager(case, backend):
    leaves, others = case.make(torch.float32, (5, 7))[0], case.arguments((5, 7))

    def step(*inputs):
        outputs = case.call(accl_ext, [x * 1.5 for x in inputs], others)
        return sum(x.square().sum() for x in outputs)

    compiled = torch.compile(step, backend=backend, fullgraph=True)
    wanted, got = step(*leaves), compiled(*leaves)
    torch.testing.assert_close(got, wanted)
    for a, b in zip(
        torch.autograd.grad(got, leaves), torch.autograd.grad(wanted, leaves), strict=True
    ):
        torch.testing.assert_close(a, b)


def training_step(logits, labels, bounds, weight, real):
    head = accl_ext.segmentation_head(logits, labels, bounds, weight=weight)
    ce = accl_ext.partial_cross_entropy(logits, labels, weight=weight, reduction="image_mean")
    size = accl_ext.size_penalty(logits, bounds, normalize="none")
    scores = torch.nn.functional.avg_pool2d(head.probabilities, 2)
    adversarial = accl_ext.accl_loss(scores)
    discriminator = accl_ext.accl_discriminator_loss(scores, real, criterion="hinge")
    return head.partial_ce + head.size_penalty + ce + size + adversarial + discriminator


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("classes", [1, 3])
def test_one_graph_for_all_sizes_bounds_and_weights(backend, classes):
    compiled, counter = counting(training_step, backend, dynamic=True)
    graphs = []
    # No two sizes of the first call are equal: torch takes equal ones for the same symbol. It may
    # trace that call twice: first it tries the options that are floats as tensors.
    for batch, height, width in ((5, 14, 18), (6, 12, 8), (4, 34, 30), (11, 6, 16)):
        z = make_logits(batch, classes, (height, width), torch.float32).requires_grad_()
        y = make_labels(batch, classes, (height, width))
        bounds = torch.rand(batch, classes, 1) + torch.tensor([2.0, 3.0])
        weight = torch.rand(max(classes, 2)) + 0.5
        real = torch.randn(batch, classes, height // 2, width // 2)
        arguments = (z, y, bounds, weight, real)
        got, wanted = compiled(*arguments), training_step(*arguments)
        torch.testing.assert_close(got, wanted)
        (a,), (b,) = torch.autograd.grad(got, z), torch.autograd.grad(wanted, z)
        torch.testing.assert_close(a, b)
        graphs.append(counter.frame_count)
    assert graphs == [graphs[0]] * 4
    assert graphs[0] <= 2


def test_bounds_and_weights_of_fixed_sizes_do_not_recompile():
    compiled, counter = counting(training_step)
    z, y = make_logits(2, 1, (8, 8), torch.float32).requires_grad_(), make_labels(2, 1, (8, 8))
    results = set()
    for lower in (1.0, 20.0, 40.0):
        bounds, weight = torch.tensor([lower, lower + 1]), torch.tensor([1.0, lower])
        results.add(compiled(z, y, bounds, weight, torch.zeros(2, 1, 4, 4)).item())
    assert len(results) == 3
    assert counter.frame_count == 1


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_one_graph_of_the_gated_crf_loss_for_all_sizes(classes, masked, reduction, backend):
    module = accl_ext.GatedCRFLoss(radius=2, kernels=((1.0, 2.0, 0.3),), reduction=reduction)

    def step(z, image, *masks):
        p = z.sigmoid() if classes == 1 else z.softmax(1)
        return module(p, image, *masks).square().sum()

    compiled, counter = counting(step, backend, dynamic=True)
    graphs = []
    for batch, height, width in ((5, 14, 18), (6, 12, 8), (4, 34, 30), (11, 6, 16)):
        z = make_logits(batch, classes, (height, width), torch.float32).requires_grad_()
        image = torch.rand(batch, 1, height, width)
        masks = [torch.rand(batch, height, width) < 0.7 for _ in range(2 if masked else 0)]
        got, wanted = compiled(z, image, *masks), step(z, image, *masks)
        torch.testing.assert_close(got, wanted)
        (a,), (b,) = torch.autograd.grad(got, z), torch.autograd.grad(wanted, z)
        torch.testing.assert_close(a, b)
        graphs.append(counter.frame_count)
    assert graphs == [graphs[0]] * 4
    assert graphs[0] <= 2


@pytest.mark.parametrize("bounds", [(2.0, 3.0), (2, float("inf"))], ids=str)
def test_a_pair_of_numbers_in_a_graph(bounds):
    def size(z):
        return accl_ext.size_penalty(z, bounds)

    compiled, counter = counting(size)
    z = make_logits(2, 1).requires_grad_()
    for _ in range(3):
        torch.testing.assert_close(compiled(z), size(z))
    assert counter.frame_count == 1


@pytest.mark.parametrize("label_type", [torch.uint8, torch.int64, torch.bool], ids=str)
def test_an_invalid_label_is_found_when_the_graph_runs(label_type):
    z, y = make_logits(2, 1), torch.ones(2, 5, 7, dtype=label_type)
    compiled, _ = counting(lambda z, y: accl_ext.partial_cross_entropy(z, y))
    compiled(z, y)
    if label_type == torch.bool:
        return
    y[1, 2, 3] = 7
    with pytest.raises(ValueError, match="got 7"):
        compiled(z, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, y: accl_ext.accl_loss(z, criterion="wgan"), "got 'wgan'"),
        (lambda z, y: accl_ext.partial_cross_entropy(z, y.float()), "got float32"),
        (lambda z, y: accl_ext.size_penalty(z, torch.ones(3)), "bounds must broadcast"),
    ],
    ids=["criterion", "labels", "bounds"],
)
def test_bad_input_keeps_its_message_when_traced(call, message):
    with pytest.raises(Exception, match=message):
        torch.compile(call, backend="aot_eager", fullgraph=True)(
            make_logits(2, 1), make_labels(2, 1)
        )


def test_second_derivatives_work_with_the_eager_backend():
    z, y = make_logits(2, 1).requires_grad_(), make_labels(2, 1)

    def loss(z):
        head = accl_ext.segmentation_head(z, y, torch.tensor([2.0, 3.0]))
        return head.partial_ce + head.size_penalty + accl_ext.accl_loss(head.probabilities)

    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    results = []
    for function in (compiled, loss):
        (g,) = torch.autograd.grad(function(z), z, create_graph=True)
        results.append(torch.autograd.grad(g.square().sum(), z)[0])
    torch.testing.assert_close(*results)


def test_second_derivatives_through_aot_are_refused_not_wrong():
    z, y = make_logits(2, 1).requires_grad_(), make_labels(2, 1)
    compiled = torch.compile(
        lambda z: accl_ext.partial_cross_entropy(z, y), backend="aot_eager", fullgraph=True
    )
    with pytest.raises(RuntimeError, match="double backward"):  # noqa: PT012
        (g,) = torch.autograd.grad(compiled(z), z, create_graph=True)
        torch.autograd.grad(g.square().sum(), z)


@pytest.mark.parametrize(
    ("backend", "forward"),
    [
        ("eager", "eager"),
        pytest.param("aot_eager", "eager", marks=pytest.mark.slow),
        pytest.param("aot_eager", "compiled", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(**cases(FEW))
def test_compiled_autograd(case, backend, forward):
    """The backward too is traced, without a break in its graph."""
    leaves, run = case.make(torch.float32, (5, 7))

    def loss(*inputs):
        return sum(x.square().sum() for x in run(accl_ext, *[x * 1.5 for x in inputs]))

    wanted = torch.autograd.grad(loss(*leaves), leaves)
    step = torch.compile(loss, backend=backend, fullgraph=True) if forward == "compiled" else loss
    for _ in range(2):
        with compiled_autograd._enable(torch.compile(backend=backend, fullgraph=True)):
            step(*leaves).backward()
        for leaf, gradient in zip(leaves, wanted, strict=True):
            torch.testing.assert_close(leaf.grad, gradient)
            leaf.grad = None


@pytest.mark.parametrize("kept", [0, 1])
def test_one_gradient_of_the_discriminator_s_loss_under_compiled_autograd(kept):
    scores = [torch.randn(2, 7), torch.randn(2, 7)]
    leaf = scores[kept].requires_grad_()
    (wanted,) = torch.autograd.grad(accl_ext.accl_discriminator_loss(*scores), leaf)
    with compiled_autograd._enable(torch.compile(backend="aot_eager", fullgraph=True)):
        accl_ext.accl_discriminator_loss(*scores).backward()
    torch.testing.assert_close(leaf.grad, wanted)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_new_pixel_weights_and_sizes_do_not_recompile(smoothing):
    def loss(z, y, weight):
        options = {"pixel_weight": weight, "label_smoothing": smoothing}
        head = accl_ext.segmentation_head(z, y, **options)
        return head.partial_ce + accl_ext.partial_cross_entropy(z, y, **options)

    compiled, counter = counting(loss, dynamic=True)
    graphs = []  # the first call may be traced twice, as above
    for batch, height, width in ((5, 14, 18), (6, 12, 8), (4, 34, 30)):
        z = make_logits(batch, 3, (height, width), torch.float32).requires_grad_()
        y, weight = make_labels(batch, 3, (height, width)), torch.rand(batch, height, width)
        got, wanted = compiled(z, y, weight), loss(z, y, weight)
        torch.testing.assert_close(got, wanted)
        (a,), (b,) = torch.autograd.grad(got, z), torch.autograd.grad(wanted, z)
        torch.testing.assert_close(a, b)
        graphs.append(counter.frame_count)
    assert graphs == [graphs[0]] * 3
    assert graphs[0] <= 2


def test_autocast_in_a_graph():
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    y = make_labels(2, 1, (8, 8))

    def step(x):
        with torch.autocast("cpu", torch.bfloat16):
            return accl_ext.segmentation_head(network(x), y, torch.tensor([2.0, 3.0]))

    x = torch.randn(2, 1, 8, 8)
    for a, b in zip(counting(step)[0](x), step(x), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_reference_compiles_too(backend):
    z, y = make_logits(2, 1).requires_grad_(), make_labels(2, 1)

    def step(z):
        return as_tuple(reference.segmentation_head(z, y, (2.0, 3.0)))

    got = torch.compile(step, backend=backend, fullgraph=True)(z)
    for a, b in zip(got, step(z), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    class Step(torch.nn.Module):
        def forward(self, z, y, bounds):
            return tuple(accl_ext.segmentation_head(z, y, bounds))

    z, y, bounds = make_logits(2, 1), make_labels(2, 1), torch.tensor([2.0, 3.0])
    program = torch.export.export(Step(), (z, y, bounds), strict=strict)
    assert "accl_ext.segmentation_head" in program.graph_module.code
    for a, b in zip(program.module()(z, y, bounds), Step()(z, y, bounds), strict=True):
        assert torch.equal(a, b)


EXPORTED = {
    "accl_loss": lambda z, y, image: accl_ext.accl_loss(z),
    "accl_discriminator_loss": lambda z, y, image: accl_ext.accl_discriminator_loss(z, image),
    "partial_cross_entropy": lambda z, y, image: accl_ext.partial_cross_entropy(z, y),
    "partial_overlap_loss": lambda z, y, image: accl_ext.partial_overlap_loss(z, y),
    "size_penalty": lambda z, y, image: accl_ext.size_penalty(z, (2.0, 3.0)),
    "segmentation_head": lambda z, y, image: tuple(accl_ext.segmentation_head(z, y, (2.0, 3.0))),
    "gated_crf_loss": lambda z, y, image: accl_ext.gated_crf_loss(z.sigmoid(), image, radius=2),
}


@pytest.mark.parametrize("op", EXPORTED)
def test_export_with_dynamic_shapes(op):
    class Step(torch.nn.Module):
        def forward(self, z, y, image):
            return EXPORTED[op](z, y, image)

    def arguments(batch, *spatial):
        labels = make_labels(batch, 1, spatial)
        return make_logits(batch, 1, spatial), labels, make_logits(batch, 1, spatial)

    batch, height, width = (torch.export.Dim(name, min=2) for name in ("batch", "height", "width"))
    channels, plain = {0: batch, 2: height, 3: width}, {0: batch, 1: height, 2: width}
    dynamic = {"z": channels, "y": plain, "image": channels}
    program = torch.export.export(Step(), arguments(3, 7, 9), dynamic_shapes=dynamic)
    assert f"accl_ext.{op}" in program.graph_module.code
    for shape in ((3, 7, 9), (2, 12, 6), (5, 6, 11)):
        given = arguments(*shape)
        got, wanted = (as_tuple(call(*given)) for call in (program.module(), Step()))
        for a, b in zip(got, wanted, strict=True):
            assert torch.equal(a, b)
