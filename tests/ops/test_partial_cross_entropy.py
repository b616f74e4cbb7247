"""partial_cross_entropy: values and gradients, the data term of eqs. (1), (2) and (4)."""

import math

import pytest
import torch
import torch.nn.functional as F

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

REDUCTIONS = ("mean", "image_mean", "sum", "none")

for_reductions = pytest.mark.parametrize("reduction", REDUCTIONS)
for_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
for_classes = pytest.mark.parametrize("classes", [1, 2, 3, 5])


@for_dtypes
@for_classes
@for_reductions
@pytest.mark.parametrize("label_type", LABEL_TYPES, ids=dtype_id)
def test_label_types(dtype, classes, reduction, label_type):
    if label_type == torch.bool and classes > 1:
        pytest.skip("bool labels are for one class")
    labels = make_labels(3, classes, dtype=label_type)
    ignore = ignore_of(label_type)
    logits = make_logits(3, classes, dtype=dtype)
    check("partial_cross_entropy", logits, labels, ignore_index=ignore, reduction=reduction)


@for_dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("classes", [1, 3])
def test_layouts(dtype, layout, rank, classes):
    logits = lay_out(make_logits(2, classes, SPATIAL[rank], dtype), layout)
    labels = make_labels(2, classes, SPATIAL[rank])
    channel = labels.unsqueeze(1)
    other = layout if layout != "channels_last" else "transposed"
    for reduction in REDUCTIONS:
        check("partial_cross_entropy", logits, lay_out(labels, other), reduction=reduction)
    check("partial_cross_entropy", logits, lay_out(channel, layout), reduction="none")


@for_classes
@pytest.mark.parametrize("weight_type", [*DTYPES, torch.float8_e4m3fn], ids=dtype_id)
@for_reductions
def test_weights(classes, weight_type, reduction):
    weight = torch.tensor([0.25, 1.5, 0.0, 3.0, 0.5])[: max(classes, 2)].to(weight_type)
    logits, labels = make_logits(3, classes, dtype=torch.float32), make_labels(3, classes)
    check("partial_cross_entropy", logits, labels, weight=weight, reduction=reduction)


@pytest.mark.parametrize("step", [-1, 2])
def test_strided_weight(step):
    weight = torch.arange(1.0, 7.0)
    weight = weight[::2] if step == 2 else weight[:1].expand(3)
    check("partial_cross_entropy", make_logits(2, 3), make_labels(2, 3), weight=weight)


@pytest.mark.parametrize(
    "size", [1, 3, 15, 16, 17, 31, 33, 900, 1023, 1025, 8191, 8192, 8193, 65_536]
)
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("labelled", [0.0065, 0.5, 1.0])
def test_sizes(size, classes, labelled):
    logits = make_logits(2, classes, (size,), torch.float32)
    labels = make_labels(2, classes, (size,), labelled=labelled)
    for reduction in REDUCTIONS:
        check("partial_cross_entropy", logits, labels, reduction=reduction)


@pytest.mark.parametrize("classes", [1, 2])
def test_a_million_and_one_pixels(classes):
    size = 1_000_001
    logits = make_logits(1, classes, (size,), torch.float32)
    check("partial_cross_entropy", logits, make_labels(1, classes, (size,), labelled=0.01))


def test_by_hand():
    # p = 1/2, 3/4, 1/4: losses ln 2, ln 4/3, ln 4/3; slopes (p - y) / 3
    logits = torch.tensor([[[0.0, math.log(3), -math.log(3), 5.0]]], requires_grad=True)
    labels = torch.tensor([[1, 1, 0, 255]], dtype=torch.uint8)
    loss = accl_ext.partial_cross_entropy(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx((math.log(2) + 2 * math.log(4 / 3)) / 3, rel=1e-6)
    assert logits.grad.flatten().tolist() == pytest.approx([-1 / 6, -1 / 12, 1 / 12, 0.0])
    # softmax of (ln 1, ln 2, ln 5) is (1, 2, 5) / 8
    logits = torch.tensor([1.0, 2.0, 5.0]).log().reshape(1, 3, 1).requires_grad_()
    loss = accl_ext.partial_cross_entropy(logits, torch.tensor([[2]]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(8 / 5), rel=1e-6)
    assert logits.grad.flatten().tolist() == pytest.approx([1 / 8, 2 / 8, -3 / 8])


@for_reductions
@pytest.mark.parametrize("weighted", [False, True])
def test_all_labelled_equals_torch(reduction, weighted):
    torch_reduction = "mean" if reduction == "image_mean" else reduction
    x, y = make_logits(1, 3), torch.randint(3, (1, 5, 7))
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64) if weighted else None
    got = accl_ext.partial_cross_entropy(x, y, weight=weight, reduction=reduction)
    wanted = F.cross_entropy(x, y, weight=weight, reduction=torch_reduction)
    torch.testing.assert_close(got, wanted, rtol=1e-13, atol=0)

    x, y = make_logits(1, 1), torch.randint(2, (1, 5, 7))
    each = torch.where(y == 1, 2.0, 0.5).double() if weighted else None
    weight = torch.tensor([0.5, 2.0]) if weighted else None
    got = accl_ext.partial_cross_entropy(x, y, weight=weight, reduction=reduction)
    wanted = F.binary_cross_entropy_with_logits(
        x[:, 0], y.double(), weight=each, reduction=torch_reduction
    )
    if weighted and torch_reduction == "mean":
        wanted = wanted * y.numel() / each.sum()
    torch.testing.assert_close(got, wanted, rtol=1e-13, atol=0)


@for_classes
def test_ignored_pixels_as_torch_ignores_them(classes):
    if classes == 1:
        pytest.skip("torch has no ignore_index for one class")
    x, y = make_logits(3, classes), make_labels(3, classes, dtype=torch.int64)
    got = accl_ext.partial_cross_entropy(x, y, ignore_index=-100)
    torch.testing.assert_close(got, F.cross_entropy(x, y), rtol=1e-13, atol=0)


@for_classes
@pytest.mark.parametrize("reduction", ["mean", "image_mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=dtype_id)
def test_nothing_labelled_costs_nothing(classes, reduction, dtype):
    x = make_logits(2, classes, (40, 41), dtype).requires_grad_()
    y = torch.full((2, 40, 41), 255, dtype=torch.uint8)
    loss = accl_ext.partial_cross_entropy(x, y, reduction=reduction)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


@for_reductions
@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (2, 1, 0, 4), (0, 3, 4), (2, 3, 0)], ids=str)
def test_no_pixels_cost_nothing(reduction, shape):
    labels = torch.zeros(shape[0], *shape[2:], dtype=torch.uint8)
    check("partial_cross_entropy", torch.zeros(shape), labels, reduction=reduction)
    loss = accl_ext.partial_cross_entropy(torch.zeros(shape), labels, reduction=reduction)
    assert loss.tolist() == (labels.float().tolist() if reduction == "none" else 0)


@for_reductions
@pytest.mark.parametrize("classes", [1, 3])
def test_classes_of_weight_zero_cost_nothing(classes, reduction):
    x = make_logits(2, classes).requires_grad_()
    x.data[0, :, 0] = -math.inf  # infinite loss times 0
    y = torch.ones(2, 5, 7, dtype=torch.uint8)
    weight = torch.tensor([1.0, 0.0, 1.0])[: max(classes, 2)]
    loss = accl_ext.partial_cross_entropy(x, y, weight=weight, reduction=reduction)
    loss.sum().backward()
    assert not loss.any()
    assert not x.grad.any()


@for_reductions
@pytest.mark.parametrize("classes", [1, 3])
def test_one_image_unlabelled(classes, reduction):
    y = make_labels(3, classes)
    y[1] = 255
    x = make_logits(3, classes)
    check("partial_cross_entropy", x, y, reduction=reduction)
    leaf = x.clone().requires_grad_()
    accl_ext.partial_cross_entropy(leaf, y, reduction=reduction).sum().backward()
    assert not leaf.grad[1].any()
    assert leaf.grad[0].any()


def test_image_mean_by_hand():
    # image 0: one pixel of ln 2, image 1: nothing, image 2: two pixels of ln 4 / 3 each
    a = math.log(3)
    x = torch.tensor([[[0.0, 9.0]], [[9.0, 9.0]], [[a, a]]], dtype=torch.float64)
    y = torch.tensor([[1, 255], [255, 255], [1, 1]], dtype=torch.uint8)
    got = accl_ext.partial_cross_entropy(x, y, reduction="image_mean")
    assert got.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, rel=1e-14)
    mean = accl_ext.partial_cross_entropy(x, y, reduction="mean")
    assert mean.item() == pytest.approx((math.log(2) + 2 * math.log(4 / 3)) / 3, rel=1e-14)


@pytest.mark.parametrize(
    ("label_type", "ignore"),
    [
        (torch.uint8, -100),
        (torch.uint8, 300),
        (torch.uint8, 256),  # 0 in the low byte
        (torch.uint8, -1),
        (torch.int8, 255),  # -1 in the low byte
        (torch.int16, 65_536),
        (torch.int32, 2**32),
        (torch.int64, -(2**63)),
        (torch.int64, 2**63 - 1),
        (torch.bool, 0),
        (torch.bool, 1),
        (torch.bool, 255),
    ],
    ids=str,
)
def test_an_ignore_index_that_no_label_can_be(label_type, ignore):
    y = torch.randint(2, (2, 5, 7)).to(label_type)
    x = make_logits(2, 1)
    check("partial_cross_entropy", x, y, ignore_index=ignore)
    wanted = F.binary_cross_entropy_with_logits(x[:, 0], y.double())
    got = accl_ext.partial_cross_entropy(x, y, ignore_index=ignore)
    torch.testing.assert_close(got, wanted, rtol=1e-13, atol=0)


@pytest.mark.parametrize("label_type", LABEL_TYPES[:-1], ids=dtype_id)
@pytest.mark.parametrize("classes", [1, 3])
def test_ignore_index_wins_over_a_class(label_type, classes):
    y = torch.randint(max(classes, 2), (2, 5, 7))
    x = make_logits(2, classes)
    got = accl_ext.partial_cross_entropy(x, y.to(label_type), ignore_index=0, reduction="none")
    assert not got[y == 0].any()
    assert got[y != 0].all()
    check("partial_cross_entropy", x, y.to(label_type), ignore_index=0)


@for_reductions
def test_relabelling_symmetry(reduction):
    """Foreground and background change places: x -> -x, y -> 1 - y."""
    x, y = make_logits(2, 1), make_labels(2, 1, labelled=0.5)
    swapped = torch.where(y == 255, y, 1 - y)
    one, other = (
        accl_ext.partial_cross_entropy(a, b, reduction=reduction)
        for a, b in ((x, y), (-x, swapped))
    )
    assert torch.equal(one, other)


@pytest.mark.parametrize("label", [0, 1])
def test_a_more_correct_logit_costs_less(label):
    x = torch.linspace(-30, 30, 601).reshape(1, 1, -1) * (1 if label else -1)
    y = torch.full((1, 601), label)
    loss = accl_ext.partial_cross_entropy(x, y, reduction="none")
    assert (loss.diff() < 0).all()
    assert (loss > 0).all()


def test_one_class_is_two_classes_with_a_background_logit_of_zero():
    x, y = make_logits(2, 1), make_labels(2, 1)
    two = torch.cat([torch.zeros_like(x), x], 1)
    for reduction in REDUCTIONS:
        one = accl_ext.partial_cross_entropy(x, y, reduction=reduction)
        torch.testing.assert_close(
            one, accl_ext.partial_cross_entropy(two, y, reduction=reduction), rtol=1e-13, atol=1e-15
        )
