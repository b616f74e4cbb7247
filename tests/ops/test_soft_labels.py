"""Soft labels, probabilities of the classes: against torch's own, by hand, and one-hot as hard."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

import accl_ext
from accl_ext import reference
from ops.op_cases import OVERLAPS, pixel_weight
from ops.oracle import DTYPES, check, dtype_id, make_labels, make_logits, make_probabilities

nan, inf = math.nan, math.inf
for_apis = pytest.mark.parametrize("api", [accl_ext, reference], ids=["fused", "reference"])


def soft(classes: int, dtype=torch.float64, batch: int = 3):
    """Logits, soft labels and a mask."""
    logits = make_logits(batch, classes, dtype=dtype)
    return logits, make_probabilities(batch, classes, dtype=dtype), torch.rand(batch, 5, 7) < 0.5


@for_apis
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torch_s(api, smoothing, weighted):
    z, t, _ = soft(3)
    weight = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64) if weighted else None
    wanted = F.cross_entropy(z, t, weight=weight, label_smoothing=smoothing)
    got = api.partial_cross_entropy(z, t, weight=weight, label_smoothing=smoothing)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
    each = F.cross_entropy(z, t, weight=weight, label_smoothing=smoothing, reduction="none")
    got = api.partial_cross_entropy(
        z, t, weight=weight, label_smoothing=smoothing, reduction="none"
    )
    torch.testing.assert_close(got, each, rtol=1e-12, atol=0)


@for_apis
def test_one_class_is_torch_s_binary_cross_entropy(api):
    z, t, mask = soft(1)
    each = F.binary_cross_entropy_with_logits(z, t, reduction="none")[:, 0]
    got = api.partial_cross_entropy(z, t, mask=mask)
    torch.testing.assert_close(got, each[mask].mean(), rtol=1e-12, atol=0)
    got = api.partial_cross_entropy(z, t, mask=mask.unsqueeze(1), reduction="none")
    torch.testing.assert_close(got, torch.where(mask, each, 0), rtol=1e-12, atol=0)


@for_apis
def test_by_hand(api):
    """p = 3/4 and 1/2; soft labels 1/2 and 1/4; a third pixel is masked out."""
    z = torch.tensor([[[math.log(3), 0.0, nan]]], dtype=torch.float64)
    t, mask = torch.tensor([[[0.5, 0.25, nan]]]), torch.tensor([[True, True, False]])
    ce = api.partial_cross_entropy(z, t, mask=mask).item()
    first = -0.5 * math.log(3 / 4) - 0.5 * math.log(1 / 4)
    assert ce == pytest.approx((first + math.log(2)) / 2, rel=1e-14)
    # TP = 3/8 + 1/8, S = 5/4, Y = 3/4
    overlap = api.partial_overlap_loss(z, t, mask=mask).item()
    assert overlap == pytest.approx(1 - 0.5 / 1.0, rel=1e-14)
    head = api.segmentation_head(z, t, mask=mask, overlap={})
    assert (head.partial_ce.item(), head.overlap.item()) == (ce, overlap)


@for_apis
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("name", OVERLAPS)
def test_one_hot_is_hard(api, classes, name):
    z, y = make_logits(3, classes), make_labels(3, classes)
    mask = y != 255
    t = F.one_hot(torch.where(mask, y, 0).long(), max(classes, 2)).movedim(-1, 1).double()
    t = t[:, 1:] if classes == 1 else t
    options = {**OVERLAPS[name], "pixel_weight": pixel_weight(z)}
    results = []
    for labels, more in ((y, {}), (t, {"mask": mask})):
        leaf = z.clone().requires_grad_()
        weight = {"pixel_weight": options["pixel_weight"]}
        loss = api.partial_overlap_loss(leaf, labels, **more, **options)
        loss = loss + api.partial_cross_entropy(leaf, labels, **more, **weight)
        results.append((loss, torch.autograd.grad(loss, leaf)[0]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("classes", [1, 3])
def test_every_dtype(dtype, classes):
    z, t, mask = soft(classes, dtype)
    for reduction in ("mean", "image_mean", "sum", "none"):
        check("partial_cross_entropy", z, t, mask=mask, reduction=reduction)
    check("partial_overlap_loss", z, t, mask=mask)
    check("segmentation_head", z, t, (3.0, 5.0), mask=mask, overlap={"squared": True})


@pytest.mark.parametrize("classes", [1, 3])
def test_derivatives(classes):
    z, t, mask = soft(classes, batch=2)

    def losses(z):
        head = accl_ext.segmentation_head(z, t, (3.0, 5.0), mask=mask, overlap={"batch": True})
        return tuple(head)

    z.requires_grad_()
    assert gradcheck(losses, z)
    assert gradgradcheck(losses, z)


@for_apis
@pytest.mark.parametrize("classes", [1, 3])
def test_what_is_masked_out_does_not_count(api, classes):
    z, t, mask = soft(classes)
    out = ~mask.unsqueeze(1).expand_as(z)
    clean = api.segmentation_head(z, t, mask=mask, overlap={})
    t[out] = nan
    odd = z.clone()
    odd[out] = inf
    odd.requires_grad_()
    for name in ("partial_cross_entropy", "partial_overlap_loss"):
        loss = getattr(api, name)(odd, t, mask=mask)
        field = "partial_ce" if name == "partial_cross_entropy" else "overlap"
        assert torch.equal(loss, getattr(clean, field))
        (gradient,) = torch.autograd.grad(loss, odd)
        assert gradient.isfinite().all()
        assert not gradient[out].any()


@for_apis
def test_nothing_labelled_is_nothing(api):
    z, t, mask = soft(3)
    z.requires_grad_()
    head = api.segmentation_head(z, t, mask=mask & False, overlap={"absent": "keep"})
    assert head.partial_ce == head.overlap == 0
    (gradient,) = torch.autograd.grad(head.partial_ce + head.overlap, z)
    assert not gradient.any()
