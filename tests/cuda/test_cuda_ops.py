"""The fused ops on a GPU against the reference in float64; what only a GPU can show stands in
test_cuda_runtime.py."""

import math

import pytest
import torch
from ops.oracle import (
    DTYPES,
    LABEL_TYPES,
    LAYOUTS,
    check,
    dtype_id,
    ignore_of,
    lay_out,
    make_labels,
    make_logits,
)
from torch import Tensor

import accl_ext

DEVICE = "cuda"


def _reason() -> str | None:
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    info = accl_ext.build_info()
    if not info["loaded"]:
        return info["reason"]
    return None if info["cuda"] else "accl_ext was built without CUDA kernels"


if _reason() is not None:
    pytest.skip(_reason(), allow_module_level=True)
pytestmark = pytest.mark.cuda

for_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
for_classes = pytest.mark.parametrize("classes", [1, 2, 3, 5, 40])
# Around a vector, a warp, a block and the chunks of 1024 to 4096 pixels; the main sizes 256^2 and
# 512^2, whole tiles, and with a rest of vectors; few chunks, and many.
SIZES = (1, 3, 31, 33, 127, 129, 511, 513, 1023, 1025, 4095, 4097)
SIZES += (65_536, 65_544, 262_144, 262_152, 1_000_001)


def bounds_around(logits: Tensor) -> Tensor:
    """[B, C, 2] in pixels: sizes fall below, inside and above, and some sides are free."""
    batch, classes = logits.shape[:2]
    shares = torch.tensor([[0.9, 0.95], [-math.inf, 0.1], [0.0, 1.0], [0.85, math.inf]])
    shares = shares[torch.arange(batch * classes) % 4].reshape(batch, classes, 2)
    return (shares * math.prod(logits.shape[2:])).to(logits.device)


def head_inputs(dtype=torch.float32, batch=2, classes=1, spatial=(64, 64)) -> tuple[Tensor, ...]:
    logits = make_logits(batch, classes, spatial, dtype).to(DEVICE)
    return logits, make_labels(batch, classes, spatial).to(DEVICE), bounds_around(logits)


# ------------------------------------------------------------------------------------------------
# Values and gradients


@for_dtypes
@for_classes
@pytest.mark.parametrize("pixels", SIZES)
def test_head(dtype, classes, pixels):
    if classes == 40 and pixels > 65_536:
        pytest.skip("the reference would need gigabytes")
    check("segmentation_head", *head_inputs(dtype, 2, classes, (pixels,)))


@for_classes
@pytest.mark.parametrize("label_type", LABEL_TYPES, ids=dtype_id)
@pytest.mark.parametrize("reduction", ["mean", "image_mean", "sum", "none"])
@pytest.mark.parametrize("pixels", [35, 5000])
def test_labels(classes, label_type, reduction, pixels):
    if label_type == torch.bool and classes > 1:
        pytest.skip("bool labels are for one class")
    labels = make_labels(3, classes, (pixels,), label_type)
    if label_type != torch.bool:
        labels[1] = ignore_of(label_type)
    for weight in (None, torch.rand(max(classes, 2)).double()):
        check(
            "partial_cross_entropy",
            make_logits(3, classes, (pixels,), torch.float32).to(DEVICE),
            labels.to(DEVICE),
            ignore_index=ignore_of(label_type),
            weight=weight if weight is None else weight.to(DEVICE),
            reduction=reduction,
        )


@for_dtypes
@for_classes
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_pixel_weight_and_label_smoothing(dtype, classes, smoothing):
    logits, labels, _ = head_inputs(dtype, 2, classes, (33, 35))
    pixel_weight = torch.rand(labels.shape, device=DEVICE)
    pixel_weight[:, ::3] = 0
    for weight in (None, torch.rand(max(classes, 2), device=DEVICE)):
        check(
            "partial_cross_entropy",
            *(logits, labels),
            weight=weight,
            pixel_weight=pixel_weight,
            label_smoothing=smoothing,
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=dtype_id)
@for_classes
def test_gated_crf(dtype, classes):
    p = make_logits(2, classes, (21, 23), dtype).softmax(1).to(DEVICE)
    if classes == 1:
        p = make_logits(2, 1, (21, 23), dtype).sigmoid().to(DEVICE)
    check("gated_crf_loss", p, torch.rand(2, 3, 21, 23, device=DEVICE), radius=4)


@for_dtypes
@for_classes
@pytest.mark.parametrize("normalize", ["area", "none", "area2"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_size(dtype, classes, normalize, reduction):
    logits = make_logits(3, classes, (61, 71), dtype).to(DEVICE)
    for bounds in (bounds_around(logits), (100.0, 200.0)):
        check("size_penalty", logits, bounds, normalize=normalize, reduction=reduction)


@for_dtypes
@pytest.mark.parametrize("criterion", ["lsgan", "vanilla", "hinge"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("count", [1, 900, 903, 14_400, 65_536, 100_003])
def test_scores(dtype, criterion, reduction, count):
    fake, real = (3 * torch.randn(2, count, device=DEVICE)).to(dtype)
    options = {"criterion": criterion, "reduction": reduction}
    check("accl_loss", fake, target=0.9, **options)
    check("accl_discriminator_loss", fake, real, scale=0.5, **options)
    if reduction != "none":
        check("accl_discriminator_loss", fake[:0], real, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("classes", [1, 3])
def test_layouts(layout, classes):
    logits, labels, bounds = head_inputs(torch.bfloat16, 2, classes, (12, 20))
    other = layout if layout != "channels_last" else "transposed"
    check("segmentation_head", lay_out(logits, layout), lay_out(labels, other), bounds)


@for_dtypes
def test_infinite_logits_that_are_right_cost_nothing(dtype):
    logits = torch.tensor([[[math.inf, -math.inf, 0.0]]], device=DEVICE, dtype=dtype)
    labels = torch.tensor([[1, 0, 255]], device=DEVICE)
    loss = accl_ext.partial_cross_entropy(logits.requires_grad_(), labels)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize("classes", [1, 3])
def test_an_invalid_label_is_nan_at_its_pixel_alone(classes):
    logits, labels, _ = head_inputs(torch.float32, 2, classes)
    labels[1, 3, 5] = 77
    logits.requires_grad_()
    loss = accl_ext.partial_cross_entropy(logits, labels)
    loss.backward()
    assert loss.isnan()
    nan = logits.grad.isnan()
    assert nan[1, :, 3, 5].all()
    assert nan.sum() == classes
    with pytest.raises(ValueError, match="77"):
        accl_ext.validate_labels(labels, classes)


def test_empty():
    logits = torch.empty(0, 1, 8, 8, device=DEVICE, requires_grad=True)
    labels = torch.empty(0, 8, 8, device=DEVICE, dtype=torch.uint8)
    out = accl_ext.segmentation_head(logits, labels, (1.0, 2.0))
    (out.partial_ce + out.size_penalty + out.soft_size.sum()).backward()
    assert out.partial_ce.item() == out.size_penalty.item() == 0
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("classes", [1, 3])
def test_second_derivatives(classes):
    logits, labels, bounds = head_inputs(torch.float64, 2, classes, (3, 3))

    def head(x):
        return tuple(accl_ext.segmentation_head(x, labels, bounds))

    assert torch.autograd.gradcheck(head, logits.requires_grad_())
    assert torch.autograd.gradgradcheck(head, logits)
    fake, real = torch.randn(2, 7, device=DEVICE, dtype=torch.float64)
    for criterion in ("lsgan", "vanilla"):
        assert torch.autograd.gradgradcheck(
            lambda f, r, c=criterion: accl_ext.accl_discriminator_loss(f, r, criterion=c),
            (fake.clone().requires_grad_(), real.clone().requires_grad_()),
        )


def test_opcheck():
    logits, labels, bounds = head_inputs(torch.float32, 2, 3, (5, 7))
    scores = torch.randn(2, 900, device=DEVICE, requires_grad=True)
    ops = torch.ops.accl_ext
    logits.requires_grad_()
    options = (255, None, None, 0.0)
    torch.library.opcheck(ops.segmentation_head.default, (logits, labels, bounds, *options, "area"))
    torch.library.opcheck(ops.partial_cross_entropy.default, (logits, labels, *options, "mean"))
    torch.library.opcheck(ops.size_penalty.default, (logits, bounds, "area", "mean"))
    torch.library.opcheck(ops.accl_loss.default, (scores, 1.0, "lsgan", "mean"))


def test_other_devices_are_refused_by_name():
    logits, labels, _ = head_inputs()
    with pytest.raises(ValueError, match=r"cuda:0.*cpu"):
        accl_ext.partial_cross_entropy(logits, labels.cpu())


# ------------------------------------------------------------------------------------------------
# Determinism


def step(logits: Tensor, labels: Tensor, bounds: Tensor) -> tuple[Tensor, ...]:
    """All outputs of the head, and a gradient through all of them."""
    leaf = logits.detach().requires_grad_()
    out = accl_ext.segmentation_head(leaf, labels, bounds)
    weight = torch.linspace(-1, 1, leaf.numel(), device=leaf.device).view_as(leaf)
    loss = (out.probabilities * weight.to(leaf.dtype)).sum() + out.soft_size.sum()
    (grad,) = torch.autograd.grad(loss + out.partial_ce + out.size_penalty, leaf)
    return (*(x.detach() for x in out), grad)


@for_dtypes
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("spatial", [(250, 200), (256, 256), (512, 512)], ids=str)
def test_repeats_and_alignment_change_no_bit(dtype, classes, spatial):
    logits, labels, bounds = head_inputs(dtype, 3, classes, spatial)
    wanted = step(logits, labels, bounds)
    for layout in ("contiguous", "offset") * 10:
        got = step(lay_out(logits, layout), lay_out(labels, layout), bounds)
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@for_dtypes
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("spatial", [(251, 201), (256, 256)], ids=str)
def test_an_image_alone_is_the_image_in_a_batch(dtype, classes, spatial):
    logits, labels, bounds = head_inputs(dtype, 5, classes, spatial)
    batch = accl_ext.segmentation_head(logits, labels, bounds)
    for i in range(5):
        one = slice(i, i + 1)
        alone = accl_ext.segmentation_head(logits[one], labels[one], bounds[one])
        assert torch.equal(alone.probabilities, batch.probabilities[one])
        assert torch.equal(alone.soft_size, batch.soft_size[one])
