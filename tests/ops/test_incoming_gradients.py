"""What backward is given and what it must leave alone: strides, absence, infinities, memory."""

import math

import pytest
import torch

import accl_ext
from ops.op_cases import CASES, FEW, cases, outputs_and_gradients
from ops.oracle import LAYOUTS, assert_near, lay_out, make_labels, make_logits


@pytest.mark.parametrize(**cases(CASES))
def test_a_gradient_of_stride_zero(case):
    """``.sum().backward()`` hands one on."""
    leaves, run = case.make()
    outputs = run(accl_ext, *leaves)
    dense = torch.autograd.grad(
        outputs, leaves, [torch.ones_like(x) for x in outputs], retain_graph=True
    )
    summed = torch.autograd.grad(sum(x.sum() for x in outputs), leaves)
    for a, b in zip(dense, summed, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(**cases(FEW))
def test_a_gradient_of_any_strides(case, layout):
    leaves, run = case.make(spatial=(5, 7))
    outputs = run(accl_ext, *leaves)
    strided = [
        lay_out(torch.randn_like(x), layout) if x.dim() > 2 else torch.randn(()).expand_as(x)
        for x in outputs
    ]
    strided = [x.double() for x in strided]
    got = torch.autograd.grad(outputs, leaves, strided, retain_graph=True)
    wanted = torch.autograd.grad(outputs, leaves, [x.contiguous() for x in strided])
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a, b)
        assert a.is_contiguous()


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("used", range(1, 16))
def test_any_of_the_head_s_outputs_unused(classes, used):
    z, y = make_logits(2, classes), make_labels(2, classes)
    which = [i for i in range(4) if used >> i & 1]
    results = []
    for api in (accl_ext, accl_ext.reference):
        leaf = z.clone().requires_grad_()
        head = api.segmentation_head(leaf, y, (2.0, 3.0))
        (gradient,) = torch.autograd.grad(sum(head[i].pow(2).sum() for i in which), leaf)
        results.append(gradient)
    assert_near(*results)


@pytest.mark.parametrize("reduction", ["mean", "image_mean", "sum"])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_an_infinite_gradient_does_not_leak_into_unlabelled_pixels(reduction, classes, value):
    z = make_logits(3, classes, (7, 11), torch.float32).requires_grad_()
    y = make_labels(3, classes, (7, 11), labelled=0.2)
    loss = accl_ext.partial_cross_entropy(z, y, reduction=reduction)
    (g,) = torch.autograd.grad(loss, z, torch.tensor(value))
    labelled = (y != 255).unsqueeze(1).expand_as(g)
    assert not g[~labelled].any()
    assert not g[labelled].isfinite().any()


@pytest.mark.parametrize("classes", [1, 3])
def test_infinities_in_a_gradient_map_stay_in_their_pixels(classes):
    z = make_logits(2, classes, (40,), torch.float32).requires_grad_()
    y = make_labels(2, classes, (40,))
    loss = accl_ext.partial_cross_entropy(z, y, reduction="none")
    g = torch.where(y == 255, math.inf, 1.0)
    (gradient,) = torch.autograd.grad(loss, z, g)
    assert gradient.isfinite().all()
    head = accl_ext.segmentation_head(z, y)
    g = torch.ones_like(z)
    g[0, :, 3] = math.inf
    (gradient,) = torch.autograd.grad(head.probabilities, z, g)
    hit = torch.zeros_like(z, dtype=torch.bool)
    hit[0, :, 3] = True
    assert gradient[~hit].isfinite().all()


@pytest.mark.parametrize(**cases(CASES))
def test_backward_twice_gives_the_same_bits(case):
    leaves, run = case.make(torch.float32, (33, 31))
    outputs = run(accl_ext, *leaves)
    cotangents = [torch.randn_like(x) for x in outputs]
    first, second = (
        torch.autograd.grad(outputs, leaves, cotangents, retain_graph=True) for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(**cases(CASES))
def test_nothing_given_is_written_to(case):
    leaves, others = case.make(torch.float32, (33, 31))[0], case.arguments((33, 31))
    options = {k: v(leaves[0]) if callable(v) else v for k, v in case.options.items()}
    outputs = case.call(accl_ext, leaves, others, **options)
    cotangents = [torch.randn_like(x) for x in outputs]
    tensors = [*leaves, *others, *outputs, *cotangents, *options.values()]
    tensors = [x.detach() for x in tensors if isinstance(x, torch.Tensor)]
    before = [x.clone() for x in tensors]
    gradients = torch.autograd.grad(outputs, leaves, cotangents, create_graph=True)
    torch.autograd.grad([g.square().sum() for g in gradients], leaves)
    case.call(accl_ext, leaves, others, **options)
    for x, y in zip(tensors, before, strict=True):
        assert torch.equal(x.view(-1).view(torch.uint8), y.view(-1).view(torch.uint8))


@pytest.mark.parametrize(**cases(CASES))
def test_no_output_shares_memory(case):
    leaves, run = case.make(torch.float32)
    outputs = run(accl_ext, *leaves)
    gradients = torch.autograd.grad(outputs, leaves, [torch.ones_like(x) for x in outputs])
    tensors = [*leaves, *outputs, *gradients]
    assert len({x.untyped_storage().data_ptr() for x in tensors}) == len(tensors)


@pytest.mark.parametrize("size", [1, 3, 15, 17, 33, 1023, 8193])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(**cases(CASES))
def test_every_element_is_written(case, size, dtype):
    """With deterministic algorithms torch hands out memory full of NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(4).isnan().all()
    for tensor in outputs_and_gradients(case, dtype, (size,)):
        assert tensor.isfinite().all()


def test_use_deterministic_algorithms_needs_no_exception():
    torch.use_deterministic_algorithms(True)
    z, y = make_logits(2, 3).requires_grad_(), make_labels(2, 3)
    head = accl_ext.segmentation_head(z, y, (1, 2))
    (g,) = torch.autograd.grad(head.partial_ce + head.size_penalty, z, create_graph=True)
    g.square().sum().backward()
    assert z.grad.isfinite().all()
