"""The oracle's partial cross-entropy, the data term of eqs. (1), (2) and (4): literal values worked
out by hand, limits, and torch's own loss."""

import math

import pytest
import torch
import torch.nn.functional as F

from accl_ext import reference as R
from ops.test_reference import f64, value_and_gradient

inf, nan = math.inf, math.nan
ln = math.log


def binary():
    """p = 1/2, 3/4, 1/4 and an ignored pixel; labels 1, 1, 0: losses ln 2, ln 4/3, ln 4/3."""
    z = f64(0, ln(3), -ln(3), 5).reshape(1, 1, 4).requires_grad_()
    return z, torch.tensor([[1, 1, 0, 255]], dtype=torch.uint8)


@pytest.mark.parametrize(
    ("options", "loss", "gradient"),
    [
        # slopes p - y: -1/2, -1/4, 1/4
        ({"reduction": "sum"}, ln(2) + 2 * ln(4 / 3), [-1 / 2, -1 / 4, 1 / 4, 0]),
        ({}, (ln(2) + 2 * ln(4 / 3)) / 3, [-1 / 6, -1 / 12, 1 / 12, 0]),
        ({"reduction": "image_mean"}, (ln(2) + 2 * ln(4 / 3)) / 3, [-1 / 6, -1 / 12, 1 / 12, 0]),
        # weights 3 for background, 1 for foreground: over 1 + 1 + 3
        (
            {"weight": f64(3, 1)},
            (ln(2) + 4 * ln(4 / 3)) / 5,
            [-1 / 10, -1 / 20, 3 / 20, 0],
        ),
        ({"weight": f64(0, 0)}, 0, [0, 0, 0, 0]),
        # background ignored
        ({"ignore_index": 0}, None, None),
    ],
    ids=str,
)
def test_binary(options, loss, gradient):
    z, y = binary()
    if loss is None:  # 255 is then no class
        with pytest.raises(ValueError, match="got 255"):
            R.partial_cross_entropy(z, y, **options)
        return
    got = value_and_gradient(R.partial_cross_entropy(z, y, **options), z)
    assert got == (pytest.approx(loss), pytest.approx(gradient))


def test_foreground_only_is_the_paper_s_term():
    """-(1 / |P|) sum log p over the foreground pixels."""
    z = 2 * torch.randn(2, 1, 6, 6, dtype=torch.float64)
    y = torch.full((2, 6, 6), 255)
    y[:, 2:4, 2:4] = 1
    p = z.sigmoid()[:, 0, 2:4, 2:4]
    torch.testing.assert_close(R.partial_cross_entropy(z, y), -p.log().sum() / 8)


def test_softmax():
    # logits ln 1, ln 2, ln 5: p = 1/8, 2/8, 5/8; label 2 costs ln 8/5, slopes p - onehot
    z = f64(0, ln(2), ln(5)).reshape(1, 3, 1).requires_grad_()
    loss = R.partial_cross_entropy(z, torch.tensor([[2]]))
    got = value_and_gradient(loss, z)
    assert got == (pytest.approx(ln(8 / 5)), pytest.approx([1 / 8, 2 / 8, -3 / 8]))


def test_image_mean_leaves_unlabelled_images_out():
    # image 0: ln 2 and ln 2, image 1: unlabelled, image 2: ln 4/3
    z = f64(0, 0, 9, 9, ln(3), 9).reshape(3, 1, 2)
    y = torch.tensor([[1, 0], [255, 255], [1, 255]])
    got = R.partial_cross_entropy(z, y, reduction="image_mean")
    assert got.item() == pytest.approx((ln(2) + ln(4 / 3)) / 2)
    assert R.partial_cross_entropy(z, y).item() == pytest.approx((2 * ln(2) + ln(4 / 3)) / 3)
    each = R.partial_cross_entropy(z, y, reduction="none")
    wanted = [[ln(2), ln(2)], [0, 0], [ln(4 / 3), 0]]
    torch.testing.assert_close(each, torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, f64(0.5, 2.0, 1.0)], ids=["plain", "weighted"])
def test_softmax_is_torch_s_cross_entropy(reduction, weight):
    z = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    y = torch.randint(3, (2, 4, 5))
    y[0, 1:3] = 255
    got = R.partial_cross_entropy(z, y, weight=weight, reduction=reduction)
    wanted = F.cross_entropy(z, y, weight=weight, ignore_index=255, reduction=reduction)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(
    ("options", "loss", "gradient"),
    [
        ({"reduction": "sum"}, 2 * ln(2) + 3 * ln(4 / 3), [-1, 0, 3 / 4, 0]),
        ({}, (2 * ln(2) + 3 * ln(4 / 3)) / 5, [-1 / 5, 0, 3 / 20, 0]),
        # times the weights 3 for background, 1 for foreground: 2, 0, 9
        (
            {"weight": f64(3, 1)},
            (2 * ln(2) + 9 * ln(4 / 3)) / 11,
            [-1 / 11, 0, 9 / 44, 0],
        ),
    ],
    ids=str,
)
def test_pixel_weights(options, loss, gradient):
    """2, 0 and 3; that of the ignored pixel is not looked at."""
    z, y = binary()
    weight = torch.tensor([[2, 0, 3, nan]])
    got = value_and_gradient(R.partial_cross_entropy(z, y, pixel_weight=weight, **options), z)
    assert got == (pytest.approx(loss), pytest.approx(gradient))


def test_image_mean_leaves_out_images_whose_pixel_weights_are_0():
    # image 0: ln 2 and ln 4/3 with weights 1 and 3, image 1: weights 0, image 2: ln 2
    z = f64(0, ln(3), 9, 9, 0, 9).reshape(3, 1, 2)
    y = torch.tensor([[1, 1], [1, 1], [1, 255]])
    weight = torch.tensor([[1.0, 3.0], [0.0, 0.0], [5.0, 1.0]])
    got = R.partial_cross_entropy(z, y, pixel_weight=weight, reduction="image_mean")
    assert got.item() == pytest.approx(((ln(2) + 3 * ln(4 / 3)) / 4 + ln(2)) / 2)
    each = R.partial_cross_entropy(z, y, pixel_weight=weight, reduction="none")
    wanted = [[ln(2), 3 * ln(4 / 3)], [0, 0], [5 * ln(2), 0]]
    torch.testing.assert_close(each, torch.tensor(wanted, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "losses", "slopes", "total"),
    [
        # e = 0.2 of two classes: factors 0.9 and 0.1; -log p is ln 2 twice, else ln 4/3 and ln 4
        (
            {},
            [ln(2), 0.9 * ln(4 / 3) + 0.1 * ln(4), 0.9 * ln(4 / 3) + 0.1 * ln(4)],
            [1 / 2 - 0.9, 3 / 4 - 0.9, 1 / 4 - 0.1],
            3,
        ),
        # weights 3 and 1: factors 0.3 and 0.9 for foreground, 2.7 and 0.1 for background
        (
            {"weight": f64(3, 1)},
            [1.2 * ln(2), 0.9 * ln(4 / 3) + 0.3 * ln(4), 2.7 * ln(4 / 3) + 0.1 * ln(4)],
            [1.2 / 2 - 0.9, 1.2 * 3 / 4 - 0.9, 2.8 / 4 - 0.1],
            5,
        ),
        # the pixels' weights 2, 0 and 3
        (
            {"pixel_weight": torch.tensor([[2, 0, 3, nan]])},
            [2 * ln(2), 0, 3 * (0.9 * ln(4 / 3) + 0.1 * ln(4))],
            [2 * (1 / 2 - 0.9), 0, 3 * (1 / 4 - 0.1)],
            5,
        ),
    ],
    ids=["plain", "weighted", "pixel_weighted"],
)
def test_label_smoothing(options, losses, slopes, total):
    z, y = binary()
    options = {"label_smoothing": 0.2, **options}
    each = R.partial_cross_entropy(z, y, reduction="none", **options)
    assert each[0].tolist() == pytest.approx([*losses, 0])
    got = value_and_gradient(R.partial_cross_entropy(z, y, **options), z)
    wanted = [slope / total for slope in slopes]
    assert got == (pytest.approx(sum(losses) / total), pytest.approx([*wanted, 0], abs=1e-15))


@pytest.mark.parametrize(
    ("weight", "factors"),
    [(None, [0.1, 0.1, 0.8]), (f64(2, 1, 4), [0.2, 0.1, 3.2]), (f64(0, 1, 4), [0, 0.1, 3.2])],
    ids=["plain", "weighted", "a class of weight 0"],
)
def test_label_smoothing_of_softmax(weight, factors):
    # p = 1/8, 2/8, 5/8; e = 0.3 of three classes, label 2; slopes (sum of factors) p - factor
    z = f64(0, ln(2), ln(5)).reshape(1, 3, 1).requires_grad_()
    y = torch.tensor([[2]])
    loss = R.partial_cross_entropy(z, y, weight=weight, label_smoothing=0.3)
    over = 1 if weight is None else 4
    wanted = sum(q * ln(8 / k) for q, k in zip(factors, (1, 2, 5), strict=True)) / over
    slopes = [(sum(factors) * k / 8 - q) / over for q, k in zip(factors, (1, 2, 5), strict=True)]
    assert value_and_gradient(loss, z) == (pytest.approx(wanted), pytest.approx(slopes))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, f64(0.5, 2.0, 1.0)], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.1, 1.0])
def test_label_smoothing_is_torch_s(reduction, weight, smoothing):
    z = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    y = torch.randint(3, (2, 4, 5))
    y[0, 1:3] = 255
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    got = R.partial_cross_entropy(z, y, **options)
    torch.testing.assert_close(got, F.cross_entropy(z, y, ignore_index=255, **options))


def test_one_class_is_smoothed_as_two():
    z, y = torch.randn(2, 1, 9, dtype=torch.float64), torch.randint(2, (2, 9))
    options = {"weight": f64(0.5, 2), "pixel_weight": torch.rand(2, 9), "label_smoothing": 0.3}
    one = R.partial_cross_entropy(z, y, **options)
    two = torch.cat([torch.zeros_like(z), z], 1)
    torch.testing.assert_close(one, R.partial_cross_entropy(two, y, **options))


@pytest.mark.parametrize(
    ("weight", "loss"), [(None, inf), (f64(1, 1), inf), (f64(0, 1), 0.0)], ids=str
)
def test_an_infinite_logit_costs_infinity_with_smoothing(weight, loss):
    z, y = f64(inf).reshape(1, 1, 1), torch.tensor([[1]])
    assert R.partial_cross_entropy(z, y, weight=weight) == 0
    assert R.partial_cross_entropy(z, y, weight=weight, label_smoothing=0.1) == loss


@pytest.mark.parametrize("reduction", ["mean", "image_mean", "sum", "none"])
@pytest.mark.parametrize("classes", [1, 3])
def test_nothing_labelled(reduction, classes):
    z = torch.full((2, classes, 4), nan, requires_grad=True)
    loss = R.partial_cross_entropy(z, torch.full((2, 4), 255), reduction=reduction)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    assert not loss.any()
    assert not gradient.any()


@pytest.mark.parametrize(
    ("logit", "label", "loss"),
    [(inf, 1, 0.0), (-inf, 0, 0.0), (inf, 0, inf), (-inf, 1, inf), (800, 1, 0), (-800, 1, 800)],
)
def test_infinite_logits_have_their_limit(logit, label, loss):
    got = R.partial_cross_entropy(f64(logit).reshape(1, 1, 1), torch.tensor([[label]]))
    assert got.item() == loss


def test_labels_that_are_no_class():
    z = torch.zeros(1, 1, 3)
    with pytest.raises(ValueError, match=r"labels must be 0, 1 or ignore_index \(255\), got 7"):
        R.partial_cross_entropy(z, torch.tensor([[0, 7, 9]]))
