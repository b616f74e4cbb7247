"""size_penalty(form="log_barrier"): psi by hand, its two halves, and what it does in a training."""

import math

import pytest
import torch

import accl_ext
from accl_ext import reference
from ops.oracle import DTYPES, check, dtype_id, make_logits
from ops.test_size_penalty import four_pixels, named_bounds

inf, nan = math.inf, math.nan
for_apis = pytest.mark.parametrize("api", [accl_ext, reference], ids=["fused", "reference"])


# V = 2 and its slopes are 3/16, 3/16, 1/4, 1/4. psi(z) = -log(-z) / t for z <= -1 / t^2 and
# t z + 2 log(t) / t + 1 / t beyond, with the derivatives -1 / (t z) and t.
@for_apis
@pytest.mark.parametrize(
    ("bounds", "t", "normalize", "penalty", "slope"),
    [
        ((-inf, 6), 1.0, "none", -math.log(4), 1 / 4),
        ((-inf, 6), 2.0, "none", -math.log(4) / 2, 1 / 8),
        ((-inf, 6), 2.0, "area", -math.log(4) / 8, 1 / 32),
        ((-inf, 6), 2.0, "area2", -math.log(1) / 2, 1 / 8),  # z = -4 / 4 and dz / dV = 1 / 4
        ((1, inf), 2.0, "none", 0.0, -1 / 2),
        ((0, 6), 1.0, "none", -math.log(2) - math.log(4), 1 / 4 - 1 / 2),
        ((-inf, 2), 2.0, "none", math.log(2) + 1 / 2, 2.0),  # z = 0: the tangent
        ((-inf, 1), 2.0, "none", 2 + math.log(2) + 1 / 2, 2.0),
        ((3, inf), 2.0, "none", 2 + math.log(2) + 1 / 2, -2.0),
        ((-inf, 2.25), 2.0, "none", math.log(4) / 2, 2.0),  # z = -1 / t^2: both halves agree
        ((-inf, inf), 2.0, "none", 0.0, 0.0),
        ((nan, nan), 2.0, "none", 0.0, 0.0),
    ],
    ids=str,
)
def test_by_hand(api, bounds, t, normalize, penalty, slope):
    for given in (t, torch.tensor(t, dtype=torch.float64)):
        z = four_pixels()
        loss = api.size_penalty(z, bounds, form="log_barrier", t=given, normalize=normalize)
        loss.backward()
        assert loss.item() == pytest.approx(penalty, rel=1e-14, abs=1e-15)
        wanted = [slope * v for v in (3 / 16, 3 / 16, 1 / 4, 1 / 4)]
        assert z.grad.flatten().tolist() == pytest.approx(wanted, rel=1e-14, abs=1e-15)
        labels = torch.full((1, 4), 255)
        head = api.segmentation_head(
            z, labels, bounds, normalize=normalize, size_form="log_barrier", size_t=given
        )
        assert torch.equal(head.size_penalty, loss)


@for_apis
@pytest.mark.parametrize(("side", "curvature"), [(-1e-7, 8.0), (1e-7, 0.0)])
def test_slope_and_curvature_at_the_joint(api, side, curvature):
    """At z = -1/4 with t = 2 both halves have the slope 2; the barrier bends by 1 / (t z^2) = 8,
    its tangent does not."""
    logit = torch.tensor([[[math.log(3)]]], dtype=torch.float64, requires_grad=True)
    size, v = 3 / 4, 3 / 16
    bounds = (-inf, size + 1 / 4 - side)
    loss = api.size_penalty(logit, bounds, form="log_barrier", t=2.0, normalize="none")
    (g,) = torch.autograd.grad(loss, logit, create_graph=True)
    (h,) = torch.autograd.grad(g, logit)
    assert g.item() == pytest.approx(2 * v, rel=1e-5)
    assert h.item() == pytest.approx(curvature * v**2 + 2 * v * (1 - 2 * size), rel=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("kind", named_bounds(1))
def test_against_the_reference(dtype, classes, kind):
    bounds = named_bounds(classes)[kind]
    for reduction in ("mean", "sum", "none"):
        check(
            "size_penalty",
            make_logits(3, classes, dtype=dtype),
            bounds,
            form="log_barrier",
            t=1.7,
            reduction=reduction,
        )


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (2, 1, 0, 4), (0, 3, 4)], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_no_pixels_cost_nothing(shape, reduction):
    z = torch.zeros(shape, dtype=torch.float64)
    check("size_penalty", z, (1, 2), form="log_barrier", reduction=reduction)
    assert not accl_ext.size_penalty(z, (1, 2), form="log_barrier", reduction=reduction).any()


def test_a_size_that_is_known_is_reached():
    """A pair around 20 pixels, with t raised as published, from 32 of 64 pixels."""
    z = torch.zeros(1, 1, 8, 8, requires_grad=True)
    optimizer, t = torch.optim.SGD([z], lr=1.0), 5.0
    for _ in range(60):
        optimizer.zero_grad()
        accl_ext.size_penalty(z, (19.0, 21.0), form="log_barrier", t=t).backward()
        optimizer.step()
        t *= 1.1
    assert 18.9 < z.sigmoid().sum().item() < 21.1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_t_in_a_tensor_does_not_recompile(backend):
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    bounds = torch.tensor([1.0, 2.0])
    compiled = torch.compile(
        lambda z, t: accl_ext.size_penalty(z, bounds, form="log_barrier", t=t),
        backend=counter,
        fullgraph=True,
    )
    z = make_logits(2, 1, dtype=torch.float32)
    for t in (5.0, 5.5, 6.05):
        wanted = accl_ext.size_penalty(z, bounds, form="log_barrier", t=t)
        torch.testing.assert_close(compiled(z, torch.tensor(t)), wanted)
    assert counter.frame_count == 1
    torch._dynamo.reset()
