"""Tracing and transforms of the ops: opcheck, meta and fake tensors, torch.func, forward mode."""

import math

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import accl_ext
from accl_ext import reference
from accl_ext._overlap_arguments import OverlapOptions
from ops.op_cases import FEW, OVERLAPS, cases, make_pairs, size_bounds
from ops.oracle import (
    DTYPES,
    as_tuple,
    dtype_id,
    make_labels,
    make_logits,
    make_probabilities,
)

ops = torch.ops.accl_ext
# The backward ops take options as integers.
CRITERIA, REDUCTIONS = ("lsgan", "vanilla", "hinge"), ("mean", "sum", "none", "image_mean")


def op_samples():
    yield from score_samples()
    yield from pixel_samples()
    yield from overlap_samples()
    yield from pair_samples()


def score_samples():
    for criterion in ("lsgan", "vanilla", "hinge"):
        for reduction in ("mean", "none"):
            x, y = make_logits(2, 1), make_logits(2, 1)
            x.requires_grad_(), y.requires_grad_()
            g = torch.ones((), dtype=x.dtype)
            if reduction == "none":
                g = torch.ones_like(x)
            g.requires_grad_()
            options = (0.1, 0.9, criterion, 0.5, reduction)
            integers = (CRITERIA.index(criterion), REDUCTIONS.index(reduction))
            name = f"{criterion}-{reduction}"
            yield f"accl_loss-{name}", ops.accl_loss, (x, 1.0, criterion, reduction)
            yield (
                f"accl_loss_backward-{name}",
                ops._accl_loss_backward,
                (g, x, 1.0, *integers),
            )
            yield f"discriminator-{name}", ops.accl_discriminator_loss, (x, y, *options)
            for mask in ((True, True), (True, False), (False, True)):
                yield (
                    f"discriminator_backward-{name}-{mask}",
                    ops._accl_discriminator_loss_backward,
                    (g, x, y, 0.1, 0.9, integers[0], 0.5, integers[1], mask),
                )


def pixel_samples():
    for classes in (1, 3):
        for weighted in (False, True):
            weight = torch.rand(max(classes, 2)) if weighted else None
            more = (torch.rand(3, 5, 7), 0.1) if weighted else (None, 0.0)
            z, y = make_logits(3, classes).requires_grad_(), make_labels(3, classes)
            bounds = size_bounds(classes, 35)
            name = f"C{classes}-{'weighted' if weighted else 'plain'}"
            for r in ("mean", "image_mean", "sum", "none"):
                yield (
                    f"partial_cross_entropy-{name}-{r}",
                    ops.partial_cross_entropy,
                    (z, y, 255, weight, *more, r),
                )
            for r in ("mean", "sum", "none"):
                yield f"size_penalty-{name}-{r}", ops.size_penalty, (z, bounds, "area", r)
            for b in (None, bounds):
                yield (
                    f"segmentation_head-{name}-{'free' if b is None else 'bounds'}",
                    ops.segmentation_head,
                    (z, y, b, 255, weight, *more, "area"),
                )
            head = ops.segmentation_head(z.detach(), y, bounds, 255, weight, *more, "area")
            p, ce, penalty, size, ce_scale, penalty_scale, *_ = head
            saved = (
                z,
                y,
                bounds,
                size.requires_grad_(),
                ce_scale,
                penalty_scale,
                255,
                weight,
                *more,
            )
            given = [torch.ones_like(x).requires_grad_() for x in (p, ce, penalty, size)]
            for absent in (None, 0, 1, 2, 3):
                g = [None if i == absent else x for i, x in enumerate(given)]
                yield (
                    f"pixel_backward-{name}-without-{absent}",
                    ops._segmentation_head_backward,
                    (*g, *saved, 0, 0, 0),
                )


def overlap_samples():
    for classes in (1, 3):
        weight, by_pixel = torch.rand(max(classes, 2)), torch.rand(3, 5, 7)
        z, y = make_logits(3, classes).requires_grad_(), make_labels(3, classes)
        for name, options in OVERLAPS.items():
            for reduction in ("mean", "none"):
                numbers = OverlapOptions(**options, reduction=reduction).numbers()
                arguments = (z, y, 255, weight, by_pixel, numbers)
                id = f"C{classes}-{name}-{reduction}"
                yield f"partial_overlap_loss-{id}", ops.partial_overlap_loss, arguments
                yield (
                    f"segmentation_head-{id}",
                    ops.segmentation_head,
                    (z, y, None, 255, None, by_pixel, 0.0, "area", numbers, weight),
                )
                loss, sums = ops.partial_overlap_loss.default(z.detach(), *arguments[1:])
                given = [torch.ones_like(x).requires_grad_() for x in (loss, sums)]
                for g in (given, [given[0], None], [None, given[1]]):
                    before = (None, None, None, None, z, y, None, None, None, None, 255, None)
                    saved = (*g, sums.detach().requires_grad_(), numbers, weight)
                    yield (
                        f"overlap_backward-{id}-{[x is None for x in g]}",
                        ops._segmentation_head_backward,
                        (*before, by_pixel, 0.0, 0, 0, 0, *saved),
                    )


def pair_samples():
    for classes in (1, 3):
        for masked in (False, True):
            p = make_probabilities(3, classes).requires_grad_()
            window = (2, [1.0, 2.0, 0.3, 0.5, 1.0, math.inf], [1.0, 2.0] if masked else [])
            image, *masks = make_pairs((5, 7), 2, masked)
            name = f"C{classes}-{'masked' if masked else 'plain'}"
            for r in ("mean", "sum", "none"):
                for with_gradient in (False, True):
                    yield (
                        f"gated_crf_loss-{name}-{r}-{with_gradient}",
                        ops.gated_crf_loss,
                        (p, image, *window, *masks, r, with_gradient),
                    )
            yield f"gated_crf_gather-{name}", ops._gated_crf_gather, (p, image, *window, *masks)


torch.manual_seed(0)
SAMPLES = list(op_samples())


def first_of_each_op(samples):
    """The others are slow: reductions and absent gradients, which other tests look at too."""
    seen = set()
    for name, op, arguments in samples:
        kind = (op, "C3" in name, "weighted" in name or "masked" in name)
        marks = [pytest.mark.slow] if kind in seen else []
        seen.add(kind)
        yield pytest.param(op, arguments, id=name, marks=marks)


@pytest.mark.parametrize(("op", "arguments"), first_of_each_op(SAMPLES))
def test_opcheck(op, arguments):
    opcheck(op.default, arguments)


def to_meta(option):
    if isinstance(option, dict):
        return {name: to_meta(value) for name, value in option.items()}
    return option.to("meta") if isinstance(option, torch.Tensor) else option


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize(**cases(FEW))
def test_meta_tensors_have_the_real_ones_shape_and_strides(case, dtype):
    leaves, others = case.make(dtype, (5, 7))[0], case.arguments((5, 7))
    real = case.call(accl_ext, leaves, others)
    gradients = torch.autograd.grad(real, leaves, [torch.ones_like(x) for x in real])
    moved = [x.detach().to("meta").requires_grad_() for x in leaves]
    others = [None if x is None else x.to("meta") for x in others]
    tensors = {k: to_meta(v) for k, v in case.options.items()}
    meta = case.call(accl_ext, moved, others, **tensors)
    meta_gradients = torch.autograd.grad(meta, moved, [torch.ones_like(x) for x in meta])
    for a, b in zip((*real, *gradients), (*meta, *meta_gradients), strict=True):
        assert b.is_meta
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


@pytest.mark.parametrize("bounds", [(1.25, 2.5), [3, 4]], ids=str)
def test_pairs_of_bounds_under_fake_tensors_before_and_after_real_ones(bounds):
    z, y = make_logits(2, 1, dtype=torch.float32), make_labels(2, 1)
    for api in (accl_ext, reference):
        for _ in range(2):
            with FakeTensorMode() as mode:
                fake = api.size_penalty(mode.from_tensor(z), bounds)
                head = api.segmentation_head(mode.from_tensor(z), mode.from_tensor(y), bounds)
            assert fake.shape == head.size_penalty.shape == ()
            real = api.size_penalty(z, bounds)
            assert torch.equal(real, api.segmentation_head(z, y, bounds).size_penalty)
            assert real > 0


# ---------------------------------------------------------------------------------------------
# C++ autograd functions know neither torch.func nor forward mode; the reference takes over


def scalar(api, case, others):
    return lambda *x: sum(o.sum() for o in case.call(api, x, others))


@pytest.mark.parametrize(**cases(FEW))
def test_torch_func_grad(case):
    leaves, others = case.make()[0], case.arguments((3, 3))
    inputs = [x.detach() for x in leaves]
    got = torch.func.grad(scalar(accl_ext, case, others))(*inputs)
    (wanted, *_) = torch.autograd.grad(scalar(accl_ext, case, others)(*leaves), leaves)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(**cases(FEW))
def test_torch_func_jvp(case):
    leaves, others = case.make()[0], case.arguments((3, 3))
    inputs = tuple(x.detach() for x in leaves)
    tangents = tuple(torch.randn_like(x) for x in inputs)
    _, got = torch.func.jvp(scalar(accl_ext, case, others), inputs, tangents)
    gradients = torch.autograd.grad(scalar(accl_ext, case, others)(*leaves), leaves)
    wanted = sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(**cases(FEW))
def test_forward_mode(case, requires_grad):
    leaves, others = case.make()[0], case.arguments((3, 3))
    with forward_ad.dual_level():
        dual = [
            forward_ad.make_dual(x.detach().requires_grad_(requires_grad), torch.ones_like(x))
            for x in leaves
        ]
        outputs = [forward_ad.unpack_dual(x) for x in case.call(accl_ext, dual, others)]
    leaves = [x.detach().requires_grad_() for x in leaves]
    for output, value in zip(outputs, case.call(accl_ext, leaves, others), strict=True):
        if case.id == "head-C1-no_bounds" and output.tangent is None:
            continue  # a size penalty of 0 without bounds
        gradients = torch.autograd.grad(value, leaves, torch.ones_like(value), retain_graph=True)
        wanted = sum(g.sum() for g in gradients)
        torch.testing.assert_close(output.tangent.sum(), wanted, rtol=1e-11, atol=1e-13)


def test_hessian_by_torch_func():
    z, y = make_logits(1, 1, (4,)), make_labels(1, 1, (4,), labelled=1)
    hessian = torch.func.hessian(lambda x: accl_ext.partial_cross_entropy(x, y))(z).view(4, 4)
    p = z.sigmoid().flatten()
    torch.testing.assert_close(hessian, torch.diag(p * (1 - p) / 4))


ONE_IMAGE = {
    "accl_loss": lambda z, y, image: accl_ext.accl_loss(z),
    "discriminator": lambda z, y, image: accl_ext.accl_discriminator_loss(z, z + 1),
    "cross_entropy": lambda z, y, image: accl_ext.partial_cross_entropy(z, y),
    "overlap": lambda z, y, image: accl_ext.partial_overlap_loss(z, y),
    "size_penalty": lambda z, y, image: accl_ext.size_penalty(z, (1.75, 2.25)),
    "log_barrier": lambda z, y, image: accl_ext.size_penalty(z, (1.75, 2.25), form="log_barrier"),
    "head": lambda z, y, image: sum(accl_ext.segmentation_head(z, y, (1.75, 2.25))[1:3]),
    "gated_crf": lambda z, y, image: accl_ext.gated_crf_loss(z.sigmoid(), image, radius=1),
}


@pytest.fixture
def images():
    """Logits, labels and grey values [6, 1, 1, 5, 7]: six batches of one image."""
    z, y = make_logits(6, 1, (5, 7)), make_labels(6, 1, (5, 7))
    return z.unsqueeze(1), y.unsqueeze(1), torch.rand(6, 1, 1, 5, 7, dtype=z.dtype)


@pytest.mark.parametrize("loss", ONE_IMAGE.values(), ids=ONE_IMAGE)
def test_vmap_and_vmap_of_grad_against_a_loop(loss, images):
    values = torch.vmap(loss)(*images)
    gradients = torch.vmap(torch.func.grad(loss))(*images)
    for value, gradient, z, y, image in zip(values, gradients, *images, strict=True):
        leaf = z.clone().requires_grad_()
        wanted = loss(leaf, y, image)
        torch.testing.assert_close(value, wanted.detach(), rtol=1e-12, atol=1e-14)
        (wanted,) = torch.autograd.grad(wanted, leaf)
        assert wanted.abs().sum() > 0
        torch.testing.assert_close(gradient, wanted, rtol=1e-11, atol=1e-14)


def test_jacrev_against_a_loop(images):
    z, y, _ = (x.flatten(0, 1) for x in images)
    jacobian = torch.func.jacrev(lambda x: accl_ext.segmentation_head(x, y).soft_size[:, 0])(z)
    leaf = z.clone().requires_grad_()
    for row, size in zip(jacobian, accl_ext.segmentation_head(leaf, y).soft_size, strict=True):
        (wanted,) = torch.autograd.grad(size, leaf, torch.ones_like(size), retain_graph=True)
        torch.testing.assert_close(row, wanted)


def test_gradients_of_each_sample_of_a_network(images):
    network = torch.nn.Conv2d(1, 1, 3, padding=1).double()
    parameters = {name: x.detach() for name, x in network.named_parameters()}

    def loss(parameters, y, image):
        z = torch.func.functional_call(network, parameters, (image,))
        return sum(accl_ext.segmentation_head(z, y, (1.75, 2.25))[1:3])

    _, y, image = images
    got = torch.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, y, image)
    for i in range(len(y)):
        wanted = torch.autograd.grad(
            loss(dict(network.named_parameters()), y[i], image[i]), network.parameters()
        )
        for name, gradient in zip(parameters, wanted, strict=True):
            torch.testing.assert_close(got[name][i], gradient)


def test_a_pair_of_bounds_first_seen_inside_a_transform_stays_usable():
    z, bounds = make_logits(2, 1), (0.321, 0.654)
    inside = torch.func.grad(lambda x: accl_ext.size_penalty(x, bounds))(z)
    leaf = z.clone().requires_grad_()
    accl_ext.size_penalty(leaf, bounds).backward()
    torch.testing.assert_close(inside, leaf.grad)


def test_inference_mode_and_no_grad():
    z, y = make_logits(2, 1), make_labels(2, 1)
    wanted = accl_ext.segmentation_head(z, y, (1.5, 2.5))
    with torch.inference_mode():
        inference = accl_ext.segmentation_head(z, y, (1.5, 2.5))
    with torch.no_grad():
        plain = accl_ext.segmentation_head(z.requires_grad_(), y, (1.5, 2.5))
    for a, b, c in zip(wanted, inference, plain, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
        assert not c.requires_grad
    # Bounds first seen in inference mode are usable in training.
    with torch.inference_mode():
        accl_ext.size_penalty(z.detach(), (0.123, 0.456))
    accl_ext.size_penalty(z, (0.123, 0.456)).backward()
    assert z.grad.isfinite().all()


def test_outputs_are_named():
    head = as_tuple(accl_ext.segmentation_head(make_logits(1, 1), make_labels(1, 1)))
    assert len(head) == 4
    assert accl_ext.SegmentationHeadOutput._fields == (
        "probabilities",
        "partial_ce",
        "size_penalty",
        "soft_size",
    )
    head = accl_ext.segmentation_head(make_logits(1, 1), make_labels(1, 1), overlap={})
    assert head._fields == (*accl_ext.SegmentationHeadOutput._fields, "overlap")
