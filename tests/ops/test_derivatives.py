"""First to third derivatives of every op. gradgradcheck alone passes a gradient that has a detached
part, so the Hessian's products are compared with the reference's as well."""

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck

import accl_ext
from accl_ext import reference
from accl_ext._overlap_arguments import OverlapOptions
from ops.op_cases import CASES, FEW, OVERLAPS, cases, make_pairs, size_bounds
from ops.oracle import as_tuple, assert_near, make_labels, make_logits, make_probabilities

ops = torch.ops.accl_ext
# The backward ops take options as integers.
CRITERIA, REDUCTIONS = ("lsgan", "vanilla", "hinge"), ("mean", "sum", "none", "image_mean")


@pytest.mark.parametrize(**cases(CASES))
def test_gradcheck(case):
    leaves, run = case.make()
    assert gradcheck(lambda *x: run(accl_ext, *x), leaves)


@pytest.mark.parametrize(**cases(CASES))
def test_gradgradcheck(case):
    leaves, run = case.make()
    assert gradgradcheck(lambda *x: run(accl_ext, *x), leaves)


def first(api, case_run, leaves, cotangents):
    return grad(
        [x for x in case_run(api, *leaves) if x.requires_grad],
        leaves,
        cotangents,
        create_graph=True,
    )


@pytest.mark.parametrize(**cases(CASES))
def test_hessian_vector_products(case):
    """With respect to every input and every incoming gradient, against the reference."""
    leaves, run = case.make()
    outputs = [x for x in run(reference, *leaves) if x.requires_grad]
    cotangents = [torch.randn_like(x, requires_grad=True) for x in outputs]
    direction = [torch.randn_like(x) for x in leaves]

    def products(api):
        outs = run(api, *leaves)
        outs = [x for x, r in zip(outs, run(reference, *leaves), strict=True) if r.requires_grad]
        gradients = grad(outs, leaves, cotangents, create_graph=True)
        assert all(g.requires_grad for g in gradients)
        return grad(
            gradients, [*leaves, *cotangents], direction, materialize_grads=True, create_graph=True
        )

    for got, wanted in zip(products(accl_ext), products(reference), strict=True):
        assert_near(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(**cases(FEW))
def test_hessian_vector_products_in_lower_precision(case, dtype):
    leaves, run = case.make(dtype)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    direction = [torch.randn_like(x) for x in leaves]

    def product(api, inputs, vector):
        outputs = [x for x in run(api, *inputs) if x.requires_grad]
        gradients = grad([x.double().sum() for x in outputs], inputs, create_graph=True)
        return grad(gradients, inputs, vector, materialize_grads=True)

    got = product(accl_ext, leaves, direction)
    wanted = product(reference, wide, [x.double() for x in direction])
    tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == dtype
        # The first gradient, rounded to half, is what the second starts from.
        assert (a.double() - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize(**cases(CASES))
def test_every_gradient_has_a_graph(case):
    leaves, run = case.make()
    for output in run(accl_ext, *leaves):
        assert output.requires_grad
        gradients = grad(output.sum(), leaves, create_graph=True, allow_unused=True)
        assert all(g.requires_grad for g in gradients)


@pytest.mark.parametrize(**cases(FEW))
def test_third_derivative(case):
    leaves, run = case.make()

    def third(api):
        outputs = [x for x in run(api, *leaves) if x.requires_grad]
        g = grad([x.pow(3).sum() for x in outputs], leaves, create_graph=True)
        g2 = grad([x.pow(2).sum() for x in g], leaves, create_graph=True)
        return grad([x.pow(2).sum() for x in g2], leaves)

    for got, wanted in zip(third(accl_ext), third(reference), strict=True):
        assert wanted.isfinite().all()
        assert_near(got, wanted)


def test_second_derivative_by_hand():
    """At z = 0, y = 1: loss softplus(-z), slope -1/2, curvature v = 1/4."""
    z = torch.zeros(1, 1, 1, dtype=torch.float64, requires_grad=True)
    (g,) = grad(accl_ext.partial_cross_entropy(z, torch.ones(1, 1).long()), z, create_graph=True)
    (h,) = grad(g, z)
    assert (g.item(), h.item()) == (-0.5, 0.25)
    # (V - 2)^2 with V = sigmoid(0) = 1/2: 2 v^2 + 2 (V - a) v (1 - 2 s) = 2 / 16
    (g,) = grad(accl_ext.size_penalty(z, (2, 3), normalize="none"), z, create_graph=True)
    (h,) = grad(g, z)
    assert g.item() == 2 * (0.5 - 2) * 0.25
    assert h.item() == 0.125
    # (d - 1)^2: 2 (d - 1) = -2, then 2
    d = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (g,) = grad(accl_ext.accl_loss(d), d, create_graph=True)
    (h,) = grad(g, d)
    assert (g.item(), h.item()) == (-2.0, 2.0)


# ---------------------------------------------------------------------------------------------
# The ops themselves, forward and backward, without the Python face


def score_calls():
    for criterion in ("lsgan", "vanilla", "hinge"):
        for reduction in ("mean", "none"):
            x, y = make_logits(2, 1, (3,)), make_logits(2, 1, (3,))
            g = torch.randn(()) if reduction == "mean" else torch.randn(2, 1, 3)
            g = g.double()
            name = f"{criterion}-{reduction}"
            integers = (CRITERIA.index(criterion), REDUCTIONS.index(reduction))
            yield (
                f"accl_loss-{name}",
                lambda a, c=criterion, r=reduction: ops.accl_loss.default(a, 0.9, c, r),
                (x,),
            )
            yield (
                f"accl_loss_backward-{name}",
                lambda g, a, i=integers: ops._accl_loss_backward.default(g, a, 0.9, *i),
                (g, x),
            )
            yield (
                f"discriminator-{name}",
                lambda a, b, c=criterion, r=reduction: ops.accl_discriminator_loss.default(
                    a, b, 0.1, 0.9, c, 0.5, r
                ),
                (x, y),
            )
            yield (
                f"discriminator_backward-{name}",
                lambda g, a, b, c=integers[0], r=integers[1]: (
                    ops._accl_discriminator_loss_backward.default(
                        g, a, b, 0.1, 0.9, c, 0.5, r, (True, True)
                    )
                ),
                (g, x, y),
            )


def pixel_backward(z, y, bounds, weight, ce_reduction, size_reduction, more=(None, 0.0)):
    """_segmentation_head_backward of its five differentiable inputs and the logits."""
    _, ce_scale = ops.partial_cross_entropy.default(z, y, 255, weight, *more, ce_reduction)
    _, _, penalty_scale = ops.size_penalty.default(z, bounds, "area", size_reduction)

    def call(g_probabilities, g_ce, g_penalty, g_size, logits, soft_size):
        return ops._segmentation_head_backward.default(
            g_probabilities,
            g_ce,
            g_penalty,
            g_size,
            logits,
            y,
            bounds,
            soft_size,
            ce_scale,
            penalty_scale,
            255,
            weight,
            *more,
            0,
            REDUCTIONS.index(ce_reduction),
            REDUCTIONS.index(size_reduction),
        )

    return call


def pixel_calls():
    for classes in (1, 3):
        z, y = make_logits(3, classes, (4,)), make_labels(3, classes, (4,), labelled=0.7)
        bounds = size_bounds(classes, 4)
        weight = torch.rand(max(classes, 2)).double() + 0.5
        more = (torch.rand(3, 4).double() + 0.5, 0.2)
        size = z.detach().sigmoid().sum(-1) if classes == 1 else z.detach().softmax(1).sum(-1)
        name = f"C{classes}"
        yield (
            f"partial_cross_entropy-{name}",
            lambda z, y=y, w=weight, m=more: ops.partial_cross_entropy.default(
                z, y, 255, w, *m, "mean"
            ),
            (z,),
        )
        yield (
            f"size_penalty-{name}",
            lambda z, b=bounds: ops.size_penalty.default(z, b, "area", "mean"),
            (z,),
        )
        yield (
            f"segmentation_head-{name}",
            lambda z, y=y, b=bounds, w=weight, m=more: ops.segmentation_head.default(
                z, y, b, 255, w, *m, "area"
            ),
            (z,),
        )
        for ce_reduction, size_reduction in (("mean", "mean"), ("none", "none")):
            mapped = ce_reduction == "none"
            g_ce = torch.randn(3, 4) if mapped else torch.randn(())
            g_penalty = torch.randn(3, classes) if mapped else torch.randn(())
            inputs = (
                torch.randn_like(z),
                g_ce.double(),
                g_penalty.double(),
                torch.randn(3, classes).double(),
                z,
                size,
            )
            yield (
                f"pixel_backward-{name}-{ce_reduction}",
                pixel_backward(z, y, bounds, weight, ce_reduction, size_reduction, more),
                inputs,
            )


def overlap_backward(y, by_pixel, labelled, numbers, weight):
    """_segmentation_head_backward of the overlap's two gradients, the logits and the sums, of which
    those of the labels are constant."""

    def call(g, g_sums, z, sums):
        before = (None, None, None, None, z, y, None, None, None, None, 255, None)
        return ops._segmentation_head_backward.default(
            *before, by_pixel, 0.0, 0, 0, 0, g, g_sums, torch.cat([sums, labelled], -1), numbers,
            weight,
        )  # fmt: skip

    return call


def overlap_calls():
    for classes in (1, 3):
        z, y = make_logits(3, classes, (4,)), make_labels(3, classes, (4,), labelled=0.7)
        weight = torch.rand(max(classes, 2)).double() + 0.5
        by_pixel = torch.rand(3, 4).double() + 0.5
        for name, options in OVERLAPS.items():
            for reduction in ("mean", "none"):
                numbers = OverlapOptions(**options, reduction=reduction).numbers()
                arguments = (y, 255, weight, by_pixel, numbers)
                loss, sums = ops.partial_overlap_loss.default(z, *arguments)
                yield (
                    f"partial_overlap_loss-C{classes}-{name}-{reduction}",
                    lambda z, a=arguments: ops.partial_overlap_loss.default(z, *a),
                    (z,),
                )
                yield (
                    f"overlap_backward-C{classes}-{name}-{reduction}",
                    overlap_backward(y, by_pixel, sums[..., 2:], numbers, weight),
                    (torch.randn_like(loss), torch.randn_like(sums), z, sums[..., :2]),
                )


def pair_calls():
    for classes in (1, 3):
        for masked in (False, True):
            p, v = (make_probabilities(3, classes, (4,)) for _ in range(2))
            image, *masks = make_pairs((4,), 2, masked)
            window = (image, 2, [1.0, 2.0, 0.3, 0.5, 1.0, 0.2], [1.5], *masks)
            name = f"C{classes}-{'masked' if masked else 'plain'}"
            for reduction in ("mean", "none"):
                yield (
                    f"gated_crf_loss-{name}-{reduction}",
                    # The map of gradients is an output like the loss; without one it is empty.
                    lambda p, w=window, r=reduction: ops.gated_crf_loss.default(p, *w, r, True)[
                        : 2 if r == "mean" else 1
                    ],
                    (p,),
                )
            yield (
                f"gated_crf_gather-{name}",
                lambda v, w=window: ops._gated_crf_gather.default(v, *w),
                (v,),
            )


torch.manual_seed(0)
CALLS = [*score_calls(), *pixel_calls(), *overlap_calls(), *pair_calls()]
for_calls = pytest.mark.parametrize(
    ("function", "inputs"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS]
)


def differentiable(function):
    return lambda *x: tuple(y for y in as_tuple(function(*x)) if y.requires_grad)


@for_calls
def test_ops_gradcheck_and_gradgradcheck(function, inputs):
    leaves = [x.detach().requires_grad_() for x in inputs]
    assert gradcheck(differentiable(function), leaves)
    assert gradgradcheck(differentiable(function), leaves)


@for_calls
def test_through_each_input_alone(function, inputs):
    """Only one input requires grad: its gradient is the same as when all do."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = differentiable(function)(*leaves)
    cotangents = [torch.randn_like(x) for x in outputs]
    together = grad(outputs, leaves, cotangents, allow_unused=True)
    for i, wanted in enumerate(together):
        alone = [x.detach() for x in inputs]
        alone[i] = alone[i].clone().requires_grad_()
        outputs = differentiable(function)(*alone)
        (got,) = grad(outputs, alone[i], cotangents)
        assert torch.equal(got, wanted)
        (again,) = grad(differentiable(function)(*alone), alone[i], cotangents, create_graph=True)
        assert torch.equal(again, wanted)


@pytest.mark.parametrize("classes", [1, 3])
def test_segmentation_head_backward_with_each_gradient_absent(classes):
    """An absent incoming gradient is a zero one."""
    z, y = make_logits(3, classes, (4,)), make_labels(3, classes, (4,))
    bounds = size_bounds(classes, 4)
    call = pixel_backward(z, y, bounds, None, "mean", "mean")
    size = z.softmax(1).sum(-1) if classes > 1 else z.sigmoid().sum(-1)
    given = [
        torch.randn_like(z),
        torch.randn((), dtype=z.dtype),
        torch.randn((), dtype=z.dtype),
        torch.randn(3, classes, dtype=z.dtype),
    ]
    for absent in range(16):
        keep = [g if absent >> i & 1 else None for i, g in enumerate(given)]
        zero = [g if absent >> i & 1 else torch.zeros_like(g) for i, g in enumerate(given)]
        leaf = z.clone().requires_grad_()
        got, wanted = call(*keep, leaf, size), call(*zero, leaf, size)
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-15)
        (second,) = grad(got.pow(2).sum(), leaf)
        (wanted,) = grad(wanted.pow(2).sum(), leaf)
        torch.testing.assert_close(second, wanted, rtol=1e-12, atol=1e-15)
