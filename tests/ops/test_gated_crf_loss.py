"""gated_crf_loss: values and gradients against the reference, sizes around the tiles and vectors of
the kernels, masks, extremes, determinism."""

import math
import subprocess
import sys

import pytest
import torch
from torch.autograd import grad

import accl_ext
from accl_ext import reference
from ops.oracle import DTYPES, LAYOUTS, assert_near, check, dtype_id, lay_out, make_probabilities

ops = torch.ops.accl_ext
REDUCTIONS = ("mean", "sum", "none")
KERNELS = ((1.0, 2.0, 0.3),)
MASKS = ("none", "source", "destination", "both", "same")

for_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
for_reductions = pytest.mark.parametrize("reduction", REDUCTIONS)
for_classes = pytest.mark.parametrize("classes", [1, 3])


def make(batch=2, classes=1, spatial=(9, 21), dtype=torch.float32, channels=1, **image):
    p = make_probabilities(batch, classes, spatial, dtype)
    return p, torch.rand(batch, channels, *spatial, **image)


def make_masks(which, batch=2, spatial=(9, 21)):
    draw = [torch.rand(batch, *spatial) < 0.6 for _ in range(2)]
    if which == "same":
        draw[1] = draw[0]
    return {
        f"{end}_mask": mask
        for end, mask in zip(("source", "destination"), draw, strict=True)
        if which in (end, "both", "same")
    }


@for_dtypes
@pytest.mark.parametrize("layout", LAYOUTS)
@for_classes
@for_reductions
def test_dtypes_and_layouts(dtype, layout, classes, reduction):
    p, image = make(classes=classes, dtype=dtype)
    p, image = lay_out(p, layout), lay_out(image, "transposed")
    check("gated_crf_loss", p, image, radius=2, kernels=KERNELS, reduction=reduction)


@pytest.mark.parametrize("which", MASKS)
@for_classes
@for_reductions
def test_masks(which, classes, reduction):
    p, image = make(classes=classes)
    masks = make_masks(which)
    options = {"radius": 2, "kernels": KERNELS, "reduction": reduction}
    check("gated_crf_loss", p, image, **options, **masks)
    with_channel = {name: mask.unsqueeze(1) for name, mask in masks.items()}
    got = accl_ext.gated_crf_loss(p, image, **options, **with_channel)
    assert torch.equal(got, accl_ext.gated_crf_loss(p, image, **options, **masks))
    strided = {name: lay_out(mask.unsqueeze(1), "transposed") for name, mask in masks.items()}
    assert torch.equal(got, accl_ext.gated_crf_loss(p, image, **options, **strided))


# Around the sixteen lanes, and tiles of 4 planes, 32 rows and 64 columns; windows that reach over
# the whole image.
SIZES = [
    *[(n,) for n in (1, 2, 3, 15, 16, 17, 63, 65, 140, 1030)],
    *[(1, 1), (1, 40), (40, 1), (31, 17), (33, 16), (65, 3), (2, 300)],
    *[(1, 1, 1), (3, 4, 5), (5, 33, 7), (9, 2, 18), (1, 8, 9), (4, 1, 1)],
]


@pytest.mark.parametrize("radius", [1, 3, 2**40])
@pytest.mark.parametrize("spatial", SIZES, ids=str)
def test_sizes(spatial, radius):
    radius = min(radius, 12) if math.prod(spatial) > 300 else radius
    for classes, reduction in ((1, "mean"), (2, "none"), (3, "sum")):
        p, image = make(classes=classes, spatial=spatial)
        check("gated_crf_loss", p, image, radius=radius, kernels=KERNELS, reduction=reduction)


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 6, 9, 10, 11, 17])
@for_reductions
def test_any_number_of_classes(classes, reduction):
    check("gated_crf_loss", *make(classes=classes), kernels=KERNELS, reduction=reduction)


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "kernels",
    [
        [(0.7, 2, 0.3)],
        [(-0.7, 2, 0.3)],
        [(1, 2, None)],
        [(1, 2, 0.3), (0.5, 1, 0.1)],
        [(1, 2, 0.3), (0.5, 1, None)],
        [(1, 2, None), (0.5, 1, math.inf), (-2, 3, 0.5), (0, 1, 1), (3, 1, 0.2)],
        [(1, 6, 0.1)] * 16,
    ],
    ids=str,
)
def test_kernels_and_channels(channels, kernels):
    for dtype in (torch.float32, torch.float64):
        for classes in (1, 3):
            p, image = make(classes=classes, channels=channels, dtype=dtype)
            check("gated_crf_loss", p, image, kernels=kernels, reduction="none")
            check("gated_crf_loss", p, image, kernels=kernels)


@pytest.mark.parametrize("spacing", [(2.0,), (0.5, 3.0), (5.0, 1.0, 0.5)], ids=str)
def test_spacing(spacing):
    spatial = (4, 6, 8)[-len(spacing) :]
    p, image = make(spatial=spatial)
    check("gated_crf_loss", p, image, radius=2, spacing=spacing, kernels=KERNELS)


@pytest.mark.parametrize("image_dtype", DTYPES, ids=dtype_id)
@for_dtypes
def test_an_image_of_another_dtype(dtype, image_dtype):
    p, image = make(dtype=dtype)
    check("gated_crf_loss", p, image.to(image_dtype), kernels=KERNELS)
    check("gated_crf_loss", p, image.to(image_dtype), kernels=KERNELS, reduction="none")


def test_half_precision_sums_in_float32():
    """Each of 30 000 pixels adds about 100 in float16, whose largest number is 65 504; and the
    gradient of their mean is below its smallest."""
    p = torch.full((1, 1, 150, 200), 0.25, dtype=torch.float16)
    image = torch.zeros(1, 1, 150, 200, dtype=torch.float16)
    kernels = [(1, 1e3, 0.1)]
    check("gated_crf_loss", p, image, kernels=kernels, reduction="sum")
    leaf = p.clone().requires_grad_()
    loss = accl_ext.gated_crf_loss(leaf, image, kernels=kernels)
    (scaled,) = grad(loss * 65_536, leaf)
    wide = p.double().requires_grad_()
    (wanted,) = grad(reference.gated_crf_loss(wide, image, kernels=kernels) * 65_536, wide)
    assert_near(scaled, wanted)


def test_by_hand():
    """k = 2 exp(-1/2 - 1/2) = 2/e; p = 1/4 and 1/2 disagree by 1/2: L = 1/e."""
    p = torch.tensor([0.25, 0.5]).reshape(1, 1, 2).requires_grad_()
    image = torch.tensor([0.0, 0.1]).reshape(1, 1, 2)
    loss = accl_ext.gated_crf_loss(p, image, radius=1, kernels=[(2, 1, 0.1)])
    (gradient,) = grad(loss, p)
    assert loss.item() == pytest.approx(1 / math.e, rel=1e-6)
    assert gradient.flatten().tolist() == pytest.approx([0, 1 / math.e], rel=1e-6)


def test_certain_probabilities_keep_their_digits():
    """1 - p_i p_j - (1 - p_i)(1 - p_j) near p = 1 is twice 1 - p, not a difference of ones."""
    for value in (1e-6, 1 - 2**-20):
        p = torch.full((1, 1, 8, 8), value)
        check("gated_crf_loss", p, torch.zeros(1, 1, 8, 8), reduction="none")


# ---------------------------------------------------------------------------------------------
# Pixels of no pair, what is not finite, nothing at all


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@for_classes
@for_reductions
def test_pixels_of_no_pair_have_no_influence(value, classes, reduction):
    p, image = make(classes=classes)
    mask = torch.rand(2, 9, 21) < 0.7
    for masks in (
        {"source_mask": mask, "destination_mask": mask},
        {"source_mask": mask, "destination_mask": mask.clone()},
        {"source_mask": mask & (torch.rand(2, 9, 21) < 0.5), "destination_mask": mask},
    ):
        results = []
        for fill in (0.5, value):
            leaf = torch.where(mask.unsqueeze(1), p, fill).requires_grad_()
            seen = torch.where(mask.unsqueeze(1), image, fill)
            loss = accl_ext.gated_crf_loss(leaf, seen, radius=2, reduction=reduction, **masks)
            (gradient,) = grad(loss.sum(), leaf)
            results += [loss.detach(), gradient]
        assert torch.equal(results[0], results[2])
        assert torch.equal(results[1], results[3])
        assert not results[3].masked_select(~mask.unsqueeze(1)).any()


@pytest.mark.parametrize("which", MASKS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@for_classes
@for_reductions
def test_what_is_not_finite_spoils_what_sees_it(which, value, classes, reduction):
    for where in ("image", "probabilities"):
        p, image = make(classes=classes)
        (image if where == "image" else p)[0, 0, 4, [3, 17]] = value
        if where == "probabilities" and value == math.inf and classes > 1:
            continue  # infinity against infinity: which NaN comes out depends on the order
        options = {"radius": 2, "reduction": reduction, **make_masks(which)}
        leaf, wide = p.clone().requires_grad_(), p.double().requires_grad_()
        got = accl_ext.gated_crf_loss(leaf, image, **options)
        wanted = reference.gated_crf_loss(wide, image, **options)
        if value == math.inf and where == "probabilities":
            assert got.isfinite().equal(wanted.isfinite())
            continue
        assert_near(got, wanted)
        assert_near(grad(got.sum(), leaf)[0], grad(wanted.sum(), wide)[0])


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0x7F800001, -1, 0x7FC00000, -0x400000])
def test_nan_of_any_bits(bits):
    for channels in (1, 2):
        p, image = make(channels=channels)
        image.view(torch.int32)[0, 0, 4, 3] = bits
        assert image.isnan().sum() == 1
        each = accl_ext.gated_crf_loss(p, image, radius=1, reduction="none")
        assert each.isnan().sum() == 9


def test_a_pixel_without_neighbours_costs_nothing():
    for shape in ((2, 1, 1), (2, 1, 1, 1), (2, 3, 1, 1, 1)):
        p = torch.full(shape, math.nan, requires_grad=True)
        for reduction in REDUCTIONS:
            loss = accl_ext.gated_crf_loss(p, torch.full_like(p, math.nan), reduction=reduction)
            assert not loss.any()
            assert not grad(loss.sum(), p)[0].any()


@for_reductions
def test_no_destination(reduction):
    p, image = make()
    nobody = torch.zeros(2, 9, 21, dtype=torch.bool)
    leaf = p.requires_grad_()
    for masks in ({"destination_mask": nobody}, {"source_mask": nobody}):
        loss = accl_ext.gated_crf_loss(leaf, image, reduction=reduction, **masks)
        assert not loss.any()
        assert not grad(loss.sum(), leaf)[0].any()


@for_reductions
@pytest.mark.parametrize("shape", [(0, 1, 4), (2, 3, 0), (2, 1, 3, 0), (0, 2, 3, 4, 5)], ids=str)
def test_empty(shape, reduction):
    p = torch.zeros(shape, requires_grad=True)
    loss = accl_ext.gated_crf_loss(p, torch.zeros(shape[0], 1, *shape[2:]), reduction=reduction)
    assert loss.shape == ((shape[0], *shape[2:]) if reduction == "none" else ())
    assert not loss.any()
    assert grad(loss.sum(), p)[0].shape == shape


@pytest.mark.parametrize("sigma", [1e-200, 1e-30, 1e30, 1e200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_sigmas(sigma, dtype):
    image = torch.tensor([0.0, 0.0, 1.0, 1.0]).reshape(1, 1, 4)
    p = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=dtype).reshape(1, 1, 4)
    for kernel in ((1, 1e200, sigma), (1, sigma, None), (1, sigma, sigma)):
        check("gated_crf_loss", p, image, kernels=[kernel], reduction="none")


def test_kernels_that_fade_away_are_small_not_wrong():
    """Image differences over the whole range of a float's exponent."""
    image = torch.linspace(0, 16, 400).reshape(1, 1, 400)
    p = torch.ones(1, 1, 400)
    p[..., 200:] = 0
    for radius in (1, 50, 399):
        for dtype in (torch.float32, torch.float64):
            check("gated_crf_loss", p.to(dtype), image, radius=radius, kernels=[(1, 1e6, 1.0)])


# ---------------------------------------------------------------------------------------------
# The same bits whatever stands around


@for_classes
@pytest.mark.parametrize("spatial", [(600,), (37, 45), (6, 35, 18)], ids=str)
def test_an_image_alone_or_in_a_batch(classes, spatial):
    p, image = make(4, classes, spatial)
    masks = make_masks("both", 4, spatial)

    def run(at):
        leaf = p[at].clone().requires_grad_()
        own = {name: mask[at] for name, mask in masks.items()}
        each = accl_ext.gated_crf_loss(leaf, image[at], reduction="none", **own)
        (first,) = grad(each.sum(), leaf)
        total = accl_ext.gated_crf_loss(leaf, image[at], reduction="sum", **own)
        (second,) = grad(total, leaf)
        return each.detach(), first, second

    batch = run(slice(0, 4))
    for i in range(4):
        for alone, together in zip(run(slice(i, i + 1)), batch, strict=True):
            assert torch.equal(alone, together[i : i + 1])


@for_classes
def test_a_pixel_that_is_not_finite_leaves_the_bits_of_others(classes):
    p, image = make(1, classes, (40, 40))
    wanted = accl_ext.gated_crf_loss(p, image, radius=2, reduction="none")
    image[0, 0, 20, 20] = math.nan
    got = accl_ext.gated_crf_loss(p, image, radius=2, reduction="none")
    assert got.isnan().sum() == 25
    assert torch.equal(got[~got.isnan()], wanted[~got.isnan()])


# ---------------------------------------------------------------------------------------------
# The map of gradients that forward leaves


@for_classes
@pytest.mark.parametrize("which", MASKS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_with_and_without_the_gradient_of_the_forward_pass(classes, which, reduction):
    """Asked for or not, backward gives the same; also for the map's own derivative."""
    p, image = make(classes=classes, dtype=torch.float64)
    masks = make_masks(which).get
    arguments = (image, 2, [1.0, 2.0, 0.3], [], masks("source_mask"), masks("destination_mask"))
    results = []
    for with_gradient in (True, False):
        leaf = p.clone().requires_grad_()
        loss, gradient = ops.gated_crf_loss(leaf, *arguments, reduction, with_gradient)
        assert gradient.shape == (p.shape if with_gradient else (0,))
        assert gradient.dtype == torch.float64
        (first,) = grad(loss, leaf, torch.tensor(1.7).double(), create_graph=True)
        (second,) = grad(first.square().sum(), leaf)
        results.append([loss, first, second])
    for a, b in zip(*results, strict=True):
        assert_near(a, b)


def test_the_gradient_is_made_only_where_one_is_wanted():
    p, image = make()
    calls = []
    original = accl_ext.functional._ops.gated_crf_loss
    accl_ext.functional._ops.gated_crf_loss = lambda *a: calls.append(a[-1]) or original(*a)
    try:
        accl_ext.gated_crf_loss(p, image)
        accl_ext.gated_crf_loss(p.requires_grad_(), image)
        with torch.no_grad():
            accl_ext.gated_crf_loss(p, image)
        with torch.inference_mode():
            accl_ext.gated_crf_loss(p, image)
    finally:
        accl_ext.functional._ops.gated_crf_loss = original
    assert calls == [False, True, False, False]


@pytest.mark.parametrize("value", [math.inf, math.nan])
@for_reductions
@for_classes
def test_an_infinite_gradient_does_not_leak(value, reduction, classes):
    p, image = make(classes=classes)
    mask = torch.rand(2, 9, 21) < 0.7
    leaf = p.requires_grad_()
    loss = accl_ext.gated_crf_loss(
        leaf, image, source_mask=mask, destination_mask=mask, reduction=reduction
    )
    g = torch.tensor(value) if reduction != "none" else torch.where(mask, 1.0, value)
    (gradient,) = grad(loss, leaf, g)
    assert not gradient.masked_select(~mask.unsqueeze(1)).any()
    assert gradient.masked_select(mask.unsqueeze(1)).isfinite().all() == (reduction == "none")


PEAK_MEMORY = """
import torch, accl_ext

def kilobytes(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))

def rise(batch, side):
    p, image = torch.rand(2, batch, 1, side, side)
    p.requires_grad_()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = kilobytes("VmRSS")
    accl_ext.gated_crf_loss(p, image).backward()
    return kilobytes("VmHWM") - before

rise(1, 64)  # what the first call loads
print(rise(8, 512))
"""


def test_memory_beside_the_inputs():
    """A map of 8 x 512^2 in float32 is 8 MiB: one of gradients, one more when they are scaled. The
    windows of the public form take 121 for every channel."""
    out = subprocess.run(
        [sys.executable, "-c", PEAK_MEMORY], capture_output=True, text=True, check=True
    )
    assert 8 < int(out.stdout) / 1024 < 30
