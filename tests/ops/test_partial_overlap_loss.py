"""partial_overlap_loss: values and gradients, alone and in the head, against the reference."""

import math

import pytest
import torch

import accl_ext
from accl_ext import functional, reference
from ops.op_cases import OVERLAPS, pixel_weight
from ops.oracle import (
    DTYPES,
    LABEL_TYPES,
    LAYOUTS,
    SPATIAL,
    assert_near,
    check,
    dtype_id,
    ignore_of,
    lay_out,
    make_labels,
    make_logits,
)
from ops.test_reference_overlap import BY_HAND, two_images

BATCH = 3
nan, inf = math.nan, math.inf

for_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
for_classes = pytest.mark.parametrize("classes", [1, 2, 3, 5])
for_options = pytest.mark.parametrize("name", OVERLAPS)


@pytest.mark.parametrize(("options", "wanted"), BY_HAND, ids=str)
def test_by_hand(options, wanted):
    got = accl_ext.partial_overlap_loss(*two_images(), **options)
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64), rtol=1e-14, atol=0)
    overlap = {name: x for name, x in options.items() if name != "pixel_weight"}
    head = accl_ext.segmentation_head(
        *two_images(), pixel_weight=options.get("pixel_weight"), overlap=overlap
    )
    assert torch.equal(head.overlap, got)


def test_gradient_by_hand():
    """Dice of p = 1/2 labelled 1 and p = 1/2 labelled 0, as in the test of the reference."""
    z = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    accl_ext.partial_overlap_loss(z, torch.tensor([[1, 0]])).backward()
    assert z.grad.flatten().tolist() == pytest.approx([-3 / 16, 1 / 16], rel=1e-14)


@for_dtypes
@for_classes
@for_options
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_options(dtype, classes, name, reduction):
    logits, labels = make_logits(BATCH, classes, dtype=dtype), make_labels(BATCH, classes)
    labels[1, labels[1] == 1] = 0  # image 1 has nothing of class 1
    options = {"reduction": reduction, **OVERLAPS[name]}
    check("partial_overlap_loss", logits, labels, **options)
    weight = torch.rand(max(classes, 2))
    weights = {"weight": weight, "pixel_weight": pixel_weight(logits)}
    check("partial_overlap_loss", logits, labels, **options, **weights)
    check(
        "segmentation_head",
        logits,
        labels,
        (3.0, 5.0),
        overlap={**options, "weight": weight},
        pixel_weight=pixel_weight(logits),
        label_smoothing=0.2,
    )


@pytest.mark.parametrize("label_type", LABEL_TYPES, ids=dtype_id)
@pytest.mark.parametrize("classes", [1, 3])
def test_label_types(label_type, classes):
    if label_type == torch.bool and classes > 1:
        pytest.skip("bool labels are for one class")
    labels = make_labels(BATCH, classes, dtype=label_type)
    check(
        "partial_overlap_loss",
        make_logits(BATCH, classes),
        labels,
        ignore_index=ignore_of(label_type),
    )


@for_dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("classes", [1, 3])
def test_layouts(dtype, layout, rank, classes):
    logits = lay_out(make_logits(BATCH, classes, SPATIAL[rank], dtype), layout)
    labels = make_labels(BATCH, classes, SPATIAL[rank])
    check("partial_overlap_loss", logits, labels, reduction="none", absent="keep")


@pytest.mark.parametrize(
    "size", [1, 3, 15, 16, 17, 31, 33, 900, 1023, 1025, 8191, 8192, 8193, 65_536]
)
@pytest.mark.parametrize("classes", [1, 3, 9])
@pytest.mark.parametrize("labelled", [0.01, 1.0])
def test_sizes(size, classes, labelled):
    logits = make_logits(2, classes, (size,), torch.float32)
    labels = make_labels(2, classes, (size,), labelled=labelled)
    check("partial_overlap_loss", logits, labels, smooth_denominator=0.01)
    check("segmentation_head", logits, labels, overlap={"squared": True, "absent": "keep"})


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (2, 1, 0, 4), (0, 3, 4), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_no_pixels_cost_nothing(shape, batch, reduction):
    logits = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    labels = torch.zeros(shape[0], *shape[2:], dtype=torch.uint8)
    options = {"batch": batch, "reduction": reduction}
    for more in ({}, OVERLAPS["keep"], {"absent": "keep", "smooth_denominator": 1.0}):
        check("partial_overlap_loss", logits, labels, **{**options, **more})
        assert not accl_ext.partial_overlap_loss(logits, labels, **{**options, **more}).any()


@pytest.mark.parametrize("absent", ["skip", "keep"])
@pytest.mark.parametrize("classes", [1, 3])
def test_nothing_labelled_costs_nothing(absent, classes):
    z = make_logits(2, classes).requires_grad_()
    unequal = {"smooth_numerator": 0.1, "smooth_denominator": 0.4}  # 1 - n / d by the formula
    for options in ({}, {"batch": True}, {"reduction": "sum"}, {"reduction": "none"}, unequal):
        labels = torch.full((2, 5, 7), 255)
        loss = accl_ext.partial_overlap_loss(z, labels, absent=absent, **options)
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        assert not loss.any()
        assert not gradient.any()
    # Nor does a weight of 0 on all that is labelled.
    weight = torch.zeros(2, 5, 7)
    loss = accl_ext.partial_overlap_loss(z, make_labels(2, classes), pixel_weight=weight)
    assert loss == 0


@for_dtypes
@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("squared", [False, True])
def test_a_logit_that_does_not_count(dtype, value, classes, squared):
    """Unlabelled, or of pixel weight 0: no value has an influence, in either derivative."""
    z, y = make_logits(2, classes, (37,), dtype), make_labels(2, classes, (37,))
    weight = torch.rand(2, 37) + 0.5
    out = y == 255
    weight[:, 5:9] = 0
    out[:, 5:9] = True
    options = {"pixel_weight": weight, "squared": squared}
    clean = accl_ext.partial_overlap_loss(z, y, **options)
    z[out.unsqueeze(1).expand_as(z)] = value
    leaf = z.clone().requires_grad_()
    got = accl_ext.partial_overlap_loss(leaf, y, **options)
    assert torch.equal(got, clean)
    (gradient,) = torch.autograd.grad(got, leaf, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), leaf)
    for x in (gradient, second):
        assert x.isfinite().all()
        assert not x[out.unsqueeze(1).expand_as(z)].any()
    check("partial_overlap_loss", z, y, **options)


@for_dtypes
@pytest.mark.parametrize("classes", [1, 3])
def test_a_labelled_nan_is_nan(dtype, classes):
    z, y = make_logits(2, classes, (37,), dtype), make_labels(2, classes, (37,), labelled=1.0)
    z[1, 0, 20] = nan
    each = accl_ext.partial_overlap_loss(z, y, reduction="none")
    assert each[0].isfinite().all()
    assert each[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=dtype_id)
@pytest.mark.parametrize("classes", [1, 3])
def test_sums_beyond_float16(dtype, classes):
    """All 102 400 pixels are of class 1 and sure of it: sums that float16 does not hold."""
    z = torch.zeros(1, classes, 320, 320, dtype=dtype)
    z[:, -1 if classes == 1 else 1] = 6.0
    loss = accl_ext.partial_overlap_loss(z, torch.ones(1, 320, 320, dtype=torch.uint8))
    p = 1 / (1 + max(classes - 1, 1) * math.exp(-6))
    assert loss.item() == pytest.approx(1 - 2 * p / (1 + p), rel=3e-4)


def test_a_label_that_is_no_class():
    z, y = torch.zeros(2, 3, 37), torch.zeros(2, 37, dtype=torch.int64)
    y[1, 30] = 3
    for call in (
        lambda: accl_ext.partial_overlap_loss(z, y),
        lambda: accl_ext.segmentation_head(z, y, overlap={}),
    ):
        with pytest.raises(ValueError, match=r"^labels must be 0 to 2 or ignore_index .*, got 3$"):
            call()


@pytest.mark.parametrize("classes", [1, 3])
def test_an_image_alone_or_in_a_batch(classes):
    z, y = make_logits(5, classes, (8193,), torch.float32), make_labels(5, classes, (8193,))
    together = accl_ext.partial_overlap_loss(z, y, reduction="none")
    for i in range(5):
        alone = accl_ext.partial_overlap_loss(z[i : i + 1], y[i : i + 1], reduction="none")
        assert torch.equal(alone[0], together[i])


def test_the_head_gives_the_same_bits_with_and_without():
    z, y = make_logits(2, 3, (41, 27), torch.float32), make_labels(2, 3, (41, 27))
    plain = accl_ext.segmentation_head(z, y, (1, 2))
    with_overlap = accl_ext.segmentation_head(z, y, (1, 2), overlap={"reduction": "none"})
    assert plain._fields == with_overlap._fields[:-1]
    for a, b in zip(plain, with_overlap, strict=False):
        assert torch.equal(a, b)
    assert torch.equal(with_overlap.overlap, accl_ext.partial_overlap_loss(z, y, reduction="none"))


@pytest.mark.parametrize("name", OVERLAPS)
def test_where_there_is_no_kernel(monkeypatch, name):
    """On CUDA plain PyTorch computes the loss; here a tensor that says it is there."""

    class OnCuda(torch.Tensor):
        is_cuda = True

    def refuse(*_):
        raise AssertionError("the kernel was called")

    monkeypatch.setattr(functional._ops, "partial_overlap_loss", refuse)
    z, y = make_logits(2, 3, dtype=torch.float64), make_labels(2, 3)
    there = z.clone().as_subclass(OnCuda).requires_grad_()
    weight, by_pixel = torch.rand(3), torch.rand(2, 5, 7)
    here = z.clone().requires_grad_()
    wanted = reference.partial_overlap_loss(
        here, y, weight=weight, pixel_weight=by_pixel, **OVERLAPS[name]
    )
    for got in (
        accl_ext.partial_overlap_loss(
            there, y, weight=weight, pixel_weight=by_pixel, **OVERLAPS[name]
        ),
        accl_ext.segmentation_head(
            there, y, pixel_weight=by_pixel, overlap={**OVERLAPS[name], "weight": weight}
        ).overlap,
    ):
        assert_near(got.as_subclass(torch.Tensor), wanted)
        (gradient,) = torch.autograd.grad(got, there)
        (by,) = torch.autograd.grad(wanted, here, retain_graph=True)
        assert_near(gradient.as_subclass(torch.Tensor), by)
