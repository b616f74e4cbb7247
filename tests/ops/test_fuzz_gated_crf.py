"""gated_crf_loss under test_fuzz's rules: any shape, stride, dtype, window and masks."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ops.oracle import DTYPES
from ops.test_fuzz import compare, dtypes, fuzz, numbers, strided

odd_sizes = st.one_of(st.integers(0, 4), st.sampled_from([7, 16, 17, 33]))
sigmas = st.sampled_from([0.05, 0.3, 1.0, 6.0, 100.0])
kernels = st.tuples(st.sampled_from([1.0, 0.5, -0.5, 3.0]), sigmas, st.one_of(st.none(), sigmas))


@st.composite
def masks(draw, batch, spatial):
    """Bool of one of both shapes in any strides, None, or (seldom) of a wrong shape."""
    kind = draw(st.sampled_from([None, None, 0.0, 0.5, 0.9, 1.0]))
    if kind is None:
        return None
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    shape = [batch, *([1] if draw(st.booleans()) else []), *spatial]
    if draw(st.integers(0, 19)) == 0:
        shape[-1] += 1
    return draw(strided(torch.rand(shape, generator=generator) < kind))


@fuzz
@given(st.data())
def test_gated_crf_loss(data):
    draw = data.draw
    rank = draw(st.integers(1, 3))
    spatial = [draw(odd_sizes) for _ in range(rank)]
    if rank == 3:
        spatial = [min(size, 7) for size in spatial[:2]] + spatial[2:]
    batch, classes = draw(st.integers(0, 2)), draw(st.sampled_from([1, 1, 2, 3, 6]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    z = torch.randn(batch, classes, *spatial, generator=generator, dtype=torch.float64)
    p = z.sigmoid() if classes == 1 else z.softmax(1)
    p = draw(strided(p.to(draw(dtypes))))
    # A wider image than p is rounded to p's precision first, which the reference does not see.
    image_dtype = draw(dtypes if p.dtype == torch.float64 else st.sampled_from(DTYPES[1:]))
    image = draw(numbers([batch, draw(st.integers(1, 5)), *spatial], image_dtype))
    source = draw(masks(batch, spatial))
    options = {
        "radius": draw(st.sampled_from([1, 1, 2, 3, 40, 0])),
        "kernels": draw(st.lists(kernels, min_size=1, max_size=3)),
        "spacing": draw(st.sampled_from([None, None, [0.5, 2.0, 1.0][:rank]])),
        "source_mask": source,
        "destination_mask": source if draw(st.booleans()) else draw(masks(batch, spatial)),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
    }
    # Kernels of opposite signs may cancel.
    largest = sum(abs(weight) for weight, _, _ in options["kernels"])
    neighbours = min((2 * options["radius"] + 1) ** rank, max(z[0, 0].numel() if batch else 1, 1))
    narrow = p.dtype != torch.float64
    error = (1e-6 if narrow else 1e-14) * largest * neighbours
    error *= p.numel() if options["reduction"] == "sum" else 1
    compare("gated_crf_loss", [p], (image,), options, error, seen=(image,))
