"""The oracle itself: literal values worked out by hand, limits, and torch's own losses."""

import math

import pytest
import torch
import torch.nn.functional as F

from accl_ext import reference as R

inf, nan = math.inf, math.nan
ln = math.log


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def value_and_gradient(loss, x):
    (gradient,) = torch.autograd.grad(loss, x)
    return loss.item(), gradient.flatten().tolist()


# ---------------------------------------------------------------------------------------------
# Eq. (5)


@pytest.mark.parametrize(
    ("options", "loss", "gradient"),
    [
        # (1-1)^2 + (0-1)^2 + (3-1)^2 + (-1-1)^2 = 9; slopes 2 (d - 1)
        ({"reduction": "sum"}, 9, [0, -2, 4, -4]),
        ({}, 9 / 4, [0, -1 / 2, 1, -1]),
        ({"target": 0.5, "reduction": "sum"}, 0.25 + 0.25 + 6.25 + 2.25, [1, -1, 5, -3]),
        ({"criterion": "hinge"}, -3 / 4, [-1 / 4] * 4),
        ({"criterion": "hinge", "target": 7.0}, -3 / 4, [-1 / 4] * 4),
    ],
    ids=str,
)
def test_accl_loss(options, loss, gradient):
    d = f64(1, 0, 3, -1).requires_grad_()
    got = value_and_gradient(R.accl_loss(d, **options), d)
    assert got == (pytest.approx(loss), pytest.approx(gradient))


@pytest.mark.parametrize(
    ("target", "losses", "slopes"),
    [
        # d = 0 and ln 3: sigmoid 1/2 and 3/4, softplus ln 2 and ln 4
        (1.0, [ln(2), ln(4) - ln(3)], [-1 / 2, -1 / 4]),
        (0.0, [ln(2), ln(4)], [1 / 2, 3 / 4]),
        (0.25, [ln(2), ln(4) - ln(3) / 4], [1 / 4, 1 / 2]),
    ],
)
def test_accl_loss_vanilla(target, losses, slopes):
    d = f64(0, ln(3)).requires_grad_()
    each = R.accl_loss(d, target=target, criterion="vanilla", reduction="none")
    assert each.tolist() == pytest.approx(losses)
    (gradient,) = torch.autograd.grad(each.sum(), d)
    assert gradient.tolist() == pytest.approx(slopes)


def test_accl_loss_vanilla_is_torch_s_bce_with_logits():
    d, t = 3 * torch.randn(100, dtype=torch.float64), 0.8
    wanted = F.binary_cross_entropy_with_logits(d, torch.full_like(d, t))
    torch.testing.assert_close(R.accl_loss(d, target=t, criterion="vanilla"), wanted)


@pytest.mark.parametrize(
    ("d", "target", "loss"),
    [(800.0, 1.0, 0.0), (40.0, 1.0, math.exp(-40)), (inf, 1.0, 0.0), (-inf, 0.0, 0.0)],
)
def test_accl_loss_vanilla_at_its_limits(d, target, loss):
    got = R.accl_loss(f64(d), target=target, criterion="vanilla").item()
    assert got == pytest.approx(loss, rel=1e-14)


# ---------------------------------------------------------------------------------------------
# Eq. (6)


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        # fake 1, 2 against 0: (1 + 4) / 2; real 0.5 against 1: 0.25
        ({}, 2.75),
        ({"scale": 0.5}, 1.375),
        ({"reduction": "sum"}, 5.25),
        ({"fake_target": 1.0, "real_target": 0.0}, 0.5 + 0.25),
        # relu(1 + 1) + relu(1 + 2) over 2, relu(1 - 0.5)
        ({"criterion": "hinge"}, 3.0),
        # softplus(1), softplus(2); softplus(0.5) - 0.5 = softplus(-0.5)
        (
            {"criterion": "vanilla"},
            (math.log1p(math.e) + math.log1p(math.e**2)) / 2 + math.log1p(math.exp(-0.5)),
        ),
    ],
    ids=str,
)
def test_discriminator_loss(options, loss):
    got = R.accl_discriminator_loss(f64(1, 2), f64(0.5), **options)
    assert got.item() == pytest.approx(loss)


def test_discriminator_loss_elementwise():
    got = R.accl_discriminator_loss(f64(1, 2), f64(0.5, 3), scale=0.5, reduction="none")
    assert got.tolist() == [(1 + 0.25) / 2, (4 + 4) / 2]


def test_discriminator_hinge_is_flat_beyond_its_margins():
    fake, real = f64(-2, -1, 0).requires_grad_(), f64(2, 1, 0).requires_grad_()
    loss = R.accl_discriminator_loss(fake, real, criterion="hinge", reduction="sum")
    assert loss.item() == 2
    a, b = torch.autograd.grad(loss, (fake, real))
    assert a.tolist() == [0, 0, 1]
    assert b.tolist() == [0, 0, -1]


def test_empty_scores_cost_nothing():
    assert R.accl_loss(torch.zeros(0)) == 0
    assert R.accl_discriminator_loss(torch.zeros(0, 3), torch.zeros(0)) == 0
    assert R.accl_discriminator_loss(f64(), f64(0.5)).item() == 0.25


# ---------------------------------------------------------------------------------------------
# Size penalty, eq. (3)


def sized():
    """Probabilities 1/4, 3/4, 1/2, 1/2: V = 2; dV/dz = 3/16, 3/16, 1/4, 1/4."""
    return f64(-ln(3), ln(3), 0, 0).reshape(1, 1, 4).requires_grad_()


@pytest.mark.parametrize(
    ("bounds", "normalize", "loss", "slope"),
    [
        ((3, 5), "none", 1, -2),  # (V - a)^2, 2 (V - a)
        ((3, 5), "area", 1 / 4, -2 / 4),
        ((3, 5), "area2", 1 / 16, -2 / 16),
        ((0, 1.5), "none", 1 / 4, 1),  # (V - b)^2
        ((1, 3), "none", 0, 0),
        ((2, 2), "none", 0, 0),
        ((-inf, 1), "none", 1, 2),
        ((3, inf), "none", 1, -2),
        ((inf, -inf), "none", 0, 0),
        ((nan, nan), "none", 0, 0),
    ],
    ids=str,
)
def test_size_penalty(bounds, normalize, loss, slope):
    z = sized()
    got = value_and_gradient(R.size_penalty(z, bounds, normalize=normalize), z)
    assert got[0] == pytest.approx(loss)
    assert got[1] == pytest.approx([slope * v for v in (3 / 16, 3 / 16, 1 / 4, 1 / 4)])


def test_size_penalty_of_softmax():
    # p = (1, 2, 5) / 8 in both pixels: V = 1/4, 1/2, 5/4
    z = f64(0, ln(2), ln(5)).reshape(1, 3, 1).expand(1, 3, 2)
    bounds = torch.tensor([[1.0, 2.0], [-inf, inf], [0.0, 1.0]])
    each = R.size_penalty(z, bounds, normalize="none", reduction="none")
    assert each.tolist() == [pytest.approx([9 / 16, 0, 1 / 16])]
    mean = R.size_penalty(z, bounds, normalize="none")  # over two bounded pairs
    assert mean.item() == pytest.approx(10 / 16 / 2)


def test_the_published_start_value():
    """V = 32768, b = 3947: 0.01 (28821)^2 is 8 306 500; over 65 536 pixels 126.75."""
    z = torch.zeros(1, 1, 256, 256, dtype=torch.float64)
    none = 0.01 * R.size_penalty(z, (508, 3947), normalize="none").item()
    assert none == pytest.approx(8_306_500.41)
    assert 0.01 * R.size_penalty(z, (508, 3947)).item() == pytest.approx(none / 65_536)


# ---------------------------------------------------------------------------------------------
# The head is its parts


@pytest.mark.parametrize("classes", [1, 3])
def test_segmentation_head(classes):
    z = torch.randn(2, classes, 4, 5, dtype=torch.float64)
    y = torch.randint(max(classes, 2), (2, 4, 5))
    head = R.segmentation_head(z, y, (2, 3))
    p = z.sigmoid() if classes == 1 else z.softmax(1)
    torch.testing.assert_close(head.probabilities, p)
    torch.testing.assert_close(head.soft_size, p.sum((2, 3)))
    assert torch.equal(head.partial_ce, R.partial_cross_entropy(z, y))
    assert torch.equal(head.size_penalty, R.size_penalty(z, (2, 3)))
    assert R.segmentation_head(z, y).size_penalty == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    z = torch.full((1, 1, 256, 256), 40.0, dtype=dtype)
    head = R.segmentation_head(z, torch.ones(1, 256, 256).bool(), (1, 2))
    assert [x.dtype for x in head] == [dtype, wide, wide, wide]
    assert head.soft_size.item() == 65_536


@pytest.mark.parametrize("shape", [(0, 1, 4), (2, 1, 0), (0, 3, 4, 4), (2, 3, 0, 4)], ids=str)
def test_empty(shape):
    z = torch.zeros(shape, requires_grad=True)
    y = torch.zeros(shape[0], *shape[2:]).long()
    head = R.segmentation_head(z, y, (1, 2))
    assert (head.partial_ce.item(), head.size_penalty.item()) == (0, 0)
    assert head.soft_size.shape == shape[:2]
    sum(x.sum() for x in head).backward()
    assert z.grad.shape == shape


# ---------------------------------------------------------------------------------------------
# validate_labels


def test_validate_labels():
    R.validate_labels(torch.tensor([0, 1, 255]), 1)
    R.validate_labels(torch.tensor([0, 1, 2, -100]), 3, ignore_index=-100)
    R.validate_labels(torch.tensor([True, False]), 1)
    R.validate_labels(torch.empty(0, dtype=torch.uint8), 2)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (torch.tensor([0, 2, 3]), 1, "labels must be 0, 1 or ignore_index (255), got 2"),
        (torch.tensor([0, 2, 3]), 2, "labels must be 0, 1 or ignore_index (255), got 2"),
        (torch.tensor([0, -1]), 4, "labels must be 0 to 3 or ignore_index (255), got -1"),
        (torch.tensor([1]), 0, "num_classes must be at least 1, got 0"),
    ],
)
def test_validate_labels_refuses(labels, classes, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        R.validate_labels(labels, classes)
    assert str(error.value) == message


def test_validate_labels_wants_integers():
    with pytest.raises(TypeError, match="got float32"):
        R.validate_labels(torch.zeros(3), 1)
