"""Any shape, stride, dtype and mix of labels: the fused op equals the reference, or both raise the
same error. Finite input never gives NaN."""

import math

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import accl_ext
from accl_ext import reference
from ops.op_cases import OVERLAPS
from ops.oracle import DTYPES, LABEL_TYPES, accumulation, assert_near, call, leaf

fuzz = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,  # the same examples in every run
    suppress_health_check=list(HealthCheck),
)

dtypes = st.sampled_from(DTYPES)
sizes = st.one_of(st.integers(0, 5), st.sampled_from([7, 15, 16, 17, 33]))
values = st.sampled_from([0.0, 1.0, 30.0])
special = st.sampled_from([None, None, None, math.inf, -math.inf, math.nan, 6e4, -6e4])


@st.composite
def strided(draw, tensor):
    """The values of a tensor in memory of another order, offset or gaps; or with a dimension
    expanded."""
    if tensor.dim() == 0:
        return tensor
    order = draw(st.permutations(range(tensor.dim())))
    step = draw(st.sampled_from([1, 1, 2]))
    offset = draw(st.integers(0, 2))
    shape = [tensor.shape[i] for i in order]
    buffer = tensor.new_zeros((*shape[:-1], shape[-1] * step + offset))
    view = buffer[..., offset::step][..., : shape[-1]]
    moved = view.permute([order.index(i) for i in range(tensor.dim())])
    moved.copy_(tensor)
    if draw(st.booleans()):
        d = draw(st.integers(0, tensor.dim() - 1))
        if tensor.shape[d] > 0:
            moved = moved.narrow(d, 0, 1).expand(tensor.shape)
    return moved


@st.composite
def numbers(draw, shape, dtype):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * draw(values)
    odd = draw(special)
    if odd is not None and x.numel():
        x.view(-1)[draw(st.integers(0, x.numel() - 1))] = odd
    return draw(strided(x.to(dtype)))


@st.composite
def pixels(draw):
    """Logits, labels (perhaps of a wrong shape, with values that are no class) and ignore_index."""
    rank = draw(st.integers(1, 3))
    batch, classes = draw(st.integers(0, 3)), draw(st.sampled_from([1, 1, 2, 3, 5, 17]))
    spatial = [draw(sizes) for _ in range(rank)]
    logits = draw(numbers([batch, classes, *spatial], draw(dtypes)))
    label_type = draw(st.sampled_from(LABEL_TYPES))
    ignore = draw(st.sampled_from([255, -1, -100, 0, 1, 300]))
    allowed = [*range(max(classes, 2)), ignore]
    if draw(st.integers(0, 9)) == 0:
        allowed.append(draw(st.sampled_from([2, 7, -2, 100])))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    shape = [batch, *([1] if draw(st.booleans()) else []), *spatial]
    if draw(st.integers(0, 19)) == 0:
        shape[-1] += 1
    index = torch.randint(len(allowed), shape, generator=generator)
    labels = torch.tensor(allowed)[index].to(label_type)
    return logits, draw(strided(labels)), ignore


@st.composite
def weights(draw, classes):
    if draw(st.booleans()):
        return None
    n = max(classes, 2) + draw(st.sampled_from([0] * 9 + [1]))
    some = st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e-3])
    return torch.tensor([draw(some) for _ in range(n)], dtype=draw(dtypes))


@st.composite
def pixel_weights(draw, logits):
    """Perhaps of a wrong shape; NaN and infinity count only where a label is."""
    if draw(st.booleans()):
        return None
    shape = [logits.shape[0], *([1] if draw(st.booleans()) else []), *logits.shape[2:]]
    if draw(st.integers(0, 19)) == 0:
        shape[-1] += 1
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    weight = torch.tensor([0.0, 1.0, 0.5, 3.0])[torch.randint(4, shape, generator=generator)]
    odd = draw(st.sampled_from([None, None, math.nan]))
    if odd is not None and weight.numel():
        weight.view(-1)[draw(st.integers(0, weight.numel() - 1))] = odd
    return draw(strided(weight.to(draw(dtypes))))


smoothings = st.sampled_from([0.0, 0.0, 0.1, 1.0, 1.5])


@st.composite
def bounds(draw, batch, classes):
    side = st.sampled_from([0.0, 0.5, 3.0, 8.0, 1e4, math.inf, -math.inf, math.nan])
    if draw(st.booleans()):
        return (draw(side), draw(side))
    shape = draw(
        st.sampled_from([(2,), (classes, 2), (1, 2), (batch, 1, 2), (batch, classes, 2), (3,)])
    )
    flat = [draw(side) for _ in range(math.prod(shape))]
    return torch.tensor(flat, dtype=draw(st.sampled_from(DTYPES[:2]))).reshape(shape)


def run(api, name, inputs, others, options, cotangents):
    """(outputs, gradients), or the error as (type, message)."""
    try:
        outputs = call(api, name, *inputs, *others, **options)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    used = [i for i, x in enumerate(outputs) if x.requires_grad]
    while len(cotangents) < len(outputs):
        generator = torch.Generator().manual_seed(len(cotangents))
        like = outputs[len(cotangents)]
        cotangents.append(torch.randn(like.shape, generator=generator).to(like.dtype))
    gradients = torch.autograd.grad(
        [outputs[i] for i in used], inputs, [cotangents[i].to(outputs[i].dtype) for i in used]
    )
    return outputs, gradients


def finite_max(*tensors) -> float:
    """Of the finite values, at least 1."""
    return max([1.0, *(x[x.isfinite()].abs().max().item() for x in tensors if x.isfinite().any())])


def size_error(logits, limits, normalize) -> float:
    """Rounding error of (V - b)^2 where V and b are near: what no formula can give."""
    if limits is None or logits.numel() == 0:
        return 0.0
    area = logits[0, 0].numel()
    largest = area + finite_max(torch.as_tensor(limits, dtype=torch.float64))
    scale = {"none": 1, "area": area, "area2": area**2}[normalize]
    return 8 * torch.finfo(accumulation(logits.dtype)).eps * largest**2 / scale


def compare(name, inputs, others, options, error=0.0, seen=()):
    """seen: tensors beside the inputs whose NaN may reach the result."""
    cotangents = []
    fused = run(accl_ext, name, [leaf(x) for x in inputs], others, options, cotangents)
    wide = [leaf(x, torch.float64) for x in inputs]
    if isinstance(others, tuple) and isinstance(fused[0], type):
        wide = [leaf(x) for x in inputs]  # an error names the dtype that came
    wanted = run(reference, name, wide, others, options, cotangents)
    if isinstance(fused[0], type) or isinstance(wanted[0], type):
        assert fused == wanted
        return
    given = [*inputs, *seen, *(x for x in options.values() if isinstance(x, torch.Tensor))]
    finite = all(x.isfinite().all() for x in given)
    slack = error + 1e-14 * finite_max(*inputs)  # of log_softmax in the oracle, where p is near 1
    for kind, got_all, wanted_all in zip(("value", "gradient"), fused, wanted, strict=True):
        for got, oracle in zip(got_all, wanted_all, strict=True):
            assert not (finite and got.isnan().any()), f"{kind}: NaN from finite input"
            assert_near(got, oracle, kind, slack)


@fuzz
@given(st.data())
def test_accl_loss(data):
    shape = data.draw(st.lists(sizes, max_size=4))
    x = data.draw(numbers(shape, data.draw(dtypes)))
    options = {
        "criterion": data.draw(st.sampled_from(["lsgan", "vanilla", "hinge", "wgan"])),
        "reduction": data.draw(st.sampled_from(["mean", "sum", "none"])),
        "target": data.draw(st.sampled_from([0.0, 0.9, 1.0])),
    }
    compare("accl_loss", [x], (), options)


@fuzz
@given(st.data())
def test_discriminator_loss(data):
    shape = data.draw(st.lists(sizes, max_size=4))
    other = shape if data.draw(st.booleans()) else data.draw(st.lists(sizes, max_size=3))
    dtype = data.draw(dtypes)
    fake, real = data.draw(numbers(shape, dtype)), data.draw(numbers(other, dtype))
    options = {
        "criterion": data.draw(st.sampled_from(["lsgan", "vanilla", "hinge"])),
        "reduction": data.draw(st.sampled_from(["mean", "sum", "none", "max"])),
        "scale": data.draw(st.sampled_from([0.5, 1.0])),
    }
    compare("accl_discriminator_loss", [fake, real], (), options)


@fuzz
@given(st.data())
def test_partial_cross_entropy(data):
    logits, labels, ignore = data.draw(pixels())
    options = {
        "ignore_index": ignore,
        "weight": data.draw(weights(logits.shape[1])),
        "pixel_weight": data.draw(pixel_weights(logits)),
        "label_smoothing": data.draw(smoothings),
        "reduction": data.draw(st.sampled_from(["mean", "image_mean", "sum", "none"])),
    }
    compare("partial_cross_entropy", [logits], (labels,), options)


@fuzz
@given(st.data())
def test_size_penalty(data):
    logits, _, _ = data.draw(pixels())
    options = {
        "normalize": data.draw(st.sampled_from(["area", "none", "area2"])),
        "reduction": data.draw(st.sampled_from(["mean", "sum", "none"])),
    }
    limits = data.draw(bounds(*logits.shape[:2]))
    error = size_error(logits, limits, options["normalize"])
    compare("size_penalty", [logits], (limits,), options, error)


@fuzz
@given(st.data())
def test_segmentation_head(data):
    logits, labels, ignore = data.draw(pixels())
    limits = data.draw(st.none() | bounds(*logits.shape[:2]))
    options = {
        "ignore_index": ignore,
        "weight": data.draw(weights(logits.shape[1])),
        "pixel_weight": data.draw(pixel_weights(logits)),
        "label_smoothing": data.draw(smoothings),
        "normalize": data.draw(st.sampled_from(["area", "none", "area2"])),
    }
    error = size_error(logits, limits, options["normalize"])
    compare("segmentation_head", [logits], (labels, limits), options, error)


@st.composite
def overlaps(draw, classes):
    """Options of the overlap loss. Without smoothing a ratio of nothing to next to nothing, at
    infinite logits, is as good as any: no oracle gives it."""
    return {
        **draw(st.sampled_from([OVERLAPS["tversky"], OVERLAPS["keep"]])),
        "absent": draw(st.sampled_from(["skip", "keep"])),
        "include_background": draw(st.sampled_from([None, False, True])),
        "squared": draw(st.booleans()),
        "batch": draw(st.booleans()),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        "weight": draw(weights(classes)),
    }


@fuzz
@given(st.data())
def test_partial_overlap_loss(data):
    logits, labels, ignore = data.draw(pixels())
    options = {
        "ignore_index": ignore,
        "pixel_weight": data.draw(pixel_weights(logits)),
        **data.draw(overlaps(logits.shape[1])),
    }
    compare("partial_overlap_loss", [logits], (labels,), options, FUZZ_SUMS[logits.dtype])
    overlap = {k: v for k, v in options.items() if k not in ("ignore_index", "pixel_weight")}
    head = {k: options[k] for k in ("ignore_index", "pixel_weight")}
    compare(
        "segmentation_head",
        [logits],
        (labels, None),
        {**head, "overlap": overlap},
        FUZZ_SUMS[logits.dtype],
    )


# The sums are kept in the accumulation type, and 1 - T is a small difference where T is near 1.
FUZZ_SUMS = {dtype: 4 * torch.finfo(accumulation(dtype)).eps for dtype in DTYPES}
