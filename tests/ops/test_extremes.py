"""Logits at and beyond the ends of the number range; autocast and loss scaling."""

import math

import pytest
import torch

import accl_ext
from accl_ext import reference
from ops.oracle import DTYPES, check, dtype_id, make_labels, make_logits

inf, nan = math.inf, math.nan


def full(value, pixels=19, dtype=torch.float32):
    return torch.full((1, 1, pixels), value, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize(
    ("logit", "label", "loss", "slope"),
    [
        # log1p(e^-20) = 2.0611536e-9; slope -(1 - s) = -1 / (1 + e^20)
        (20.0, 1, 2.0611536181902037e-09, -2.0611536181902037e-09),
        (-20.0, 0, 2.0611536181902037e-09, 2.0611536181902037e-09),
        (20.0, 0, 20.0, 1.0),
        (88.0, 1, 6.054601485195952e-39, -6.054601485195952e-39),  # e^-88, not a normal float32
        (-88.0, 1, 88.0, -1.0),
        (104.0, 1, 0.0, 0.0),  # e^-104 = 6.8e-46 rounds to 0
        (-104.0, 1, 104.0, -1.0),
        (1e4, 1, 0.0, 0.0),
        (1e4, 0, 1e4, 1.0),
        (-1e4, 1, 1e4, -1.0),
        (3.4e38, 0, 3.4e38, 1.0),
        (inf, 1, 0.0, 0.0),
        (-inf, 0, 0.0, 0.0),
        (inf, 0, inf, 1.0),
        (-inf, 1, inf, -1.0),
    ],
)
def test_cross_entropy_of_extreme_logits(logit, label, loss, slope):
    z = full(logit)
    got = accl_ext.partial_cross_entropy(z, torch.full((1, 19), label), reduction="none")
    got.sum().backward()
    for value, wanted in ((got, loss), (z.grad, slope)):
        assert value.flatten().tolist() == pytest.approx([wanted] * 19, rel=1e-6, abs=1.5e-45)


@pytest.mark.parametrize(
    ("logit", "probability", "slope"),
    [
        (20.0, 1.0, 2.0611536096939423e-09),  # s (1 - s) = e / (1 + e)^2, naively 0
        (-20.0, 2.0611536181902037e-09, 2.0611536096939423e-09),
        (-88.0, 6.054601485195952e-39, 6.054601485195952e-39),
        (104.0, 1.0, 0.0),
        (-104.0, 0.0, 0.0),
        (1e4, 1.0, 0.0),
        (inf, 1.0, 0.0),
        (-inf, 0.0, 0.0),
    ],
)
def test_soft_size_of_extreme_logits(logit, probability, slope):
    z = full(logit)
    head = accl_ext.segmentation_head(z, torch.full((1, 19), 255))
    head.soft_size.sum().backward()
    assert head.probabilities.flatten().tolist() == pytest.approx([probability] * 19, rel=1e-6)
    assert head.soft_size.item() == pytest.approx(19 * probability, rel=1e-6, abs=1e-44)
    assert z.grad.flatten().tolist() == pytest.approx([slope] * 19, rel=1e-6, abs=1.5e-45)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("reduction", ["mean", "image_mean", "sum", "none"])
@pytest.mark.parametrize("value", [nan, inf, -inf])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_an_unlabelled_logit_does_not_count(dtype, reduction, value, classes):
    z, y = make_logits(2, classes, (37,), dtype), make_labels(2, classes, (37,))
    clean = accl_ext.partial_cross_entropy(z, y, reduction=reduction)
    z[(y == 255).unsqueeze(1).expand_as(z)] = value
    leaf = z.clone().requires_grad_()
    got = accl_ext.partial_cross_entropy(leaf, y, reduction=reduction)
    assert torch.equal(got, clean)
    (gradient,) = torch.autograd.grad(got.sum(), leaf)
    assert gradient.isfinite().all()
    check("partial_cross_entropy", z, y, reduction=reduction)


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_a_nan_logit_that_is_labelled_is_nan(classes, dtype):
    z, y = make_logits(3, classes, (37,), dtype), make_labels(3, classes, (37,))
    y[1, 20], z[1, 0, 20] = 1, nan
    for reduction in ("mean", "image_mean", "sum"):
        assert accl_ext.partial_cross_entropy(z, y, reduction=reduction).isnan()
    each = accl_ext.partial_cross_entropy(z, y, reduction="none")
    assert each.isnan().nonzero().tolist() == [[1, 20]]
    check("partial_cross_entropy", z, y, reduction="none")


@pytest.mark.parametrize("classes", [1, 3])
def test_a_nan_logit_always_counts_in_its_own_soft_size(classes):
    z, y = make_logits(3, classes, (37,)), torch.full((3, 37), 255)
    z[1, 0, 20] = nan
    head = accl_ext.segmentation_head(z, y)
    assert head.soft_size[1].isnan().all()
    assert head.soft_size[[0, 2]].isfinite().all()
    assert head.probabilities.isnan().nonzero()[:, 2].unique().tolist() == [20]
    assert head.partial_ce == 0
    check("segmentation_head", z, y)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_softmax_of_minus_infinity_is_its_limit(dtype):
    """A class of logit -inf has probability 0; it costs nothing unless it is the label."""
    z = torch.tensor([[0.0, -inf, 0.0], [-inf, 1.0, 2.0], [1.0, -inf, -inf]], dtype=dtype)
    z = z.T.reshape(1, 3, 3)  # pixels (0, -inf, 0), (-inf, 1, 2), (1, -inf, -inf)
    y = torch.tensor([[0, 2, 0]])
    leaf = z.clone().requires_grad_()
    head = accl_ext.segmentation_head(leaf, y)
    assert head.probabilities[0, :, 0].tolist() == [0.5, 0.0, 0.5]
    assert head.probabilities[0, :, 2].tolist() == [1.0, 0.0, 0.0]
    # ln 2, ln(1 + 1/e), 0
    wanted = (math.log(2) + math.log1p(math.exp(-1))) / 3
    assert head.partial_ce.item() == pytest.approx(wanted, rel=1e-6)
    (gradient,) = torch.autograd.grad(head.partial_ce + head.soft_size[0, 0], leaf)
    assert gradient.isfinite().all()
    assert gradient[0, 1, 0] == 0
    check("segmentation_head", z, y, (1, 2))
    assert accl_ext.partial_cross_entropy(z, torch.tensor([[1, 2, 0]])) == inf


def test_softmax_of_plus_infinity_is_nan_as_torch_s():
    z = torch.zeros(1, 3, 4)
    z[0, 1, 2] = inf
    head = accl_ext.segmentation_head(z, torch.zeros(1, 4).long())
    assert head.probabilities[0, :, 2].isnan().all()
    assert head.probabilities[0, :, [0, 1, 3]].isfinite().all()
    assert head.partial_ce.isnan()


@pytest.mark.parametrize("gap", [20.0, 88.0, 104.0, 1e4, 1e37])
@pytest.mark.parametrize("classes", [2, 3])
def test_softmax_of_logits_far_apart(gap, classes):
    z = torch.zeros(1, classes, 19)
    z[:, 0] = gap
    for label in range(classes):
        y = torch.full((1, 19), label)
        leaf = z.clone().requires_grad_()
        loss = accl_ext.partial_cross_entropy(leaf, y)
        loss.backward()
        others = (classes - 1) * math.exp(-gap)
        wanted = math.log1p(others) if label == 0 else gap + math.log1p(others)
        assert loss.item() == pytest.approx(wanted, rel=1e-6, abs=1e-44)
        slope = -others / (1 + others) if label == 0 else 1 / (1 + others)
        got = leaf.grad[0, 0].mul(19).tolist()
        assert got == pytest.approx([slope] * 19, rel=1e-5, abs=1e-43)


# ---------------------------------------------------------------------------------------------
# Autocast and loss scaling


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_autocast_changes_nothing(enabled, dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    z = make_logits(2, 1, dtype=dtype).requires_grad_()
    y = make_labels(2, 1)
    plain = accl_ext.segmentation_head(z, y, (1, 2))
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        head = accl_ext.segmentation_head(z, y, (1, 2))
        losses = [
            accl_ext.accl_loss(z),
            accl_ext.accl_loss(z, reduction="none"),
            accl_ext.accl_discriminator_loss(z, z),
            accl_ext.partial_cross_entropy(z, y),
            accl_ext.size_penalty(z, (1, 2)),
        ]
        (gradient,) = torch.autograd.grad(head.partial_ce + head.size_penalty, z)
    assert [x.dtype for x in head] == [dtype, wide, wide, wide]
    assert {x.dtype for x in losses} == {wide}
    assert gradient.dtype == dtype
    for a, b in zip(head, plain, strict=True):
        assert torch.equal(a, b)


def test_a_network_under_autocast_trains():
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    y = make_labels(2, 1, (8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.randn(2, 1, 8, 8))
        head = accl_ext.segmentation_head(logits, y, (1, 2))
        loss = head.partial_ce + head.size_penalty
    assert logits.dtype == head.probabilities.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    assert network.weight.grad.dtype == torch.float32
    assert network.weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=dtype_id)
@pytest.mark.parametrize("classes", [1, 3])
def test_loss_scaling_by_65536(dtype, classes):
    """The scaled gradient of the loss, 65 536, is no float16; its products with 1 / |P| are."""
    z, y = make_logits(2, classes, (40, 40), dtype), make_labels(2, classes, (40, 40))
    fused, wide = z.clone().requires_grad_(), z.double().requires_grad_()
    (accl_ext.partial_cross_entropy(fused, y) * 65_536).backward()
    (reference.partial_cross_entropy(wide, y) * 65_536).backward()
    assert fused.grad.isfinite().all()
    error = (fused.grad.double() - wide.grad).abs()
    assert (error <= wide.grad.abs() * 2**-8 + 1e-7).all()
