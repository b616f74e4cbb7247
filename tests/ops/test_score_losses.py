"""accl_loss and accl_discriminator_loss: values and gradients, eqs. (5) and (6)."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import accl_ext
from accl_ext import reference
from ops.oracle import DTYPES, LAYOUTS, check, dtype_id, lay_out

CRITERIA = ("lsgan", "vanilla", "hinge")
REDUCTIONS = ("mean", "sum", "none")
# Around the sixteen lanes of the CPU kernels, their chunk of 8192, and the paper's 30 x 30 patches.
SIZES = (1, 3, 15, 17, 31, 33, 900, 8191, 8192, 8193, 65_536, 1_000_001)

for_criteria = pytest.mark.parametrize("criterion", CRITERIA)
for_reductions = pytest.mark.parametrize("reduction", REDUCTIONS)
for_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)


def scores(*shape, dtype=torch.float64):
    return (2 * torch.randn(shape, dtype=torch.float64)).to(dtype)


@for_dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
@for_criteria
@for_reductions
def test_accl_loss(dtype, layout, criterion, reduction):
    x = lay_out(scores(2, 3, 6, 5, dtype=dtype), layout)
    check("accl_loss", x, target=0.9, criterion=criterion, reduction=reduction)


@for_dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
@for_criteria
@for_reductions
def test_discriminator_loss(dtype, layout, criterion, reduction):
    fake = lay_out(scores(2, 3, 6, 5, dtype=dtype), layout)
    real = lay_out(scores(2, 3, 6, 5, dtype=dtype), "transposed")
    options = {"fake_target": 0.1, "real_target": 0.9, "scale": 0.5}
    check(
        "accl_discriminator_loss", fake, real, criterion=criterion, reduction=reduction, **options
    )


@pytest.mark.parametrize("size", SIZES)
@for_criteria
def test_sizes(size, criterion):
    x = scores(size, dtype=torch.float32)
    for reduction in REDUCTIONS:
        check("accl_loss", x, criterion=criterion, reduction=reduction)


@pytest.mark.parametrize("size", [3, 33, 8193])
@for_dtypes
def test_discriminator_sizes(size, dtype):
    for criterion in CRITERIA:
        for reduction in REDUCTIONS:
            check(
                "accl_discriminator_loss",
                scores(size, dtype=dtype),
                scores(size, dtype=dtype),
                criterion=criterion,
                reduction=reduction,
            )


@pytest.mark.parametrize(
    "shapes",
    [((900,), (30, 30)), ((8193,), (1, 1, 3, 3)), ((2, 1, 5), (0,)), ((0, 4), (7,)), ((), (2, 2))],
    ids=str,
)
@for_criteria
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_two_scores_may_differ_in_shape(shapes, criterion, reduction):
    fake, real = scores(*shapes[0]), scores(*shapes[1])
    check("accl_discriminator_loss", fake, real, criterion=criterion, reduction=reduction)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (1, 2, 3), (2, 1, 3, 2, 1, 2)], ids=str)
@for_reductions
def test_scores_of_any_rank(shape, reduction):
    check("accl_loss", scores(*shape), reduction=reduction)
    check("accl_discriminator_loss", scores(*shape), scores(*shape), reduction=reduction)


@pytest.mark.parametrize("shape", [(0,), (0, 1, 30, 30), (2, 1, 0, 3)], ids=str)
@for_criteria
def test_empty_scores_cost_nothing(shape, criterion):
    x = torch.zeros(shape, requires_grad=True)
    for reduction in ("mean", "sum"):
        for loss in (
            accl_ext.accl_loss(x, criterion=criterion, reduction=reduction),
            accl_ext.accl_discriminator_loss(x, x, criterion=criterion, reduction=reduction),
        ):
            assert loss.shape == ()
            assert loss == 0
            (grad,) = torch.autograd.grad(loss, x)
            assert grad.shape == shape
    assert accl_ext.accl_loss(x, criterion=criterion, reduction="none").shape == shape


def test_by_hand():
    # (1-1)^2 + (0-1)^2 + (3-1)^2 + (-1-1)^2 = 0 + 1 + 4 + 4; slope 2 (d - 1) / 4
    x = torch.tensor([1.0, 0.0, 3.0, -1.0], requires_grad=True)
    loss = accl_ext.accl_loss(x)
    loss.backward()
    assert loss.item() == 2.25
    assert x.grad.tolist() == [0.0, -0.5, 1.0, -1.0]
    # fake: (1 + 4) / 2, real: (0.5 - 1)^2, halved
    fake, real = torch.tensor([1.0, 2.0]), torch.tensor([0.5])
    assert accl_ext.accl_discriminator_loss(fake, real, scale=0.5).item() == 1.375
    # hinge: relu(1 + d) = 0, 1, 2 and relu(1 - d) = 0, 1, 2
    fake, real = torch.tensor([-2.0, 0.0, 1.0]), torch.tensor([2.0, 0.0, -1.0])
    assert accl_ext.accl_discriminator_loss(fake, real, criterion="hinge").item() == 2.0
    assert accl_ext.accl_loss(fake, criterion="hinge").item() == pytest.approx(1 / 3)


@for_criteria
def test_a_score_nearer_to_the_target_costs_less(criterion):
    d = torch.linspace(-3, 1, 33)
    generator = accl_ext.accl_loss(d, criterion=criterion, reduction="none")
    assert (generator.diff() < 0).all()
    zero = torch.zeros(33)
    discriminator = accl_ext.accl_discriminator_loss(zero, d, criterion=criterion, reduction="none")
    assert (discriminator.diff() < 0).all()


def test_vanilla_is_binary_cross_entropy_with_logits():
    x = scores(1000, dtype=torch.float64)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(x, torch.full_like(x, 0.7))
    got = accl_ext.accl_loss(x, target=0.7, criterion="vanilla")
    assert got.item() == pytest.approx(wanted.item(), rel=1e-14)


@pytest.mark.parametrize(
    ("criterion", "score", "target", "loss", "slope"),
    [
        ("vanilla", 20.0, 1.0, 2.061153618190204e-09, -2.06115362e-09),  # log1p(e^-20), -1/(1+e^20)
        ("vanilla", -20.0, 0.0, 2.061153618190204e-09, 2.06115362e-09),
        ("vanilla", 88.0, 0.0, 88.0, 1.0),
        ("vanilla", -104.0, 0.0, 0.0, 0.0),  # e^-104 = 6.8e-46 is no float32 any more
        ("vanilla", -1e4, 1.0, 1e4, -1.0),
        ("vanilla", math.inf, 0.0, math.inf, 1.0),
        ("vanilla", -math.inf, 0.0, 0.0, 0.0),
        ("vanilla", math.inf, 1.0, 0.0, 0.0),
        ("lsgan", 1e4, 1.0, 99980001.0, 19998.0),
        ("lsgan", -math.inf, 1.0, math.inf, -math.inf),
        ("hinge", math.inf, 1.0, -math.inf, -1.0),
    ],
)
def test_extreme_scores_in_float32(criterion, score, target, loss, slope):
    x = torch.full((17,), score, requires_grad=True)
    got = accl_ext.accl_loss(x, target=target, criterion=criterion, reduction="none")
    got.sum().backward()
    assert torch.equal(got, got[:1].expand(17))
    assert torch.equal(x.grad, x.grad[:1].expand(17))
    assert got[0].item() == pytest.approx(loss, rel=1e-6)
    assert x.grad[0].item() == pytest.approx(slope, rel=1e-6, abs=1e-40)


@for_criteria
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_the_reference_s(criterion, value):
    x = scores(37)
    x[[0, 20, 36]] = value
    for reduction in REDUCTIONS:
        check("accl_loss", x, criterion=criterion, reduction=reduction)
        check("accl_discriminator_loss", x, x.flip(0), criterion=criterion, reduction=reduction)
    if math.isnan(value):
        assert accl_ext.accl_loss(x, criterion=criterion).isnan()
        assert accl_ext.accl_discriminator_loss(x, x, criterion=criterion).isnan()


def test_the_kinks_of_the_hinge_have_slope_zero_as_relu():
    fake = torch.tensor([-1.0, -1.0 + 2**-20, -1.0 - 2**-20], requires_grad=True)
    real = torch.tensor([1.0, 1.0 - 2**-20, 1.0 + 2**-20], requires_grad=True)
    accl_ext.accl_discriminator_loss(fake, real, criterion="hinge", reduction="sum").backward()
    assert fake.grad.tolist() == [0.0, 1.0, 0.0]
    assert real.grad.tolist() == [0.0, -1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=dtype_id)
def test_half_precision_sums_in_float32(dtype):
    x = torch.full((65_536,), 2.0, dtype=dtype)
    assert accl_ext.accl_loss(x, reduction="sum") == 65_536  # infinite in float16
    assert reference.accl_loss(x, reduction="sum") == 65_536


class _Gradients(TorchDispatchMode):
    """What the discriminator's backward op returns."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returned = function(*args, **(kwargs or {}))
        if function.name() == "accl_ext::_accl_discriminator_loss_backward":
            self.returned = returned
        return returned


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("needed", [(True, False), (False, True), (True, True)], ids=str)
def test_the_discriminator_computes_the_gradients_that_are_needed(needed, reduction, order):
    inputs = [torch.randn(2, 9, dtype=torch.float64, requires_grad=need) for need in needed]
    leaves = [x for x in inputs if x.requires_grad]
    both = [x.detach().requires_grad_() for x in inputs]
    loss = accl_ext.accl_discriminator_loss(*inputs, criterion="vanilla", reduction=reduction)
    other = accl_ext.accl_discriminator_loss(*both, criterion="vanilla", reduction=reduction)
    with _Gradients() as mode:
        got = torch.autograd.grad(loss.sum(), leaves, create_graph=True)
    assert [x is not None for x in mode.returned] == list(needed)
    wanted = torch.autograd.grad(other.sum(), both, create_graph=True)
    if order == 2:
        got = torch.autograd.grad([x.pow(2).sum() for x in got], leaves)
        wanted = torch.autograd.grad([x.pow(2).sum() for x in wanted], both)
    for a, b in zip(got, [x for x, need in zip(wanted, needed, strict=True) if need], strict=True):
        assert torch.equal(a, b)


def test_no_gradient_of_the_discriminator_is_asked_for():
    x = torch.randn(2, 9)
    backward = torch.ops.accl_ext._accl_discriminator_loss_backward
    assert backward(torch.ones(()), x, x, 0.0, 1.0, 0, 1.0, 0, (False, False)) == (None, None)
