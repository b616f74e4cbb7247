"""pixel_weight and label_smoothing of the partial cross-entropy: values and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

import accl_ext
from ops.oracle import (
    DTYPES,
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
inf, nan = math.inf, math.nan

for_reductions = pytest.mark.parametrize("reduction", REDUCTIONS)
for_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
for_classes = pytest.mark.parametrize("classes", [1, 2, 3, 5])
for_smoothing = pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])


def class_weight(classes: int) -> torch.Tensor:
    return torch.tensor([0.25, 1.5, 0.0, 3.0, 0.5])[: max(classes, 2)]


def pixel_weight(batch: int, spatial=(5, 7)) -> torch.Tensor:
    weight = torch.rand(batch, *spatial) * 3
    return torch.where(weight < 0.5, 0, weight)


@for_dtypes
@for_classes
@for_reductions
@for_smoothing
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_options(dtype, classes, reduction, smoothing, weighted):
    logits, labels = make_logits(3, classes, dtype=dtype), make_labels(3, classes)
    options = {
        "weight": class_weight(classes) if weighted else None,
        "label_smoothing": smoothing,
        "reduction": reduction,
    }
    check("partial_cross_entropy", logits, labels, **options)
    check("partial_cross_entropy", logits, labels, pixel_weight=pixel_weight(3), **options)


@for_dtypes
@pytest.mark.parametrize("classes", [1, 2, 5])
@for_smoothing
def test_in_the_head(dtype, classes, smoothing):
    options = {
        "weight": class_weight(classes),
        "pixel_weight": pixel_weight(3),
        "label_smoothing": smoothing,
    }
    z, y = make_logits(3, classes, dtype=dtype), make_labels(3, classes)
    check("segmentation_head", z, y, (3.0, 6.0), **options)
    head = accl_ext.segmentation_head(z, y, **options)
    assert torch.equal(head.partial_ce, accl_ext.partial_cross_entropy(z, y, **options))
    plain = accl_ext.segmentation_head(z, y)
    assert torch.equal(head.probabilities, plain.probabilities)
    assert torch.equal(head.soft_size, plain.soft_size)


@pytest.mark.parametrize("weight_type", [*DTYPES, torch.float8_e4m3fn], ids=dtype_id)
@for_dtypes
def test_any_floating_dtype(weight_type, dtype):
    weight = pixel_weight(3).to(weight_type)
    check("partial_cross_entropy", make_logits(3, 1, dtype=dtype), make_labels(3, 1),
          pixel_weight=weight)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("classes", [1, 3])
def test_layouts(layout, rank, classes):
    logits, labels = make_logits(2, classes, SPATIAL[rank]), make_labels(2, classes, SPATIAL[rank])
    weight = pixel_weight(2, SPATIAL[rank])
    other = layout if layout != "channels_last" else "transposed"
    for given in (lay_out(weight, other), lay_out(weight.unsqueeze(1), layout)):
        check("partial_cross_entropy", logits, labels, pixel_weight=given, reduction="none")
        check("segmentation_head", logits, labels, pixel_weight=given)


@pytest.mark.parametrize("label_type", [torch.int8, torch.int64, torch.bool], ids=dtype_id)
def test_label_types(label_type):
    labels, ignore = make_labels(3, 1, dtype=label_type), ignore_of(label_type)
    options = {"pixel_weight": pixel_weight(3), "label_smoothing": 0.1, "ignore_index": ignore}
    check("partial_cross_entropy", make_logits(3, 1), labels, **options)


@pytest.mark.parametrize("size", [1, 15, 17, 33, 1023, 1025, 8193, 20_001])
@pytest.mark.parametrize("classes", [1, 3, 33])
@pytest.mark.parametrize("labelled", [0.02, 1.0])
def test_sizes(size, classes, labelled):
    logits = make_logits(2, classes, (size,), torch.float32)
    labels = make_labels(2, classes, (size,), labelled=labelled)
    options = {"pixel_weight": pixel_weight(2, (size,)), "label_smoothing": 0.1}
    check("partial_cross_entropy", logits, labels, reduction="image_mean", **options)


@for_reductions
@for_smoothing
@pytest.mark.parametrize("classes", [1, 3])
def test_ones_are_no_weights(classes, smoothing, reduction):
    z, y = make_logits(3, classes, (41, 27), torch.float32), make_labels(3, classes, (41, 27))
    options = {"label_smoothing": smoothing, "reduction": reduction}
    results = []
    for weight in (None, torch.ones(3, 41, 27)):
        leaf = z.clone().requires_grad_()
        loss = accl_ext.partial_cross_entropy(leaf, y, pixel_weight=weight, **options)
        results.append((loss, torch.autograd.grad(loss.sum(), leaf)[0]))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@for_reductions
@for_smoothing
@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_pixel_of_weight_zero_costs_nothing_whatever_its_logits(
    classes, smoothing, reduction, value
):
    z, y = make_logits(2, classes, (37,)), make_labels(2, classes, (37,), labelled=0.7)
    weight = pixel_weight(2, (37,))
    z[(weight == 0).unsqueeze(1).expand_as(z)] = value
    options = {"pixel_weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    check("partial_cross_entropy", z, y, **options)
    leaf = z.clone().requires_grad_()
    loss = accl_ext.partial_cross_entropy(leaf, y, **options)
    assert loss.isfinite().all()
    (gradient,) = torch.autograd.grad(loss.sum(), leaf, create_graph=True)
    assert gradient.isfinite().all()
    (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
    assert second[(weight != 0).unsqueeze(1).expand_as(z)].isfinite().all()


@for_smoothing
@pytest.mark.parametrize("classes", [1, 3])
def test_weights_of_unlabelled_pixels_are_not_looked_at(classes, smoothing):
    z, y = make_logits(2, classes), make_labels(2, classes)
    weight = pixel_weight(2)
    wanted = accl_ext.partial_cross_entropy(z, y, pixel_weight=weight, label_smoothing=smoothing)
    for value in (nan, inf, -1.0):
        other = torch.where(y == 255, value, weight)
        got = accl_ext.partial_cross_entropy(z, y, pixel_weight=other, label_smoothing=smoothing)
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_smoothing_is_torch_s(classes, weighted, reduction):
    z, y = make_logits(3, classes), make_labels(3, classes, dtype=torch.int64)
    weight = class_weight(classes).double() if weighted else None
    options = {"weight": weight, "reduction": reduction, "label_smoothing": 0.2}
    got = accl_ext.partial_cross_entropy(z, y, ignore_index=-100, **options)
    torch.testing.assert_close(got, F.cross_entropy(z, y, **options), rtol=1e-13, atol=1e-15)


@for_reductions
def test_one_class_is_smoothed_as_two_with_a_background_logit_of_zero(reduction):
    z, y = make_logits(2, 1), make_labels(2, 1)
    two = torch.cat([torch.zeros_like(z), z], 1)
    options = {
        "weight": class_weight(1),
        "pixel_weight": pixel_weight(2),
        "label_smoothing": 0.3,
        "reduction": reduction,
    }
    one = accl_ext.partial_cross_entropy(z, y, **options)
    other = accl_ext.partial_cross_entropy(two, y, **options)
    torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("logit", "label", "loss", "slope"),
    [
        # e = 1/4: factors 7/8 and 1/8; at z = 40 the label costs e^-40, the other class 40
        (40.0, 1, 5.0, 1 / 8),
        (-40.0, 0, 5.0, -1 / 8),
        (40.0, 0, 35.0, 7 / 8),
        (1e4, 1, 1250.0, 1 / 8),
        (3e38, 0, 2.625e38, 7 / 8),
        (inf, 1, inf, 1 / 8),
        (-inf, 0, inf, -1 / 8),
    ],
)
def test_extreme_logits(logit, label, loss, slope):
    z = torch.full((1, 1, 19), logit, requires_grad=True)
    y = torch.full((1, 19), label)
    got = accl_ext.partial_cross_entropy(z, y, label_smoothing=0.25, reduction="none")
    got.sum().backward()
    assert got.flatten().tolist() == pytest.approx([loss] * 19, rel=1e-6)
    assert z.grad.flatten().tolist() == pytest.approx([slope] * 19, rel=1e-6)


def test_a_class_of_logit_minus_infinity_costs_infinity_unless_its_weight_is_zero():
    z = torch.tensor([0.0, 1.0, -inf]).reshape(1, 3, 1)
    y = torch.tensor([[0]])
    assert accl_ext.partial_cross_entropy(z, y, label_smoothing=0.1) == inf
    weight = torch.tensor([1.0, 1.0, 0.0])
    check("partial_cross_entropy", z, y, weight=weight, label_smoothing=0.1)
    got = accl_ext.partial_cross_entropy(z, y, weight=weight, label_smoothing=0.3)
    # log(1 + e) for class 0 and log(1 + e) - 1 for class 1, with 0.8 and 0.1
    wanted = 0.9 * math.log1p(math.e) - 0.1
    assert got.item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("classes", [1, 3])
def test_weights_of_zero_alone_cost_nothing(classes):
    """Every pixel's, or every class's."""
    z, y = make_logits(2, classes).requires_grad_(), make_labels(2, classes)
    z.data[0, 0, 0, 0], y[0, 0, 0] = nan, 1
    for options in (
        {"pixel_weight": torch.zeros(2, 5, 7)},
        {"weight": torch.zeros(max(classes, 2)), "label_smoothing": 0.5},
    ):
        for reduction in REDUCTIONS:
            loss = accl_ext.partial_cross_entropy(z, y, reduction=reduction, **options)
            (gradient,) = torch.autograd.grad(loss.sum(), z)
            assert not loss.any()
            assert not gradient.any()
