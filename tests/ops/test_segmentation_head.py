"""segmentation_head: probabilities, partial CE, size penalty and soft size in one pass."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import accl_ext
from ops.oracle import (
    DTYPES,
    LABEL_TYPES,
    LAYOUTS,
    SPATIAL,
    check,
    dtype_id,
    ignore_of,
    lay_out,
    make_labels,
    make_logits,
)

for_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)


def bounds_of(kind: str, batch: int, classes: int, pixels: int):
    lower = torch.rand(batch, classes) * 0.4 * pixels
    both = torch.stack([lower, lower + 0.1 * pixels], -1)
    both[0, 0, 0] = -math.inf
    return {"no_bounds": None, "pair": (0.2 * pixels, 0.3 * pixels), "tensor": both}[kind]


@for_dtypes
@pytest.mark.parametrize("classes", [1, 2, 3, 5])
@pytest.mark.parametrize("bounds", ["no_bounds", "pair", "tensor"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("normalize", ["area", "none", "area2"])
def test_options(dtype, classes, bounds, weighted, normalize):
    weight = torch.linspace(0.5, 2.0, max(classes, 2)) if weighted else None
    check(
        "segmentation_head",
        make_logits(3, classes, dtype=dtype),
        make_labels(3, classes),
        bounds_of(bounds, 3, classes, 35),
        weight=weight,
        normalize=normalize,
    )


@for_dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_layouts(dtype, layout, rank, classes):
    logits = lay_out(make_logits(2, classes, SPATIAL[rank], dtype), layout)
    labels = make_labels(2, classes, SPATIAL[rank])
    bounds = bounds_of("tensor", 2, classes, logits[0, 0].numel())
    check("segmentation_head", logits, labels, bounds)
    check("segmentation_head", logits, lay_out(labels.unsqueeze(1), layout), bounds)


@pytest.mark.parametrize("label_type", LABEL_TYPES, ids=dtype_id)
@for_dtypes
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_label_types(label_type, dtype, classes):
    if label_type == torch.bool and classes > 1:
        pytest.skip("bool labels are for one class")
    labels = make_labels(3, classes, dtype=label_type)
    logits = make_logits(3, classes, dtype=dtype)
    check("segmentation_head", logits, labels, ignore_index=ignore_of(label_type))


@pytest.mark.parametrize(
    "size", [1, 3, 15, 16, 17, 31, 33, 900, 1023, 1025, 8191, 8192, 8193, 65_536]
)
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_sizes(size, classes):
    logits = make_logits(2, classes, (size,), torch.float32)
    labels = make_labels(2, classes, (size,), labelled=0.02)
    check("segmentation_head", logits, labels, (0.1 * size, 0.2 * size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_id)
def test_a_million_and_one_pixels(dtype):
    size = 1_000_001
    logits = make_logits(1, 1, (size,), dtype)
    check("segmentation_head", logits, make_labels(1, 1, (size,), labelled=0.0065), (1e3, 2e5))


def test_by_hand():
    """p = 1/4, 3/4, 1/2, 1/2; V = 2; the second and third pixel are labelled 1 and 0."""
    a = math.log(3)
    z = torch.tensor([[[-a, a, 0.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[255, 1, 0, 255]], dtype=torch.uint8)
    head = accl_ext.segmentation_head(z, y, (3, 5))
    assert head.probabilities.flatten().tolist() == pytest.approx([0.25, 0.75, 0.5, 0.5])
    assert head.partial_ce.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert head.size_penalty.item() == pytest.approx(0.25)
    assert head.soft_size.tolist() == [[pytest.approx(2.0)]]
    g = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]], dtype=torch.float64)
    total = (head.probabilities * g).sum() + head.partial_ce + head.size_penalty
    (total + 10 * head.soft_size.sum()).backward()
    # v (g + 2 (V - a) / 4 + 10) + (p - y) / 2 where labelled
    wanted = [
        3 / 16 * (1 - 1 / 2 + 10),
        3 / 16 * (2 - 1 / 2 + 10) - 1 / 8,
        1 / 4 * (3 - 1 / 2 + 10) + 1 / 4,
        1 / 4 * (4 - 1 / 2 + 10),
    ]
    assert z.grad.flatten().tolist() == pytest.approx(wanted, rel=1e-13)


@for_dtypes
@pytest.mark.parametrize("classes", [1, 3])
def test_is_the_sum_of_the_single_ops(dtype, classes):
    z = make_logits(2, classes, dtype=dtype)
    y, bounds = make_labels(2, classes), bounds_of("tensor", 2, classes, 35)
    head = accl_ext.segmentation_head(z, y, bounds)
    assert torch.equal(head.partial_ce, accl_ext.partial_cross_entropy(z, y))
    assert torch.equal(head.size_penalty, accl_ext.size_penalty(z, bounds))
    wanted = z.sigmoid() if classes == 1 else z.softmax(1)
    torch.testing.assert_close(head.probabilities, wanted)


@for_dtypes
def test_soft_size_of_a_full_image(dtype):
    z = torch.full((1, 1, 256, 256), 40.0, dtype=dtype)
    y = torch.full((1, 256, 256), 255, dtype=torch.uint8)
    size = accl_ext.segmentation_head(z, y).soft_size
    assert size.item() == 65_536
    assert size.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@for_dtypes
@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (2, 1, 0, 4), (0, 3, 4), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("bounds", [None, (1, 2)], ids=str)
def test_no_pixels(dtype, shape, bounds):
    z = torch.zeros(shape, dtype=dtype)
    y = torch.zeros(shape[0], *shape[2:], dtype=torch.uint8)
    check("segmentation_head", z, y, bounds)
    head = accl_ext.segmentation_head(z, y, bounds)
    assert head.probabilities.shape == shape
    assert head.soft_size.tolist() == torch.zeros(shape[:2]).tolist()
    assert head.partial_ce == 0
    assert head.size_penalty == 0


@pytest.mark.parametrize("classes", [1, 3])
def test_nothing_labelled(classes):
    z = make_logits(2, classes)
    y = torch.full((2, 5, 7), 255, dtype=torch.uint8)
    check("segmentation_head", z, y, (3, 6))
    leaf = z.requires_grad_()
    ce = accl_ext.segmentation_head(leaf, y, (3, 6)).partial_ce
    ce.backward()
    assert ce == 0
    assert not leaf.grad.any()


def test_without_bounds_the_penalty_is_a_zero_that_differentiates_to_zero():
    z = make_logits(2, 1).requires_grad_()
    head = accl_ext.segmentation_head(z, make_labels(2, 1))
    (grad,) = torch.autograd.grad(head.size_penalty, z)
    assert head.size_penalty == 0
    assert torch.equal(grad, torch.zeros_like(z))


class _Calls(TorchDispatchMode):
    """Every call that reaches a kernel: (name, arguments)."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls.append((function.name(), args))
        return function(*args, **(kwargs or {}))


ONE_CALL = {
    "accl_loss": (lambda x, y: accl_ext.accl_loss(x), "_accl_loss_backward"),
    "accl_discriminator_loss": (
        lambda x, y: accl_ext.accl_discriminator_loss(x, x.detach()),
        "_accl_discriminator_loss_backward",
    ),
    "partial_cross_entropy": (
        lambda x, y: accl_ext.partial_cross_entropy(x, y),
        "_segmentation_head_backward",
    ),
    "size_penalty": (
        lambda x, y: accl_ext.size_penalty(x, (1.0, 2.0)),
        "_segmentation_head_backward",
    ),
    "segmentation_head": (
        lambda x, y: accl_ext.segmentation_head(x, y, (1.0, 2.0)).partial_ce,
        "_segmentation_head_backward",
    ),
}


@pytest.mark.parametrize("name", ONE_CALL)
def test_one_call_forward_and_one_backward(name):
    function, backward = ONE_CALL[name]
    z, y = make_logits(2, 1).requires_grad_(), make_labels(2, 1)
    function(z, y)  # puts the bounds on the device
    with _Calls() as forward_calls:
        loss = function(z, y)
    gradient = torch.ones_like(loss)
    with _Calls() as backward_calls:
        torch.autograd.grad(loss, z, gradient)
    views = {"aten::detach", "aten::view"}
    assert [c for c, _ in forward_calls.calls if c not in views] == [f"accl_ext::{name}"]
    assert [c for c, _ in backward_calls.calls if c not in views] == [f"accl_ext::{backward}"]


@pytest.mark.parametrize("used", ["probabilities", "partial_ce", "size_penalty", "soft_size"])
def test_an_output_that_nobody_uses_costs_nothing(used):
    z, y = make_logits(2, 1).requires_grad_(), make_labels(2, 1)
    head = accl_ext.segmentation_head(z, y, (1.0, 2.0))
    out = getattr(head, used)
    with _Calls() as backward:
        torch.autograd.grad(out, z, torch.ones_like(out))
    (arguments,) = (
        a for name, a in backward.calls if name == "accl_ext::_segmentation_head_backward"
    )
    came = dict(
        zip(("probabilities", "partial_ce", "size_penalty", "soft_size"), arguments, strict=False)
    )
    assert [name for name, gradient in came.items() if gradient is not None] == [used]
