"""size_penalty: values and gradients, eq. (3)."""

import math

import pytest
import torch

import accl_ext
from accl_ext._arguments import _cached_bounds
from ops.oracle import DTYPES, LAYOUTS, SPATIAL, check, dtype_id, lay_out, make_logits

NORMALIZATIONS = ("area", "none", "area2")
REDUCTIONS = ("mean", "sum", "none")
BATCH = 3

inf, nan = math.inf, math.nan


def named_bounds(classes: int) -> dict:
    """Bounds around a third of 35 pixels: sizes fall below, inside and above them."""
    lower = torch.rand(BATCH, classes) * 14
    both = torch.stack([lower, lower + 4], -1)
    free = both.clone()
    free[0, 0, 0], free[1, 0, 1], free[2, 0] = -inf, inf, nan
    return {
        "pair": (8.0, 12.0),
        "int_pair": (8, 12),
        "list": [8, 12.5],
        "half_open": (-inf, 9.0),
        "[2]": both[0, 0],
        "[1,2]": both[0, :1],
        "[C,2]": both[0],
        "[B,1,2]": both[:, :1],
        "[1,C,2]": both[:1],
        "[B,C,2]": both,
        "[1,1,2]": both[:1, :1],
        "int64": both.long(),
        "int32": both[0].int(),
        "float64": both.double(),
        "strided": both.transpose(0, 2).contiguous().transpose(0, 2),
        "expanded": both[:1, :1].expand(BATCH, classes, 2),
        "free_sides": free,
    }


BOUNDS = tuple(named_bounds(1))


for_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
for_reductions = pytest.mark.parametrize("reduction", REDUCTIONS)
for_normalizations = pytest.mark.parametrize("normalize", NORMALIZATIONS)


@for_dtypes
@pytest.mark.parametrize("classes", [1, 2, 3, 5])
@for_normalizations
@for_reductions
def test_normalizations(dtype, classes, normalize, reduction):
    bounds = named_bounds(classes)["[B,C,2]"]
    logits = make_logits(BATCH, classes, dtype=dtype)
    check("size_penalty", logits, bounds, normalize=normalize, reduction=reduction)


@pytest.mark.parametrize("kind", BOUNDS)
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=dtype_id)
@for_reductions
def test_bounds(kind, classes, dtype, reduction):
    bounds = named_bounds(classes)[kind]
    check("size_penalty", make_logits(BATCH, classes, dtype=dtype), bounds, reduction=reduction)


@for_dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("classes", [1, 3])
def test_layouts(dtype, layout, rank, classes):
    logits = lay_out(make_logits(BATCH, classes, SPATIAL[rank], dtype), layout)
    check("size_penalty", logits, named_bounds(classes)["[B,C,2]"], reduction="none")


@pytest.mark.parametrize(
    "size", [1, 3, 15, 16, 17, 31, 33, 900, 1023, 1025, 8191, 8192, 8193, 65_536]
)
@pytest.mark.parametrize("classes", [1, 3])
def test_sizes(size, classes):
    logits = make_logits(2, classes, (size,), torch.float32)
    for bounds in ((0.0, 0.1 * size), (0.9 * size, size)):
        check("size_penalty", logits, bounds, reduction="none")


def test_a_million_and_one_pixels():
    check("size_penalty", make_logits(1, 1, (1_000_001,), torch.float32), (1000, 2e5))


def four_pixels():
    """Probabilities 1/4, 3/4, 1/2, 1/2: V = 2; slopes 3/16, 3/16, 1/4, 1/4."""
    a = math.log(3)
    return torch.tensor([[[-a, a, 0.0, 0.0]]], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("bounds", "normalize", "penalty", "slope"),
    [
        ((3, 5), "none", 1.0, -2.0),  # (2 - 3)^2, 2 (V - a)
        ((3, 5), "area", 1 / 4, -1 / 2),
        ((3, 5), "area2", 1 / 16, -1 / 8),
        ((0, 0.5), "none", 2.25, 3.0),
        ((1, 3), "none", 0.0, 0.0),
        ((2, 2), "none", 0.0, 0.0),
        ((2.5, 2.5), "none", 0.25, -1.0),
        ((inf, 5), "none", 0.0, 0.0),  # not finite: free
        ((-inf, inf), "none", 0.0, 0.0),
        ((nan, 1), "none", 1.0, 2.0),
        ((3, nan), "none", 1.0, -2.0),
    ],
    ids=str,
)
def test_by_hand(bounds, normalize, penalty, slope):
    z = four_pixels()
    loss = accl_ext.size_penalty(z, bounds, normalize=normalize)
    loss.backward()
    assert loss.item() == pytest.approx(penalty, rel=1e-14, abs=1e-15)
    wanted = [slope * v for v in (3 / 16, 3 / 16, 1 / 4, 1 / 4)]
    assert z.grad.flatten().tolist() == pytest.approx(wanted, rel=1e-14, abs=1e-15)


def test_the_published_start_value():
    """0.01 (32768 - 3947)^2 is 8 306 500 and, over 65 536 pixels, 126.75."""
    z = torch.zeros(1, 1, 256, 256)
    none = 0.01 * accl_ext.size_penalty(z, (508, 3947), normalize="none")
    area = 0.01 * accl_ext.size_penalty(z, (508, 3947), normalize="area")
    assert none.item() == pytest.approx(8_306_500.41, rel=1e-6)
    assert area.item() == pytest.approx(126.747, rel=1e-5)


def test_the_mean_is_over_pairs_with_a_bound():
    # V = 2 everywhere; (2-3)^2 = 1, (2-0)^2 = 4 and a free pair: mean 5 / 2
    z = torch.zeros(3, 1, 4, dtype=torch.float64, requires_grad=True)
    bounds = torch.tensor([[[3.0, 5.0]], [[-inf, 0.0]], [[-inf, inf]]])
    loss = accl_ext.size_penalty(z, bounds, normalize="none")
    loss.backward()
    assert loss.item() == 2.5
    # 2 (V - a) v / 2 with v = 1/4
    assert z.grad[:, 0, 0].tolist() == [-0.25, 0.5, 0.0]
    total = accl_ext.size_penalty(z, bounds, normalize="none", reduction="sum")
    assert total.item() == 5
    each = accl_ext.size_penalty(z, bounds, normalize="none", reduction="none")
    assert each.tolist() == [[1.0], [4.0], [0.0]]


@for_normalizations
@for_reductions
@pytest.mark.parametrize("classes", [1, 3])
def test_free_bounds_cost_nothing(normalize, reduction, classes):
    z = make_logits(2, classes).requires_grad_()
    for bounds in ((-inf, inf), (nan, nan), torch.full((2, classes, 2), nan)):
        loss = accl_ext.size_penalty(z, bounds, normalize=normalize, reduction=reduction)
        (grad,) = torch.autograd.grad(loss.sum(), z)
        assert not loss.any()
        assert not grad.any()


@for_reductions
@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (2, 1, 0, 4), (0, 3, 4), (2, 3, 0)], ids=str)
@pytest.mark.parametrize("bounds", [(1, 2), "tensor"])
def test_no_pixels_cost_nothing(reduction, shape, bounds):
    if bounds == "tensor":
        bounds = torch.ones(*shape[:2], 2)
    z = torch.zeros(shape, dtype=torch.float64)
    check("size_penalty", z, bounds, reduction=reduction)
    loss = accl_ext.size_penalty(z, bounds, reduction=reduction)
    assert not loss.any()
    assert loss.shape == (shape[:2] if reduction == "none" else ())


@pytest.mark.parametrize("classes", [1, 3])
def test_a_nan_size_gives_nan_in_its_own_pair_alone(classes):
    z = make_logits(3, classes).requires_grad_()
    z.data[1, 0, 2, 3] = nan
    loss = accl_ext.size_penalty(z, (1, 2), reduction="none")
    assert loss[1, 0].isnan()
    assert loss[[0, 2]].isfinite().all()
    assert accl_ext.size_penalty(z, (1, 2)).isnan()
    check("size_penalty", z, (1, 2), reduction="none")
    free = torch.tensor([[[1.0, 2.0]], [[-inf, inf]], [[1.0, 2.0]]])
    assert accl_ext.size_penalty(z, free).isfinite()


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_a_full_image_of_foreground(dtype):
    """65 536 pixels of probability 1 are 65 536, infinite in float16."""
    z = torch.full((1, 1, 256, 256), 30.0, dtype=dtype)
    penalty = accl_ext.size_penalty(z, (0, 65_535), normalize="none")
    assert penalty.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert penalty.item() == pytest.approx(1.0, abs=1e-6)


def test_a_pair_of_numbers_is_kept_per_device_and_dtype():
    z = make_logits(1, 1)
    for dtype in (torch.float32, torch.float64):
        a, b = (accl_ext.size_penalty(z.to(dtype), (0.1, 0.3)) for _ in range(2))
        assert torch.equal(a, b)
    # float64 logits keep the digits of 0.1 and 0.3
    check("size_penalty", z, (0.1, 0.3))


@pytest.mark.parametrize(
    "bounds", [(nan, 3.0), (3.0, nan), (nan, nan), (-inf, inf), (inf, -inf)], ids=str
)
def test_free_sides_given_as_numbers_are_put_on_the_device_once(bounds):
    z = make_logits(2, 1)
    accl_ext.size_penalty(z, bounds)
    before = _cached_bounds.cache_info().misses
    for _ in range(3):
        # Another NaN each time: no object is equal to it.
        accl_ext.size_penalty(z, tuple(float(str(bound)) for bound in bounds))
    assert _cached_bounds.cache_info().misses == before
    check("size_penalty", z, bounds)
