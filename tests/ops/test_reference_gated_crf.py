"""The oracle of the gated CRF loss: literal values worked out by hand, and a loop over pairs of
pixels that is written from the definition."""

import itertools
import math

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck

from accl_ext.reference import gated_crf_loss

e = math.exp(1)
nan = math.nan


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def derivatives(loss, p):
    """Value, gradient, and the rows of the Hessian, flattened."""
    (g,) = grad(loss, p, create_graph=True)
    rows = [grad(x, p, retain_graph=True)[0].flatten().tolist() for x in g.flatten()]
    return loss.item(), g.flatten().tolist(), rows


def test_two_pixels_of_one_class():
    """Distance 1, image values 0 and 0.1, sigmas 1 and 0.1, weight 2: k = 2 exp(-1/2 - 1/2) = 2/e.
    p = 1/4 and 1/2 disagree by 1/4 + 1/2 - 2/8 = 1/2. Both pixels see the other: L = k/2 = 1/e.
    dL/dp_0 = k (1 - 2 p_1) = 0, dL/dp_1 = k (1 - 2 p_0) = 1/e, d2L/dp_0 dp_1 = -2k = -4/e."""
    p = f64(1 / 4, 1 / 2).reshape(1, 1, 2).requires_grad_()
    image = f64(0, 0.1).reshape(1, 1, 2)
    value, gradient, hessian = derivatives(
        gated_crf_loss(p, image, radius=1, kernels=[(2, 1, 0.1)]), p
    )
    assert value == pytest.approx(1 / e)
    assert gradient == pytest.approx([0, 1 / e])
    assert hessian == [pytest.approx([0, -4 / e]), pytest.approx([-4 / e, 0])]


def test_two_pixels_of_two_classes():
    """The same pair as two classes, free of each other: 1 - (3/4 1/2 + 1/4 1/2) = 1/2, so L = 1/e.
    dL/dp_0c = -k p_1c = -(1/e, 1/e), dL/dp_1c = -k p_0c = -(3/(2e), 1/(2e)); the only second
    derivative is d2L/dp_0c dp_1c = -k = -2/e."""
    p = f64(3 / 4, 1 / 2, 1 / 4, 1 / 2).reshape(1, 2, 2).requires_grad_()
    image = f64(0, 0.1).reshape(1, 1, 2)
    value, gradient, hessian = derivatives(
        gated_crf_loss(p, image, radius=1, kernels=[(2, 1, 0.1)]), p
    )
    assert value == pytest.approx(1 / e)
    assert gradient == pytest.approx([-1 / e, -3 / 2 / e, -1 / e, -1 / 2 / e])
    k = 2 / e
    assert hessian == [
        pytest.approx(row) for row in ([0, -k, 0, 0], [-k, 0, 0, 0], [0, 0, 0, -k], [0, 0, -k, 0])
    ]


# Pixels 0, 1, 2 in a row, image values 0, 0, 1; p = 0, 1, 1/2. With sigma_space^2 = 1/(2 ln 2) a
# distance d has the factor 2^-(d^2), with sigma_image^2 = 1/(2 ln 3) a difference of 1 has 1/3:
# k_01 = 1/2, k_12 = 1/6, k_02 = 1/48 (radius 2). Disagreement: 01: 1; 12: 1/2; 02: 1/2.
# L_0 = 1/2 + 1/96, L_1 = 1/2 + 1/12, L_2 = 1/12 + 1/96.
SPACE, CONTRAST = 1 / math.sqrt(2 * math.log(2)), 1 / math.sqrt(2 * math.log(3))
L01, L12, L02 = 1 / 2, 1 / 12, 1 / 96


def three():
    p = f64(0, 1, 1 / 2).reshape(1, 1, 3).requires_grad_()
    return p, f64(0, 0, 1).reshape(1, 1, 3)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"reduction": "none"}, [L01 + L02, L01 + L12, L12 + L02]),
        ({"reduction": "sum"}, [2 * (L01 + L12 + L02)]),
        ({}, [2 * (L01 + L12 + L02) / 3]),
        ({"radius": 1}, [2 * (L01 + L12) / 3]),
        ({"radius": 99, "reduction": "sum"}, [2 * (L01 + L12 + L02)]),
        # Without the image: k = 1/2, 1/2, 1/16.
        ({"kernels": [(1, SPACE, None)]}, [2 * (1 / 2 + 1 / 4 + 1 / 32) / 3]),
        ({"kernels": [(1, SPACE, math.inf)]}, [2 * (1 / 2 + 1 / 4 + 1 / 32) / 3]),
        # Kernels add up with their weights.
        (
            {"kernels": [(3, SPACE, CONTRAST), (-1, SPACE, None)], "reduction": "none"},
            [
                3 * (L01 + L02) - 1 / 2 - 1 / 32,
                3 * (L01 + L12) - 1 / 2 - 1 / 4,
                3 * (L12 + L02) - 1 / 4 - 1 / 32,
            ],
        ),
        # A pixel is 2 wide, sigma_space 2: the same again. The window still counts pixels.
        ({"spacing": [2.0], "kernels": [(1, 2 * SPACE, CONTRAST)]}, [2 * (L01 + L12 + L02) / 3]),
        # A pixel is 2 wide: factors 2^-4 and 2^-16, so k_01 = 1/16, k_12 = 1/48.
        ({"spacing": (2,), "radius": 1, "reduction": "sum"}, [2 * (1 / 16 + 1 / 96)]),
        # Only pixels 1 and 2 give (sources): pixel 0 sees both, 1 sees 2, 2 sees 1.
        (
            {"source_mask": [0, 1, 1], "reduction": "none"},
            [L01 + L02, L12, L12],
        ),
        ({"source_mask": [0, 1, 1]}, [(L01 + L02 + 2 * L12) / 3]),
        # Only pixels 0 and 1 receive (destinations): N = 2.
        ({"destination_mask": [1, 1, 0], "reduction": "none"}, [L01 + L02, L01 + L12, 0]),
        ({"destination_mask": [1, 1, 0]}, [(2 * L01 + L02 + L12) / 2]),
        ({"source_mask": [0, 1, 1], "destination_mask": [1, 1, 0]}, [(L01 + L02 + L12) / 2]),
        ({"source_mask": [0, 0, 1], "destination_mask": [0, 0, 1]}, [0]),
        ({"destination_mask": [0, 0, 0]}, [0]),
    ],
    ids=str,
)
def test_three_pixels(options, wanted):
    p, image = three()
    options = {"radius": 2, "kernels": [(1, SPACE, CONTRAST)], **options}
    for name in ("source_mask", "destination_mask"):
        if name in options:
            options[name] = torch.tensor([options[name]]).bool()
    loss = gated_crf_loss(p, image, **options)
    assert loss.flatten().tolist() == pytest.approx(wanted)


def test_three_pixels_gradient_with_masks():
    """Sources 1 and 2, destination 0 and 1, N = 2: pairs (0, 1), (0, 2), (1, 2).
    dL/dp_0 = (k_01 (1 - 2 p_1) + k_02 (1 - 2 p_2)) / 2 = (-1/2 + 0) / 2
    dL/dp_1 = (k_01 (1 - 2 p_0) + k_12 (1 - 2 p_2)) / 2 = (1/2 + 0) / 2
    dL/dp_2 = (k_02 (1 - 2 p_0) + k_12 (1 - 2 p_1)) / 2 = (1/48 - 1/6) / 2"""
    p, image = three()
    masks = {
        "source_mask": torch.tensor([[False, True, True]]),
        "destination_mask": torch.tensor([[True, True, False]]),
    }
    loss = gated_crf_loss(p, image, radius=2, kernels=[(1, SPACE, CONTRAST)], **masks)
    _, gradient, hessian = derivatives(loss, p)
    assert gradient == pytest.approx([-1 / 4, 1 / 4, -7 / 96])
    assert hessian == [
        pytest.approx(row)
        for row in ([0, -1 / 2, -1 / 48], [-1 / 2, 0, -1 / 6], [-1 / 48, -1 / 6, 0])
    ]


# ---------------------------------------------------------------------------------------------
# Any shape, against two loops over pixels


def by_definition(p, image, radius, kernels, spacing, source, destination):
    """The inner sums, [B, *S]."""
    batch, classes, *spatial = p.shape
    spacing = spacing or [1] * len(spatial)
    total = torch.zeros(batch, *spatial, dtype=p.dtype)
    pixels = list(itertools.product(*map(range, spatial)))
    for b, i, j in itertools.product(range(batch), pixels, pixels):
        steps = [x - y for x, y in zip(i, j, strict=True)]
        if i == j or max(map(abs, steps)) > radius:
            continue
        if not (destination[(b, *i)] and source[(b, *j)]):
            continue
        distance = sum((step * h) ** 2 for step, h in zip(steps, spacing, strict=True))
        difference = sum((float(channel[i]) - float(channel[j])) ** 2 for channel in image[b])
        k = sum(
            w * math.exp(-distance / (2 * s**2) - (0 if c is None else difference / (2 * c**2)))
            for w, s, c in kernels
        )
        x, y = p[(b, slice(None), *i)].tolist(), p[(b, slice(None), *j)].tolist()
        if classes == 1:
            x, y = [1 - x[0], x[0]], [1 - y[0], y[0]]
        total[(b, *i)] += k * (1 - sum(u * v for u, v in zip(x, y, strict=True)))
    return total


SHAPES = {1: (7,), 2: (4, 5), 3: (2, 3, 3)}


@pytest.mark.parametrize("masks", ["none", "source", "destination", "both"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_any_shape(rank, classes, channels, masks):
    spatial = SHAPES[rank]
    p = torch.rand(2, classes, *spatial, dtype=torch.float64)
    image = torch.rand(2, channels, *spatial, dtype=torch.float64)
    every = torch.ones(2, *spatial, dtype=torch.bool)
    source = torch.rand(2, *spatial) < 0.7 if masks in ("source", "both") else None
    destination = torch.rand(2, *spatial) < 0.7 if masks in ("destination", "both") else None
    for radius, kernels, spacing in (
        (1, [(1.0, 2.0, 0.3)], None),
        (2, [(0.5, 1.5, 0.5), (2.0, 3.0, None)], [1.5, 0.5, 2.0][:rank]),
        (9, [(1.0, 2.0, 0.3)], None),
    ):
        options = {"radius": radius, "kernels": kernels, "spacing": spacing}
        wanted = by_definition(
            p,
            image,
            *options.values(),
            every if source is None else source,
            every if destination is None else destination,
        )
        masked = {"source_mask": source, "destination_mask": destination}
        got = gated_crf_loss(p, image, **options, **masked, reduction="none")
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-14)
        total = gated_crf_loss(p, image, **options, **masked, reduction="sum")
        torch.testing.assert_close(total, wanted.sum(), rtol=1e-12, atol=1e-14)
        n = 2 * math.prod(spatial) if destination is None else int(destination.sum())
        mean = gated_crf_loss(p, image, **options, **masked)
        torch.testing.assert_close(mean, wanted.sum() / n, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_derivatives(classes, masked, reduction):
    p = torch.rand(2, classes, 3, 4, dtype=torch.float64, requires_grad=True)
    image = torch.rand(2, 2, 3, 4)
    masks = {
        f"{end}_mask": torch.rand(2, 1, 3, 4) < 0.7 for end in ("source", "destination") if masked
    }

    def loss(p):
        return gated_crf_loss(p, image, radius=2, reduction=reduction, **masks)

    assert gradcheck(loss, p)
    assert gradgradcheck(loss, p)


# ---------------------------------------------------------------------------------------------
# Pixels of no pair, extremes, dtypes


def test_pixels_of_no_pair_have_no_influence():
    p = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    image, mask = torch.rand(1, 1, 5, 6), torch.ones(1, 5, 6, dtype=torch.bool)
    mask[0, 1:3, 2:5] = False
    masks = {"source_mask": mask, "destination_mask": mask}
    wanted = gated_crf_loss(p, image, **masks)
    (wanted_gradient,) = grad(wanted, p)
    bad_p = torch.where(mask.unsqueeze(1), p.detach(), nan).requires_grad_()
    bad_image = torch.where(mask.unsqueeze(1), image, math.inf)
    got = gated_crf_loss(bad_p, bad_image, **masks)
    (gradient,) = grad(got, bad_p)
    assert torch.equal(got, wanted)
    assert torch.equal(gradient, wanted_gradient)
    assert not gradient[:, :, ~mask[0]].any()


def test_nan_in_the_image_spoils_what_sees_it():
    p, image = torch.rand(1, 1, 9), torch.rand(1, 1, 9)
    image[0, 0, 4] = nan
    each = gated_crf_loss(p, image, radius=2, reduction="none")
    assert each.isnan().tolist() == [[False] * 2 + [True] * 5 + [False] * 2]
    space_alone = gated_crf_loss(p, image, radius=2, kernels=[(1, 6, None)], reduction="none")
    assert space_alone.isfinite().all()


@pytest.mark.parametrize("sigma", [1e-200, 1e200])
def test_extreme_sigmas(sigma):
    """A very small sigma_image leaves pairs of equal pixels, a very large one all pairs."""
    p, image = f64(0, 1, 0, 1).reshape(1, 1, 4), f64(0, 0, 1, 1).reshape(1, 1, 4)
    got = gated_crf_loss(p, image, radius=1, kernels=[(1, 1e200, sigma)], reduction="sum")
    assert got.item() == pytest.approx(4 if sigma < 1 else 6)
    got = gated_crf_loss(p, image, radius=1, kernels=[(1, 1e-200, None)], reduction="sum")
    assert got.item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("image_dtype", [torch.float16, torch.float32, torch.float64])
def test_dtypes(dtype, image_dtype):
    p = torch.rand(1, 1, 4, 4).to(dtype).requires_grad_()
    image = torch.rand(1, 1, 4, 4).to(image_dtype)
    loss = gated_crf_loss(p, image)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert grad(loss, p)[0].dtype == dtype
    wide = gated_crf_loss(p.double(), image.double())
    torch.testing.assert_close(loss.double(), wide, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(0, 1, 4), (2, 3, 0), (2, 1, 3, 0), (0, 2, 3, 4, 5)], ids=str)
def test_empty(shape, reduction):
    p = torch.zeros(shape, requires_grad=True)
    loss = gated_crf_loss(p, torch.zeros(shape[0], 1, *shape[2:]), reduction=reduction)
    assert loss.shape == ((shape[0], *shape[2:]) if reduction == "none" else ())
    assert not loss.any()
    assert grad(loss.sum(), p)[0].shape == shape


def test_one_pixel_has_no_neighbour():
    p = torch.rand(2, 1, 1, 1, requires_grad=True)
    loss = gated_crf_loss(p, torch.full((2, 1, 1, 1), nan))
    assert loss == 0
    assert not grad(loss, p)[0].any()


def test_works_under_functional_transforms():
    p, image = torch.rand(2, 1, 4, 4).double(), torch.rand(2, 1, 4, 4)
    leaf = p.clone().requires_grad_()
    (wanted,) = grad(gated_crf_loss(leaf, image), leaf)
    torch.testing.assert_close(torch.func.grad(gated_crf_loss)(p, image), wanted)
    _, tangent = torch.func.jvp(lambda x: gated_crf_loss(x, image), (p,), (torch.ones_like(p),))
    torch.testing.assert_close(tangent, wanted.sum())
